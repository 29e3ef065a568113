"""Contracts between layers that must not import each other."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class ChunkActor(Protocol):
    """Turns observations into chunks of actions: a trained policy, a scripted expert, a replayed file."""

    @property
    def chunk_size(self) -> int:
        """Number of control steps in one chunk."""
        ...

    @property
    def n_action_steps(self) -> int:
        """Steps of each chunk that are executed before the actor is asked again, from 1 to `chunk_size`.

        Whoever executes chunks (collection, evaluations, films, robots) executes so many, so that a policy
        acts everywhere as it was trained.
        """
        ...

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return one chunk per observation.

        Args:
            observations: `[batch, obs]`, raw units.

        Returns:
            Actions `[batch, chunk, action]` in physical units, inside the bounds of the task.
        """
        ...

    def reset(self, seed: int) -> None:
        """Forget all state and restart the random stream from `seed`."""
        ...
