"""A folder of episodes, read by any number of processes while one writes.

Layout::

    store.json       version of the layout and the specification of the task
    episodes/        committed episodes, see `serfn.data.store.episode_files`
    journal/         episodes that are being recorded, see `serfn.data.store.journal`
    labels.log       corrected labels, see `serfn.data.store.labels`
    quarantine/      damaged files that a repair set aside
    lock             held by the writer
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serfn.core.agreement import compare, settle
from serfn.core.errors import ConfigError, DataError
from serfn.core.files import flush_to_disk, write_atomically
from serfn.core.format_version import Format
from serfn.core.lock import FileLock
from serfn.core.sides import Side
from serfn.core.spec import TaskSpec
from serfn.data.episode import Episode
from serfn.data.store.episode_files import EpisodeFile, episode_files, read_episode, read_values
from serfn.data.store.labels import NO_LABELS, LabelChange, Labels, append_labels, read_labels

STORE = Format(
    name="serfn-episodes",
    kind="store",
    version=1,
    oldest=1,
    remedy="convert it with the serfn that wrote it",
    error=DataError,
)
_ABOUT = "store.json"


@dataclass(frozen=True)
class EpisodeSummary:
    """What is known about a committed episode without its arrays; labels are the corrected ones.

    Attributes:
        number: Number in its store.
        uid: Identity everywhere.
        length: Control steps.
        terminated: See `Episode`.
        success: See `Episode`.
        success_source: See `Episode`.
        seed: See `Episode`.
        policy_version: See `Episode`.
        task: See `Episode`.
        interrupted: See `Episode`.
        stage: Stage of the task that was reached, as labelled afterwards.
        discard: Whether the episode was set aside.
        cameras: Names of the cameras.
    """

    number: int
    uid: str
    length: int
    terminated: bool
    success: bool | None
    success_source: str | None
    seed: int | None
    policy_version: int
    task: str
    interrupted: bool
    stage: str | None
    discard: bool
    cameras: tuple[str, ...]


class EpisodeStore:
    """Committed episodes of one store, as they were when it was opened or last refreshed.

    Everything that is returned has been compared with its checksum in this call.

    Args:
        path: Folder of the store.

    Raises:
        DataError: There is no store, it is of another version, or its description or labels are damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.task = read_task(self.path)
        self.refresh()

    @classmethod
    def create(cls, path: str | Path, task: TaskSpec) -> EpisodeStore:
        """Make an empty store.

        Args:
            path: Folder that does not exist or is empty.
            task: Dimensions, action bounds and rate of the episodes.

        Raises:
            DataError: The folder holds something, or cannot be written.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise DataError(f"'{path}' is no folder; choose another one for the store")
        if is_store(path):
            raise DataError(f"'{path}' already holds a store; open it, or choose another folder")
        # Our folders and hidden files are what a crash before the description was written leaves behind.
        known = ("episodes", "journal")
        if path.is_dir() and any(
            item.name not in known and not item.name.startswith(".") for item in path.iterdir()
        ):
            raise DataError(f"'{path}' is not empty; choose another folder for the store")
        content = {**STORE.stamp(), "task": task.to_dict()}
        document = {**content, "crc32": _check(content)}
        try:
            for name in ("episodes", "journal"):
                (path / name).mkdir(parents=True, exist_ok=True)
            write_atomically(path / _ABOUT, json.dumps(document, indent=1))
            flush_to_disk(path)
        except OSError as error:
            raise DataError(f"cannot make a store in '{path}': {error}; choose another folder") from error
        return cls(path)

    def refresh(self) -> None:
        """Look for episodes and labels that were added since.

        Raises:
            DataError: The labels are damaged.
        """
        numbers = [file for file in episode_files(self.path / "episodes") if not file.images]
        self._files = {file.number: file for file in numbers}
        self._labels = read_labels(self.path / "labels.log")

    def __len__(self) -> int:
        """Number of committed episodes, those set aside included."""
        return len(self._files)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the committed episodes, in the order of their commitment."""
        return tuple(self._files)

    @property
    def uids(self) -> frozenset[str]:
        """Identities of the committed episodes."""
        return frozenset(file.uid for file in self._files.values())

    def episode(self, number: int, *, images: bool = True) -> Episode:
        """Return one episode with its corrected success label.

        Args:
            number: Number of the episode.
            images: Also read its images.

        Raises:
            DataError: There is no such episode, or it is damaged; what is damaged is never returned.
        """
        file = self._file(number)
        episode = read_episode(self.path / "episodes", file, images=images)
        success, source = _success(self.labels(number), episode.success, episode.success_source)
        if (success, source) == (episode.success, episode.success_source):
            return episode
        return dataclasses.replace(episode, success=success, success_source=source)

    def episodes(self, *, images: bool = True) -> Iterator[Episode]:
        """Yield all episodes that were not set aside, in order; see `episode`."""
        for number in self.numbers:
            if not self.labels(number).discard:
                yield self.episode(number, images=images)

    def summary(self, number: int) -> EpisodeSummary:
        """Return what is known about one episode without its arrays; see `episode` for what it raises."""
        file = self._file(number)
        values, length = read_values(self.path / "episodes", file)
        labels = self.labels(number)
        success, source = _success(labels, values["success"], values["success_source"])
        return EpisodeSummary(
            number=number,
            uid=file.uid,
            length=length,
            terminated=values["terminated"],
            success=success,
            success_source=source,
            seed=values["seed"],
            policy_version=values["policy_version"],
            task=values["task"],
            interrupted=values["interrupted"],
            stage=labels.stage,
            discard=labels.discard,
            cameras=tuple(name for name, _ in values["images"].get("cameras", ())),
        )

    def file(self, number: int) -> Path:
        """Return the file of one episode.

        Raises:
            DataError: There is no such episode.
        """
        return self.path / "episodes" / self._file(number).name

    def labels(self, number: int) -> Labels:
        """Return what was said about an episode after it was recorded.

        Raises:
            DataError: There is no such episode.
        """
        return self._labels.get(self._file(number).uid, NO_LABELS)

    def relabel(self, number: int, change: LabelChange) -> None:
        """Correct the labels of one episode; allowed while another process records.

        Raises:
            DataError: There is no such episode, or the labels cannot be written.
        """
        append_labels(self.path / "labels.log", [(self._file(number).uid, change)])
        self._labels = read_labels(self.path / "labels.log")

    def _file(self, number: int) -> EpisodeFile:
        try:
            return self._files[number]
        except KeyError:
            last = max(self._files, default=None)
            known = "it is empty" if last is None else f"it holds episodes up to {last}"
            raise DataError(f"store '{self.path}' has no episode {number}; {known}") from None


