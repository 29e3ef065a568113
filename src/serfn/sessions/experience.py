"""What robots recorded, as the learner reads it: every kept episode once, whatever store it lies in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serfn.data.episode import Episode
from serfn.data.store.store import EpisodeStore, is_store


@dataclass(frozen=True)
class StoredEpisode:
    """A committed episode and where it lies.

    Attributes:
        store: Folder of its store.
        number: Number in that store.
        uid: Identity everywhere.
        episode: The episode without images, with corrected labels.
    """

    store: Path
    number: int
    uid: str
    episode: Episode


class ExperienceFeed:
    """Follows the stores below one folder while other processes write them.

    Episodes that were discarded before they were read are not returned. `relabelled` tells when labels have
    changed since, and `again` reads what was returned before with the labels of now.

    Args:
        root: A store, or a folder of stores such as one per robot; need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(root)
        self._seen: dict[str, set[int]] = {}
        self._labels: dict[str, int] = {}

    def new(self) -> list[StoredEpisode]:
        """Return the episodes that were committed since the last call, store by store in their order.

        Raises:
            DataError: A store is damaged; nothing damaged is ever returned.
        """
        found = []
        for path in self._stores():
            store = EpisodeStore(path)
            seen = self._seen.setdefault(str(path), set())
            for number in store.numbers:
                if number in seen:
                    continue
                summary = store.summary(number)
                if not summary.discard:
                    episode = store.episode(number, images=False)
                    found.append(StoredEpisode(path, number, summary.uid, episode))
                seen.add(number)
        return found

    def skip(self, taken: Sequence[tuple[str, int]]) -> None:
        """Count episodes as read, by the name of their store (see `name`) and their number."""
        for name, number in taken:
            self._seen.setdefault(str(self._root / name), set()).add(number)

    def again(self, taken: Sequence[tuple[str, int]]) -> list[Episode]:
        """Return episodes by the name of their store and their number, without those discarded by now.

        Raises:
            DataError: A store or an episode is missing or damaged.
        """
        stores = {name: EpisodeStore(self._root / name) for name in {name for name, _ in taken}}
        return [
            stores[name].episode(number, images=False)
            for name, number in taken
            if not stores[name].labels(number).discard
        ]

    def relabelled(self) -> bool:
        """Return whether labels were changed since the last call."""
        logs = {str(path): path / "labels.log" for path in self._stores()}
        sizes = {name: log.stat().st_size if log.exists() else 0 for name, log in logs.items()}
        changed = any(sizes[name] != self._labels.get(name, 0) for name in sizes)
        self._labels = sizes
        return changed

    def name(self, stored: StoredEpisode) -> str:
        """Return the folder of an episode's store below the root, for `skip` and `again`."""
        return stored.store.relative_to(self._root).as_posix()

    def _stores(self) -> list[Path]:
        if is_store(self._root):
            return [self._root]
        if not self._root.is_dir():
            return []
        return sorted(path for path in self._root.iterdir() if path.is_dir() and is_store(path))
