"""What acts on the robot, exchangeable between episodes."""

from __future__ import annotations

import threading

import numpy as np

from serfn.core.protocols import ChunkActor


class PolicySlot:
    """A `ChunkActor` whose weights are exchanged whole: one chunk never mixes two versions.

    The control loop's inference thread calls `act` and `reset`; any other thread may `offer` the next
    version, which takes over at `episode_begins`.

    Args:
        actor: What acts first.
        version: Its number.
    """

    def __init__(self, actor: ChunkActor, version: int) -> None:
        self._actor = actor
        self._version = version
        self._offered: tuple[ChunkActor, int] | None = None
        self._lock = threading.Lock()

    @property
    def version(self) -> int:
        """Number of the version that acts."""
        return self._version

    @property
    def actor(self) -> ChunkActor:
        """What acts."""
        return self._actor

    @property
    def chunk_size(self) -> int:
        """Number of control steps in one chunk."""
        return self._actor.chunk_size

    @property
    def n_action_steps(self) -> int:
        """Number of steps to execute of each chunk."""
        return self._actor.n_action_steps

    def offer(self, actor: ChunkActor, version: int) -> None:
        """Let another version take over when the next episode begins."""
        with self._lock:
            self._offered = (actor, version)

    def episode_begins(self) -> int:
        """Let the offered version take over, while nothing acts; return the version that acts from now on."""
        with self._lock:
            if self._offered is not None:
                self._actor, self._version = self._offered
                self._offered = None
        return self._version

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return one chunk per observation; see `ChunkActor`."""
        return self._actor.act(observations)

    def reset(self, seed: int) -> None:
        """Restart the random stream from `seed`."""
        self._actor.reset(seed)
