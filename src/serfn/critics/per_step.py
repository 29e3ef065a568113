"""A per-step critic behind the interface of chunk critics: it values a chunk by its first action."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic
from serfn.critics.heads import ValueHead
from serfn.critics.mlp import MLPChunkCritic, MLPCriticConfig
from serfn.critics.targets import Aggregation


@dataclass(frozen=True)
class PerStepCriticConfig(MLPCriticConfig):
    """Configuration of a `PerStepCritic`: that of an `MLPChunkCritic`, and the horizon of its targets.

    Attributes:
        n_step: Rewards in a target, at most the chunk; None takes the whole chunk.

    Raises:
        ConfigError: A size is out of range.
    """

    n_step: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_step is not None and self.n_step < 1:
            raise ConfigError(f"critic n_step is {self.n_step}; it must be at least 1, or none")

    def build(
        self, obs_dim: int, action_dim: int, chunk_size: int, *, generator: torch.Generator
    ) -> ChunkCritic:
        """Return the critic."""
        critic = PerStepCritic(
            obs_dim,
            action_dim,
            chunk_size,
            head=self.make_head(),
            n_step=self.n_step,
            ensemble=self.ensemble,
            width=self.width,
            depth=self.depth,
            aggregate=self.aggregate,
            generator=generator,
        )
        if self.residual_gain is not None:
            critic.read_residuals(self.residual_gain)
        return critic


class PerStepCritic(MLPChunkCritic):
    """`Q(s, a)` of single actions, trained on n-step returns; a chunk is worth what its first action is.

    Where a chunk is executed blindly, best-of-N and the improvement operators see its later actions only
    through the return of those that were recorded: every chunk that begins alike has the same value, and a
    gradient through the critic moves the first action alone. That is the usual critic under chunked
    execution, built to be compared with. With chunks of one step it is the usual critic of SAC or TD3.

    Args:
        obs_dim: Size of an observation.
        action_dim: Size of an action.
        chunk_size: Steps of the chunks that it is given.
        head: Meaning of the outputs.
        n_step: Rewards that enter a target before it bootstraps, at most `chunk_size`; None takes all.
        ensemble: Number of independent members.
        width: Units of a hidden layer.
        depth: Number of hidden layers.
        aggregate: How the values of the members become one.
        generator: Source of the initial weights.

    Raises:
        ValueError: `n_step` is not between 1 and `chunk_size`.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        chunk_size: int,
        *,
        head: ValueHead,
        n_step: int | None = None,
        ensemble: int = 2,
        width: int = 192,
        depth: int = 3,
        aggregate: Aggregation = "mean",
        generator: torch.Generator,
    ) -> None:
        if n_step is not None and not 1 <= n_step <= chunk_size:
            raise ValueError(f"n_step is {n_step}; it must be between 1 and the chunk's {chunk_size} steps")
        super().__init__(
            obs_dim,
            action_dim,
            chunk_size=1,
            head=head,
            ensemble=ensemble,
            width=width,
            depth=depth,
            aggregate=aggregate,
            generator=generator,
        )
        self.chunk_size = chunk_size
        self._n_step = chunk_size if n_step is None else n_step

    @property
    def target_steps(self) -> int:
        """Rewards that enter a target."""
        return self._n_step

    def forward(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return outputs `[ensemble, batch, head.size]` of the first actions; `valid` cannot matter."""
        return super().forward(obs, actions[:, :1])
