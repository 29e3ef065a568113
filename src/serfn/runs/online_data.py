"""Online episodes of a run in its experience store: journalled as they are executed, and never run twice.

An episode is known by its seed, which follows from the run's seed and the number of the episode. When a run
is killed and resumed, it returns to its last checkpoint, but the episodes that were recorded after it are
there: those that had come to their end are used again instead of being repeated. One that was cut is kept,
marked as interrupted; in a simulation it is run again, as its seed makes it the same, and then set aside.
One that the environment aborted is kept likewise, and not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from serfn.core.errors import CheckpointError, DataError
from serfn.core.spec import TaskSpec
from serfn.data.episode import Episode
from serfn.data.store.chunks import EpisodeStart
from serfn.data.store.labels import LabelChange
from serfn.data.store.store import open_or_create
from serfn.data.store.writer import Recording, StoreWriter

EXPERIENCE = "experience"
"""Folder of the store in a run folder."""


class OnlineData:
    """The store of a run's online episodes; a context manager, which holds the lock of the run.

    Args:
        path: Folder of the store; made when it is entered.
        task: Task of the run.
        seed: Returns the seed of an episode by its number in the run.
    """

    def __init__(self, path: Path, task: TaskSpec, seed: Callable[[int], int]) -> None:
        self._path = path
        self._task = task
        self._seed = seed
        self._writer: StoreWriter | None = None
        self._complete: dict[int, int] = {}
        self._cut: dict[int, list[int]] = {}
        self._looked_at = -1
        self.aborted: set[int] = set()
        """Seeds of the episodes of the run that the environment aborted."""

    def __enter__(self) -> Self:
        """Open the store, committing what a killed run left in its journals.

        Raises:
            DataError: Another process writes it, it is damaged or of another task, or cannot be written.
        """
        self._store = open_or_create(self._path, self._task)
        # A power cut loses what the system had not written yet; the checkpoints that come after an episode
        # are flushed, so each episode must be.
        self._writer = StoreWriter(self._path, flush="episode")
        self._look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what is running as interrupted, and let go of the lock."""
        self._open_writer().close()
        self._writer = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found of an earlier run, for the user."""
        return self._open_writer().recovery.notes

    def record(self, start: EpisodeStart) -> Recording | None:
        """Begin to record an episode, unless it is there already."""
        return None if start.seed in self._complete else self._open_writer().record(start)

    def collect(self, first: int, count: int, run: Callable[[Sequence[int]], list[Episode]]) -> list[Episode]:
        """Return episodes `first` to `first + count - 1` of the run, without those that were aborted.

        Those that are stored are not recorded.

        Args:
            first: Number of the first episode.
            count: How many.
            run: Runs the episodes of these seeds. As one depends on the others, by the noise of the policy,
                all are run if one of them is missing.
        """
        seeds = [self._seed(number) for number in range(first, first + count)]
        if any(seed not in self._complete and seed not in self.aborted for seed in seeds):
            run(seeds)
            self._look()
            self._set_aside(seeds)
        return [self._episode(seed) for seed in seeds if seed in self._complete]

    def keep(self, index: int, episodes: Sequence[Episode]) -> None:
        """Do nothing: the episodes of a round are in the store since they were executed."""

    def load(self, rounds: int, episodes: int) -> list[Episode]:
        """Return the first `episodes` episodes of the run, without those that were aborted.

        Raises:
            CheckpointError: One of them is not in the store.
        """
        seeds = [self._seed(number) for number in range(episodes)]
        missing = [
            number
            for number, seed in enumerate(seeds)
            if seed not in self._complete and seed not in self.aborted
        ]
        if missing:
            raise CheckpointError(
                f"the checkpoint was written after {episodes} online episodes, but store '{self._path}' "
                f"lacks number {missing[0]} of the run; restore the store"
            )
        return [self._episode(seed) for seed in seeds if seed in self._complete]

    def _episode(self, seed: int) -> Episode:
        return self._store.episode(self._complete[seed], images=False)

    def _look(self) -> None:
        """Take note of what was committed since the last look."""
        self._store.refresh()
        for number in self._store.numbers:
            if number <= self._looked_at:
                continue
            summary = self._store.summary(number)
            if summary.seed is not None and summary.interrupted:
                self._cut.setdefault(summary.seed, []).append(number)
            elif summary.seed is not None:
                self._complete[summary.seed] = number
            self._looked_at = number

    def _set_aside(self, seeds: Sequence[int]) -> None:
        """Label cut recordings of episodes that are whole by now, so that no one learns from both."""
        for seed in self._complete.keys() & set(seeds):
            for number in self._cut.pop(seed, []):
                if not self._store.labels(number).discard:
                    self._store.relabel(number, LabelChange(source="resumed run", discard=True))

    def _open_writer(self) -> StoreWriter:
        if self._writer is None:
            raise DataError(f"store '{self._path}' is not open; enter it first")
        return self._writer
