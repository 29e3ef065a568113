"""The contract of chunk critics, and the batched layer that their ensembles are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from serfn.core.errors import ConfigError
from serfn.core.registry import PartConfig
from serfn.critics.heads import ValueHead
from serfn.critics.residuals import ChunkResiduals
from serfn.critics.targets import Aggregation, aggregate

OBSERVATION_CLIP = 5.0
"""Normalised observations are clipped to ± this: a sensor spike must not drive the value off the data."""


@dataclass(frozen=True)
class CriticConfig(
    PartConfig,
    ABC,
    kind="critics",
    ours={
        "mlp": "serfn.critics.mlp:MLPCriticConfig",
        "per_step": "serfn.critics.per_step:PerStepCriticConfig",
    },
    default="mlp",
):
    """Configuration of a chunk critic; the key `type` tells them apart in files.

    A critic of one's own is a frozen dataclass derived from this class, and a `ChunkCritic` that it builds.

    Attributes:
        v_min: Least possible value of any chunk, to which targets are clipped; None if unknown.
        v_max: Greatest possible value of any chunk; None if unknown.
        aggregate: How the values of the ensemble become one, in targets, improvement and acting.

    Raises:
        ConfigError: The bounds are not ordered.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"kind": "type"}
    REMOVED: ClassVar[Mapping[str, str]] = {
        "attention_heads": "there is no transformer critic any more; leave it out",
        "type=transformer": "there is no transformer critic any more; use 'mlp'",
    }

    v_min: float | None = None
    v_max: float | None = None
    aggregate: Aggregation = "mean"

    def __post_init__(self) -> None:
        if self.v_min is not None and self.v_max is not None and not self.v_min < self.v_max:
            raise ConfigError(
                f"critic v_min {self.v_min} is not below v_max {self.v_max}; swap or correct them"
            )

    @abstractmethod
    def build(
        self, obs_dim: int, action_dim: int, chunk_size: int, *, generator: torch.Generator
    ) -> ChunkCritic:
        """Return the critic, on the CPU and in float32.

        Args:
            obs_dim: Size of an observation.
            action_dim: Size of an action.
            chunk_size: Steps of a chunk.
            generator: Source of the initial weights.

        Raises:
            ValueError: The architecture does not fit these sizes.
        """


class EnsembleLinear(nn.Module):
    """Independent affine maps of all members of an ensemble in one batched matrix product.

    Args:
        ensemble: Number of members.
        inputs: Input features.
        outputs: Output features.
        gain: Scale of the orthogonal initial weights of every member; the bias starts at 0.
        generator: Source of the initial weights.
    """

    def __init__(
        self, ensemble: int, inputs: int, outputs: int, *, gain: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        weight = torch.empty(ensemble, inputs, outputs, dtype=torch.float32)
        for member in weight:
            nn.init.orthogonal_(member, gain, generator=generator)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(ensemble, 1, outputs, dtype=torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `[ensemble, rows, inputs]` to `[ensemble, rows, outputs]`."""
        return torch.baddbmm(self.bias, inputs, self.weight)


class ChunkCritic(nn.Module, ABC):
    """Ensemble of action values of chunks, `Q(s_t, a_{t:t+h})`.

    Observations come in raw units and are normalised here; actions are normalised to [-1, 1]. The value of a
    chunk of which only the first h steps count (`valid`) does not depend on the actions after them.

    Args:
        obs_dim: Size of an observation.
        action_dim: Size of an action.
        chunk_size: Steps of a chunk.
        ensemble: Number of independent members.
        head: Meaning of the outputs.
        aggregate: How the values of the members become one.

    Raises:
        ValueError: A size is below 1.
    """

    obs_mean: Tensor
    obs_std: Tensor

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        chunk_size: int,
        *,
        ensemble: int,
        head: ValueHead,
        aggregate: Aggregation = "mean",
    ) -> None:
        super().__init__()
        for name, value in (
            ("obs_dim", obs_dim),
            ("action_dim", action_dim),
            ("chunk_size", chunk_size),
            ("ensemble", ensemble),
        ):
            if value < 1:
                raise ValueError(f"{name} of the critic is {value}; it must be at least 1")
        self.obs_dim = obs_dim
        self.action_dim = action_dim
        self.chunk_size = chunk_size
        self.ensemble = ensemble
        self.head = head
        self.aggregate: Aggregation = aggregate
        self.register_buffer("obs_mean", torch.zeros(obs_dim, dtype=torch.float32))
        self.register_buffer("obs_std", torch.ones(obs_dim, dtype=torch.float32))
        self.residuals: ChunkResiduals | None = None

    @property
    def target_steps(self) -> int:
        """Rewards that enter a target before it bootstraps: those of the whole window."""
        return self.chunk_size

    @property
    def needs_window_observations(self) -> bool:
        """Whether targets need observations inside a window, and not only the one after it."""
        return self.target_steps < self.chunk_size

    @abstractmethod
    def forward(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the head's outputs.

        Args:
            obs: `[batch, obs]`, raw units.
            actions: `[batch, chunk, action]` in [-1, 1].
            valid: `[batch, chunk]` bool prefix mask; None means that the whole chunk counts.

        Returns:
            `[ensemble, batch, head.size]`.
        """

    def values(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the values of all members, `[ensemble, batch]`; arguments as in `forward`."""
        return self.head.mean(self(obs, actions, valid))

    def value(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the ensemble's one value of each chunk, `[batch]`; arguments as in `forward`."""
        return aggregate(self.values(obs, actions, valid), self.aggregate)

    def candidate_values(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Return values `[batch, count]` of chunks `[batch, count, chunk, action]`, several per state."""
        count = actions.shape[1]
        return self.value(obs.repeat_interleave(count, 0), actions.flatten(0, 1)).unflatten(0, (-1, count))

    def set_normalization(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and standard deviation of the raw observations, `[obs]` each.

        Raises:
            ValueError: The shapes differ from `[obs]` or a standard deviation is not positive.
        """
        if mean.shape != (self.obs_dim,) or std.shape != (self.obs_dim,):
            raise ValueError(
                f"mean is {tuple(mean.shape)} and std {tuple(std.shape)}; both must be ({self.obs_dim},)"
            )
        if not bool((std > 0).all()):
            raise ValueError(f"the least std is {float(std.min())}; raise it above 0")
        self.obs_mean.copy_(mean)
        self.obs_std.copy_(std)

    def read_residuals(self, gain: float) -> None:
        """From now on read chunks as `ChunkResiduals` of this gain, which `fit_actions` fits."""
        self.residuals = ChunkResiduals(self.obs_dim, self.chunk_size, self.action_dim, gain)

    def fit_actions(self, obs: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit how chunks are read, once observations are normalised; without `residuals` this does nothing.

        Args:
            obs: `[batch, obs]`, raw units.
            actions: `[batch, chunk, action]` in [-1, 1].
            valid: `[batch, chunk]` bool prefix mask.
        """
        if self.residuals is not None:
            self.residuals.fit(self._normalize(obs), actions, valid)

    def _read(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return observations and chunks, or their beginnings, as the networks read them."""
        x = self._normalize(obs)
        return x, actions if self.residuals is None else self.residuals(x, actions)

    def _normalize(self, obs: Tensor) -> Tensor:
        return ((obs - self.obs_mean) / self.obs_std).clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP)
