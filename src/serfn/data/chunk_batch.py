"""A batch of chunk windows, as replay hands them out."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True, eq=False)
class ChunkBatch:
    """Windows of up to H = chunk consecutive steps; a window that meets the end of its episode is shorter.

    With h the number of valid steps of a window that starts at step t of an episode of T steps, h = min(H, T
    - t). Where targets take in rewards of N > H steps, n = min(N, T - t) of them count; else n = h.

    Args:
        obs: `[batch, obs]`, at step t.
        actions: `[batch, chunk, action]`, normalised; steps after h repeat action h.
        rewards: `[batch, chunk]`, 0 after h.
        valid: `[batch, chunk]` bool, True for the first h steps.
        next_obs: `[batch, obs]`, at step t + n.
        terminated: `[batch]` bool, True if t + n = T and the episode terminated; a truncated one bootstraps.
        planned: `[batch, chunk]` bool, True for the valid steps of what was planned at step t; where windows
            start anywhere, for all valid ones.
        interventions: `[batch, chunk]` bool, True for valid steps at which a person acted; `actions` are what
            was executed there, hence the person's. False where nobody recorded who acted.
        window_obs: `[batch, chunk, obs]`, the observation after each step, the last one again after h; None
            unless asked for.
        later_rewards: `[batch, N - chunk]`, rewards of the steps after the window, 0 after n; None where N is
            the chunk.
        later_valid: `[batch, N - chunk]` bool, True for those of the first n steps; None likewise.
    """

    obs: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    valid: np.ndarray
    next_obs: np.ndarray
    terminated: np.ndarray
    planned: np.ndarray
    interventions: np.ndarray
    window_obs: np.ndarray | None = None
    later_rewards: np.ndarray | None = None
    later_valid: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.obs)

    def joined(self, other: ChunkBatch) -> ChunkBatch:
        """Return a batch with the windows of both, and of the optional arrays those that both have."""
        pairs = {item.name: (getattr(self, item.name), getattr(other, item.name)) for item in fields(self)}
        return ChunkBatch(
            **{
                name: np.concatenate(pair)
                for name, pair in pairs.items()
                if all(part is not None for part in pair)
            }
        )

    def first(self, count: int) -> ChunkBatch:
        """Return the first windows, at most `count`."""
        return ChunkBatch(**{name: value[:count] for name, value in vars(self).items() if value is not None})


def of_one_plan(chunk_starts: np.ndarray, interventions: np.ndarray) -> np.ndarray:
    """Return which steps of windows belong to what was planned at their first step, `[batch, chunk]` bool.

    A policy's chunk lasts until the policy replans, or a person takes over. A person replans at every
    step; what they do in one go counts as one plan.

    Args:
        chunk_starts: `[batch, chunk]` bool, where something was planned.
        interventions: `[batch, chunk]` bool, where a person acted.
    """
    over = np.where(interventions[:, :1], ~interventions, chunk_starts)
    over[:, 0] = False
    return ~np.logical_or.accumulate(over, axis=1)
