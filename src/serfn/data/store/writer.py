"""The one writer of a store: records episodes chunk by chunk, or takes whole ones."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from serfn.core.agreement import compare, settle
from serfn.core.errors import DataError
from serfn.core.lock import FileLock
from serfn.core.sides import Side
from serfn.data.episode import Episode
from serfn.data.store.chunks import Ending, EpisodeStart, ExecutedChunk, check_channels
from serfn.data.store.episode_files import image_shapes, write_episode
from serfn.data.store.journal import SUFFIX, Journal
from serfn.data.store.recovery import commit_journal, committed_file, journal_uid, next_number, recover
from serfn.data.store.store import read_task, writer_lock

Flush = Literal["chunk", "episode", "never"]
"""When data are forced to the disk. A killed process loses nothing under any of them; a power cut or a crash
of the operating system loses at most the running chunk, the running episodes, or what the system had not yet
written by itself."""


class StoreWriter:
    """Appends episodes to a store; a context manager.

    Opening it commits what an earlier writer left behind, see `recovery`. Methods of one writer and of its
    recordings may be called from several threads as long as each recording belongs to one thread and episodes
    are committed by one thread. They wait for the disk: a control loop calls them from another thread.

    Args:
        path: Folder of a store.
        flush: When data are forced to the disk.

    Raises:
        DataError: There is no store, another process writes it, or what was left cannot be committed.
    """

    def __init__(self, path: str | Path, *, flush: Flush = "chunk") -> None:
        if flush not in ("chunk", "episode", "never"):
            raise DataError(f"flush is '{flush}'; choose chunk, episode or never")
        self.path = Path(path)
        self.flush: Flush = flush
        self.task = read_task(self.path)
        self._lock: FileLock | None = writer_lock(self.path)
        try:
            for name in ("episodes", "journal"):
                (self.path / name).mkdir(exist_ok=True)
            self.recovery = recover(self.path, flush=flush != "never")
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise DataError(
                    f"cannot write '{self.path}': {error}; check space and permissions"
                ) from error
            raise
        # None means that the folder must be asked, as after a commitment that was interrupted.
        self._next: int | None = None
        self._begun = 0
        self._open: dict[str, Recording] = {}
        self._cameras: dict[str, tuple[int, ...]] | None = None

    def add(self, episode: Episode, *, uid: str | None = None) -> int:
        """Commit a whole episode and return its number.

        Args:
            episode: Episode to commit.
            uid: Its identity, if another store has given it one already.

        Raises:
            DataError: The episode has other dimensions than the store's task or images of other sizes than
                its episodes, or cannot be written; then the store is as it was before.
        """
        self._check_open()
        self._check_dimensions(episode.observations.shape[1], episode.actions.shape[1])
        check_channels(episode.images)
        self._check_cameras({name: stack.shape[1:] for name, stack in episode.images.items()})
        number, self._next = self._number(), None
        write_episode(
            self.path / "episodes",
            number,
            uid or secrets.token_hex(8),
            episode,
            [episode.images],
            flush=self.flush != "never",
        )
        self._next = number + 1
        return number

    def record(self, start: EpisodeStart) -> Recording:
        """Begin an episode that is recorded chunk by chunk; several may run side by side.

        Raises:
            DataError: The observation has another dimension than the task's, an image another size than
                those of the store, or the journal cannot be written.
        """
        self._check_open()
        self._check_dimensions(len(start.observation), None)
        self._check_cameras({name: image.shape for name, image in start.images.items()})
        uid = secrets.token_hex(8)
        # In the order in which they began, as recovery commits them in the order of their names.
        name = f"{self._number():08d}-{self._begun:08d}-{uid}{SUFFIX}"
        self._begun += 1
        journal = Journal(self.path / "journal" / name, start, flush=self.flush == "chunk")
        recording = Recording(self, journal)
        self._open[name] = recording
        return recording

    def close(self) -> None:
        """Commit running recordings as interrupted, and let another writer in.

        Raises:
            DataError: A recording cannot be committed; its journal stays, and the next writer tries again.
        """
        if self._lock is None:
            return
        try:
            for recording in list(self._open.values()):
                recording.interrupt()
        finally:
            for recording in self._open.values():
                recording.abandon()
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the writer."""
        self.close()

    def _commit(self, journal: Journal) -> tuple[int | None, str | None]:
        """Turn a closed journal into a committed episode; return its number and what was lost."""
        file, note = None, None
        if self._next is None:
            # An earlier attempt may have come to its end without being able to say so.
            file = committed_file(self.path, journal_uid(journal.path))
        if file is None:
            number, self._next = self._number(), None
            file, note = commit_journal(self.path, journal.path, number, flush=self.flush != "never")
            self._next = number + (file is not None)
        journal.path.unlink(missing_ok=True)
        self._open.pop(journal.path.name, None)
        return (None if file is None else file.number), note

    def _number(self) -> int:
        """Return the number of the next episode."""
        if self._next is None:
            self._next = next_number(self.path)
        return self._next

    def _forget(self, journal: Journal) -> None:
        journal.path.unlink(missing_ok=True)
        self._open.pop(journal.path.name, None)

    def _check_open(self) -> None:
        if self._lock is None:
            raise DataError(f"the writer of '{self.path}' is closed; open a new one")

    def _check_dimensions(self, obs_dim: int, action_dim: int | None) -> None:
        expected = (self.task.observation.dim, self.task.action.dim)
        if obs_dim != expected[0] or action_dim not in (None, expected[1]):
            raise DataError(
                f"the episode has {obs_dim} observation and {action_dim} action dimensions; store "
                f"'{self.path}' keeps {expected[0]} and {expected[1]}"
            )

    def _check_cameras(self, given: dict[str, tuple[int, ...]]) -> None:
        """Refuse images of other cameras or sizes than the store has; without images nothing is compared."""
        if not given:
            return
        if not self._cameras:
            self._cameras = image_shapes(self.path / "episodes") or given
        stored = Side(name=f"store '{self.path}'", images=self._cameras)
        settle(compare(Side(name="the episode", images=given), stored, "store"), DataError)


