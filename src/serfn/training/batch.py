"""Chunk transitions as tensors on the learner's device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from serfn.data.replay import ChunkBatch


@dataclass(frozen=True)
class TensorBatch:
    """One batch of chunk transitions.

    Attributes:
        obs: `[batch, obs]` raw observation at the start of the chunk.
        actions: `[batch, chunk, action]` normalised to (-1, 1), padded by holding the last one.
        rewards: `[batch, chunk]` scaled rewards (see `RewardConfig`), 0 where padded.
        valid: `[batch, chunk]` bool, True on the executed prefix.
        next_obs: `[batch, obs]` observation after the last valid step.
        terminated: `[batch]` bool, the episode terminated inside the chunk (nothing to bootstrap from).
        window_obs: `[batch, chunk, obs]` observation after each step, for critics that value every prefix.
    """

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    valid: Tensor
    next_obs: Tensor
    terminated: Tensor
    window_obs: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of transitions."""
        return self.obs.shape[0]

    @classmethod
    def from_numpy(cls, batch: ChunkBatch, *, device: torch.device, dtype: torch.dtype) -> TensorBatch:
        """Move a replay batch to the learner; on the CPU in float32 nothing is copied."""

        def real(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device=device, dtype=dtype, non_blocking=True)

        def flag(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device=device, non_blocking=True)

        return cls(
            obs=real(batch.obs),
            actions=real(batch.actions),
            rewards=real(batch.rewards),
            valid=flag(batch.valid),
            next_obs=real(batch.next_obs),
            terminated=flag(batch.terminated),
            window_obs=None if batch.window_obs is None else real(batch.window_obs),
        )

    def first_steps(self, steps: int) -> TensorBatch:
        """Return the same transitions cut to at most `steps` steps, for n-step targets.

        A window that terminates later than that no longer does. Actions keep their full length.

        Raises:
            ValueError: The batch has no observations inside its windows to cut at.
        """
        if self.window_obs is None:
            raise ValueError(f"windows cannot be cut to {steps} steps; sample them with window_observations")
        executed = self.valid.sum(1)
        last = executed.clamp(max=steps) - 1
        kept = torch.arange(self.valid.shape[1], device=self.valid.device) < steps
        return TensorBatch(
            obs=self.obs,
            actions=self.actions,
            rewards=torch.where(kept, self.rewards, torch.zeros_like(self.rewards)),
            valid=self.valid & kept,
            next_obs=self.window_obs[torch.arange(self.size, device=last.device), last],
            terminated=self.terminated & (executed <= steps),
        )

    def joined(self, other: TensorBatch) -> TensorBatch:
        """Return a batch with the transitions of both."""
        windows = None
        if self.window_obs is not None and other.window_obs is not None:
            windows = torch.cat([self.window_obs, other.window_obs])
        return TensorBatch(
            obs=torch.cat([self.obs, other.obs]),
            actions=torch.cat([self.actions, other.actions]),
            rewards=torch.cat([self.rewards, other.rewards]),
            valid=torch.cat([self.valid, other.valid]),
            next_obs=torch.cat([self.next_obs, other.next_obs]),
            terminated=torch.cat([self.terminated, other.terminated]),
            window_obs=windows,
        )
