"""From journals to committed episodes: after an episode has ended, and after a crash."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from serfn.core.errors import DataError
from serfn.core.files import flush_to_disk, unused_path
from serfn.data.store.episode_files import EpisodeFile, episode_files, write_episode
from serfn.data.store.journal import SUFFIX, read_journal


@dataclass(frozen=True)
class Recovery:
    """What opening a store for writing found of an earlier writer.

    Attributes:
        committed: Numbers of the episodes that were committed from their journals.
        notes: What the user should know, one sentence each.
    """

    committed: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def journals(store: Path) -> list[Path]:
    """Return the journals of a store in the order in which they were begun."""
    return sorted((store / "journal").glob(f"*{SUFFIX}"))


def journal_uid(path: Path) -> str:
    """Return the identity of the episode in a journal, as its name says."""
    return path.name.removesuffix(SUFFIX).rpartition("-")[2]


def committed_file(store: Path, uid: str) -> EpisodeFile | None:
    """Return the file of the episode with this identity, or None if it was not committed."""
    files = (file for file in episode_files(store / "episodes") if not file.images)
    return next((file for file in files if file.uid == uid), None)


def next_number(store: Path) -> int:
    """Return the number of the next episode; those of files set aside are not given again."""
    known = [*episode_files(store / "episodes"), *episode_files(store / "quarantine")]
    # Images without an episode are what a crash left of one that was never committed.
    return 1 + max((file.number for file in known if not file.images), default=-1)


def commit_journal(
    store: Path, journal: Path, number: int, *, flush: bool
) -> tuple[EpisodeFile | None, str | None]:
    """Turn a journal into a committed episode and delete it.

    Args:
        store: Folder of the store; the caller holds its lock.
        journal: Journal that nobody writes any more.
        number: Number of the episode.
        flush: Force files to the disk.

    Returns:
        The file of the episode, or None if the journal holds no whole chunk; and a sentence about what was
        lost, or None.

    Raises:
        DataError: The episode cannot be written; the journal stays for another attempt.
    """
    try:
        content = read_journal(journal)
        episode = content.episode() if content.chunks else None
    except (ValueError, KeyError, TypeError) as error:
        # Whole records that make no sense, such as those of another version, must not block the store.
        note = f"journal '{journal.name}' cannot be understood ({error}); the file is in quarantine"
        set_aside(store, journal)
        return None, note
    file, note = None, None
    if episode is not None:
        file = write_episode(
            store / "episodes", number, journal_uid(journal), episode, content.frames(), flush=flush
        )
        if episode.interrupted:
            note = f"episode {number} was interrupted after {episode.length} steps"
    if content.damage is None:
        journal.unlink()
        return file, note
    set_aside(store, journal)
    return file, (
        f"journal '{journal.name}' is damaged: {content.damage}; {content.steps} steps before it are kept, "
        "and the file is in quarantine"
    )


def recover(store: Path, *, flush: bool) -> Recovery:
    """Commit what an earlier writer left in its journals, up to the last whole chunk.

    Recovery may itself be interrupted at any moment and repeated.

    Raises:
        DataError: An episode cannot be written.
    """
    episodes = store / "episodes"
    for stale in episodes.glob(".*.arrow.*"):
        stale.unlink()
    committed, notes = [], []
    known = {file.uid for file in episode_files(episodes) if not file.images}
    pending = [journal for journal in journals(store) if journal_uid(journal) not in known]
    for finished in set(journals(store)) - set(pending):
        # The writer ended between the commitment and the end of the journal.
        finished.unlink()
    recorded = {journal_uid(journal) for journal in pending}
    for orphan in orphaned_images(store):
        if orphan.uid in recorded:
            (episodes / orphan.name).unlink()
        else:
            set_aside(store, episodes / orphan.name)
            notes.append(f"'{orphan.name}' has images without an episode; it is in quarantine")
    for journal in pending:
        file, note = commit_journal(store, journal, next_number(store), flush=flush)
        committed += [] if file is None else [file.number]
        notes += [] if note is None else [note]
    return Recovery(tuple(committed), tuple(notes))


def orphaned_images(store: Path) -> list[EpisodeFile]:
    """Return files of images whose episode is not there."""
    files = episode_files(store / "episodes")
    known = {file.uid for file in files if not file.images}
    return [file for file in files if file.images and file.uid not in known]


def set_aside(store: Path, path: Path) -> Path:
    """Move a damaged file to the quarantine folder, where an earlier one of its name stays too."""
    folder = store / "quarantine"
    try:
        folder.mkdir(exist_ok=True)
        target = folder / path.name
        target = unused_path(target) if target.exists() else target
        shutil.move(path, target)
        flush_to_disk(folder)
    except OSError as error:
        raise DataError(f"cannot move '{path}' to '{folder}': {error}; free space") from error
    return target