class Recording:
    """One episode that is being recorded; made by `StoreWriter.record`.

    As a context manager, it commits the episode as interrupted if it is left before `finish`.
    """

    def __init__(self, writer: StoreWriter, journal: Journal) -> None:
        self._writer = writer
        self._journal = journal
        self._ended = False
        self._settled = False

    @property
    def uid(self) -> str:
        """Identity of the episode everywhere."""
        return journal_uid(self._journal.path)

    @property
    def steps(self) -> int:
        """Control steps in the journal."""
        return self._journal.steps

    def append(self, chunk: ExecutedChunk) -> None:
        """Write an executed chunk; when this returns, it survives a kill of the process.

        Raises:
            DataError: The chunk does not fit, or cannot be written: try again once there is space, or finish.
        """
        self._check_running()
        action_dim = chunk.actions.shape[1]
        self._writer._check_dimensions(chunk.observations.shape[1], action_dim)
        self._journal.append(chunk)

    def end(
        self,
        *,
        terminated: bool,
        truncated: bool,
        success: bool | None = None,
        success_source: str | None = None,
        metrics: Mapping[str, float] | None = None,
        last_reward: float | None = None,
    ) -> None:
        """Write how the episode ended, without committing it; see `Ending`, and `finish` for both at once.

        Raises:
            DataError: The ending makes no sense, there are no steps, or it cannot be written.
        """
        self._check_running()
        self._journal.end(
            Ending(
                terminated=terminated,
                truncated=truncated,
                success=success,
                success_source=success_source,
                metrics=dict(metrics or {}),
                last_reward=last_reward,
            )
        )
        self._ended = True

    def commit(self) -> int:
        """Turn the journal of an ended episode into its final file; return the number of the episode.

        Raises:
            DataError: The episode was not ended, cannot be written (and may be tried again), or its journal
                was damaged meanwhile, which the message names.
        """
        if self._settled or not self._ended:
            raise DataError("only an episode that was ended, and not yet committed, can be committed")
        number, note = self._settle()
        if note is not None or number is None:
            raise DataError(f"episode {number} is not whole: {note}")
        return number

    def finish(
        self,
        *,
        terminated: bool,
        truncated: bool,
        success: bool | None = None,
        success_source: str | None = None,
        metrics: Mapping[str, float] | None = None,
        last_reward: float | None = None,
    ) -> int:
        """End and commit the episode; see `end` and `commit`."""
        self.end(
            terminated=terminated,
            truncated=truncated,
            success=success,
            success_source=success_source,
            metrics=metrics,
            last_reward=last_reward,
        )
        return self.commit()

    def interrupt(self) -> int | None:
        """Commit what there is; an episode without an end is marked as interrupted.

        Returns:
            The number of the episode, or None if it has no whole chunk.

        Raises:
            DataError: It cannot be written; the next writer tries again.
        """
        return None if self._settled else self._settle()[0]

    def discard(self) -> None:
        """Throw the recording away."""
        self.abandon()
        self._writer._forget(self._journal)

    def abandon(self) -> None:
        """Close the journal and leave it to the next writer."""
        self._journal.close()
        self._settled = True

    def __enter__(self) -> Self:
        """Return the recording."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what there is unless the episode was finished or discarded."""
        self.interrupt()

    def _settle(self) -> tuple[int | None, str | None]:
        self._journal.close()
        self._ended = True
        result = self._writer._commit(self._journal)
        self._settled = True
        return result

    def _check_running(self) -> None:
        if self._settled or self._ended:
            raise DataError("the episode is over; begin another recording")
