"""Where the time of a run goes: every moment belongs to exactly one part of the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from serfn.core.protocols import ChunkActor

LEARNING = "learning"
"""The stages themselves: batches, updates and checkpoints."""


class WorkTime:
    """Seconds by part of the work, whatever is not told to be another part being `LEARNING`.

    Parts nest, and the inner one counts. They are times of the thread that trains, so that their sum is the
    time that passed: simulations that other threads step count while it waits for them.

    Args:
        clock: Monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.begin({})

    def begin(self, seconds: Mapping[str, float]) -> None:
        """Start the clock, going on from the `seconds` of an interrupted run."""
        self._spent = dict(seconds)
        self._part, self._since = LEARNING, self._clock()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each part until now."""
        self._enter(self._part)
        return {name: round(value, 3) for name, value in self._spent.items()}

    def summary(self) -> dict[str, dict[str, float]]:
        """Return `seconds` and `share` (of their sum) of each part, as they stand in `status.json`."""
        seconds = self.seconds
        whole = sum(seconds.values()) or 1.0
        return {name: {"seconds": value, "share": round(value / whole, 4)} for name, value in seconds.items()}

    @contextmanager
    def spent_on(self, part: str) -> Iterator[None]:
        """Count what happens inside as `part`."""
        outer = self._enter(part)
        try:
            yield
        finally:
            self._enter(outer)

    def acting(self, actor: ChunkActor, part: str) -> ChunkActor:
        """Return the actor with its decisions counted as `part`."""
        return _TimedActor(actor, self, part)

    def _enter(self, part: str) -> str:
        outer, now = self._part, self._clock()
        self._spent[outer] = self._spent.get(outer, 0.0) + now - self._since
        self._part, self._since = part, now
        return outer


class _TimedActor:
    def __init__(self, actor: ChunkActor, watch: WorkTime, part: str) -> None:
        self._actor, self._watch, self._part = actor, watch, part

    @property
    def chunk_size(self) -> int:
        return self._actor.chunk_size

    @property
    def n_action_steps(self) -> int:
        return self._actor.n_action_steps

    def act(self, observations: np.ndarray) -> np.ndarray:
        with self._watch.spent_on(self._part):
            return self._actor.act(observations)

    def reset(self, seed: int) -> None:
        self._actor.reset(seed)
