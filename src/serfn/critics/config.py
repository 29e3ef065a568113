"""Configuration of chunk critics, and the one function that builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic
from serfn.critics.heads import HLGaussHead, ScalarHead, ValueHead
from serfn.critics.mlp import MLPChunkCritic
from serfn.critics.per_step import PerStepCritic
from serfn.critics.transformer import TransformerChunkCritic


@dataclass(frozen=True)
class CriticConfig:
    """Architecture of a chunk critic.

    Args:
        kind: `mlp` reads the chunk as one vector; `transformer` reads it step by step and values every
            prefix; `per_step` values it by its first action.
        head: `scalar` regresses by squared error; `hl_gauss` classifies between `v_min` and `v_max`.
        ensemble: Number of independent members.
        width: Hidden units per layer.
        depth: Hidden layers (mlp) or blocks (transformer).
        attention_heads: Attention heads of the transformer; divides `width`.
        residual_gain: Read what a linear regression on the observation leaves of a chunk, in units of its
            spread times this (`ChunkResiduals`): for commands that are absolute targets. 0.1 is usual; with 1
            the critic learns the noise of every dimension. None reads chunks as they are.
        v_min: Least possible value of any chunk, to which targets are clipped; None if unknown.
        v_max: Greatest possible value of any chunk; None if unknown.
        bins: Classes of the `hl_gauss` head.
        n_step: Rewards in a target of the `per_step` critic, at most the chunk; None takes the whole chunk.

    Raises:
        ConfigError: A size is out of range, the bounds are incomplete or not ordered, or `hl_gauss` lacks
            them.
    """

    kind: Literal["mlp", "transformer", "per_step"] = "mlp"
    head: Literal["scalar", "hl_gauss"] = "scalar"
    ensemble: int = 2
    width: int = 192
    depth: int = 3
    attention_heads: int = 4
    residual_gain: float | None = None
    v_min: float | None = None
    v_max: float | None = None
    bins: int = 101
    n_step: int | None = None

    def __post_init__(self) -> None:
        for name in ("ensemble", "width", "depth", "attention_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"critic {name} is {getattr(self, name)}; it must be at least 1")
        if self.residual_gain is not None and not self.residual_gain > 0:
            raise ConfigError(
                f"critic residual_gain is {self.residual_gain}; it must be above 0 (0.1 is usual), or none"
            )
        if self.kind == "transformer" and self.width % self.attention_heads:
            raise ConfigError(
                f"critic width {self.width} is no multiple of attention_heads {self.attention_heads}; "
                "change either"
            )
        if self.v_min is not None and self.v_max is not None and not self.v_min < self.v_max:
            raise ConfigError(
                f"critic v_min {self.v_min} is not below v_max {self.v_max}; swap or correct them"
            )
        if self.n_step is not None and (self.kind != "per_step" or self.n_step < 1):
            raise ConfigError(
                f"critic n_step is {self.n_step} for kind '{self.kind}'; it belongs to 'per_step' and is at "
                "least 1"
            )
        if self.head == "hl_gauss":
            if self.v_min is None or self.v_max is None:
                raise ConfigError(
                    f"the hl_gauss head needs v_min and v_max, got {self.v_min} and {self.v_max}; "
                    "give the bounds of the value or use head = 'scalar'"
                )
            if self.bins < HLGaussHead.MIN_BINS:
                raise ConfigError(f"critic bins is {self.bins}; it must be at least {HLGaussHead.MIN_BINS}")


def make_critic(
    config: CriticConfig, obs_dim: int, action_dim: int, chunk_size: int, *, generator: torch.Generator
) -> ChunkCritic:
    """Build the critic that `config` describes, on the CPU and in float32.

    Args:
        config: Architecture.
        obs_dim: Size of an observation.
        action_dim: Size of an action.
        chunk_size: Steps of a chunk.
        generator: Source of the initial weights.
    """
    critic = _make_network(config, (obs_dim, action_dim, chunk_size), generator)
    if config.residual_gain is not None:
        critic.read_residuals(config.residual_gain)
    return critic


def _make_network(
    config: CriticConfig, dims: tuple[int, int, int], generator: torch.Generator
) -> ChunkCritic:
    head = _make_head(config)
    sizes = {"ensemble": config.ensemble, "width": config.width, "depth": config.depth}
    match config.kind:
        case "mlp":
            return MLPChunkCritic(*dims, head=head, **sizes, generator=generator)
        case "per_step":
            return PerStepCritic(*dims, head=head, n_step=config.n_step, **sizes, generator=generator)
        case "transformer":
            heads = config.attention_heads
            return TransformerChunkCritic(
                *dims, head=head, **sizes, attention_heads=heads, generator=generator
            )


def _make_head(config: CriticConfig) -> ValueHead:
    if config.head == "hl_gauss":
        assert config.v_min is not None and config.v_max is not None  # __post_init__ has seen to it
        return HLGaussHead(config.v_min, config.v_max, config.bins)
    return ScalarHead()