def is_store(path: Path) -> bool:
    """Return whether a folder holds a store."""
    return (path / _ABOUT).is_file()


def open_or_create(path: Path, task: TaskSpec) -> EpisodeStore:
    """Open the store at `path`, or make an empty one.

    Raises:
        DataError: It belongs to a task of other dimensions, names, bounds or rate.
    """
    if not is_store(path):
        return EpisodeStore.create(path, task)
    store = EpisodeStore(path)
    given = Side.of_task(f"'{task.id}'", task)
    settle(
        compare(given, Side.of_task(f"store '{path}' of '{store.task.id}'", store.task), "store"), DataError
    )
    return store


def writer_lock(path: Path) -> FileLock:
    """Lock the store at `path` for writing.

    Raises:
        DataError: Another process writes it, or the file system cannot lock.
    """
    busy = (
        f"'{path}' is being written by {{holder}}; a store has one writer at a time: wait for it, stop "
        "it, or use another store"
    )
    return FileLock(path / "lock", busy, DataError)


def _success(labels: Labels, success: bool | None, source: str | None) -> tuple[bool | None, str | None]:
    if labels.success is None:
        return success, source
    return (None, None) if labels.success == "unknown" else (labels.success, labels.success_source)


def read_task(store: Path) -> TaskSpec:
    """Return the specification of the task that a store keeps.

    Raises:
        DataError: There is no store, it is of another version, or its description is damaged.
    """
    path = store / _ABOUT
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        check = document.pop("crc32")
    except FileNotFoundError:
        raise DataError(f"'{path.parent}' is no store (no {path.name}); check the path") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is damaged: {error}; restore it from a copy") from error
    if check != _check(document):
        raise DataError(f"'{path}' is damaged: wrong checksum; restore it from a copy")
    STORE.check(document, path.parent)
    try:
        return TaskSpec.from_dict(document["task"])
    except ConfigError as error:
        raise DataError(f"'{path}' describes no task: {error}") from error


def _check(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
