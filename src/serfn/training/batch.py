"""Chunk transitions as tensors on the learner's device."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from serfn.data.chunk_batch import ChunkBatch


@dataclass(frozen=True)
class TensorBatch:
    """One batch of chunk transitions.

    Attributes:
        obs: `[batch, obs]` raw observation at the start of the chunk.
        actions: `[batch, chunk, action]` normalised to (-1, 1), padded by holding the last one.
        rewards: `[batch, chunk]` scaled rewards (see `RewardConfig`), 0 where padded.
        valid: `[batch, chunk]` bool, True on the executed prefix.
        next_obs: `[batch, obs]` observation after the last step that counts.
        terminated: `[batch]` bool, the episode terminated at that step (nothing to bootstrap from).
        planned: `[batch, chunk]` bool, True on the valid steps of what was planned at the start, see
            `ChunkBatch`.
        window_obs: `[batch, chunk, obs]` observation after each step, for targets shorter than a chunk.
        later_rewards: `[batch, steps]` rewards after the chunk that count in its target, 0 where padded; None
            where only the chunk's count.
        later_valid: `[batch, steps]` bool, True on those that count; None likewise.
    """

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    valid: Tensor
    next_obs: Tensor
    terminated: Tensor
    planned: Tensor
    window_obs: Tensor | None = None
    later_rewards: Tensor | None = None
    later_valid: Tensor | None = None

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
            planned=flag(batch.planned),
            window_obs=None if batch.window_obs is None else real(batch.window_obs),
            later_rewards=None if batch.later_rewards is None else real(batch.later_rewards),
            later_valid=None if batch.later_valid is None else flag(batch.later_valid),
        )

    @property
    def counted_rewards(self) -> tuple[Tensor, Tensor]:
        """Rewards `[batch, steps]` of the chunk and after it, and whether each counts in the target."""
        if self.later_rewards is None or self.later_valid is None:
            return self.rewards, self.valid
        return (
            torch.cat([self.rewards, self.later_rewards], dim=1),
            torch.cat([self.valid, self.later_valid], dim=1),
        )

    def first_steps(self, steps: int) -> TensorBatch:
        """Return the same transitions cut to at most `steps` steps, for n-step targets.

        A window that terminates later than that no longer does. Actions keep their full length.

        Raises:
            ValueError: The batch has no observations inside its windows to cut at.
        """
        if self.window_obs is None:
            raise ValueError(f"windows cannot be cut to {steps} steps; sample them with window_observations")
        executed = self.counted_rewards[1].sum(1)
        last = executed.clamp(max=steps) - 1
        kept = torch.arange(self.valid.shape[1], device=self.valid.device) < steps
        return TensorBatch(
            obs=self.obs,
            actions=self.actions,
            rewards=torch.where(kept, self.rewards, torch.zeros_like(self.rewards)),
            valid=self.valid & kept,
            next_obs=self.window_obs[torch.arange(self.size, device=last.device), last],
            terminated=self.terminated & (executed <= steps),
            planned=self.planned & kept,
        )

    def joined(self, other: TensorBatch) -> TensorBatch:
        """Return a batch with the transitions of both."""
        pairs = {
            item.name: (getattr(self, item.name), getattr(other, item.name)) for item in fields(TensorBatch)
        }
        return TensorBatch(
            **{
                name: torch.cat(pair)
                for name, pair in pairs.items()
                if all(part is not None for part in pair)
            }
        )
