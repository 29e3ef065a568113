"""A chunk critic that reads the whole chunk as one vector: small, fast, the default."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic, CriticConfig, EnsembleLinear
from serfn.critics.heads import HLGaussHead, ScalarHead, ValueHead
from serfn.critics.targets import Aggregation

_OUTPUT_GAIN = 0.1


@dataclass(frozen=True)
class MLPCriticConfig(CriticConfig):
    """Configuration of an `MLPChunkCritic`.

    Attributes:
        head: `scalar` regresses by squared error; `hl_gauss` classifies between `v_min` and `v_max`.
        ensemble: Number of independent members.
        width: Hidden units per layer.
        depth: Hidden layers.
        residual_gain: Read what a linear regression on the observation leaves of a chunk, in units of its
            spread times this (`ChunkResiduals`): for commands that are absolute targets. 0.1 is usual; with 1
            the critic learns the noise of every dimension. None reads chunks as they are.
        bins: Classes of the `hl_gauss` head.

    Raises:
        ConfigError: A size is out of range, the bounds are not ordered, or `hl_gauss` lacks them.
    """

    head: Literal["scalar", "hl_gauss"] = "scalar"
    ensemble: int = 2
    width: int = 192
    depth: int = 3
    residual_gain: float | None = None
    bins: int = 101

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ensemble", "width", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"critic {name} is {getattr(self, name)}; it must be at least 1")
        if self.residual_gain is not None and not self.residual_gain > 0:
            raise ConfigError(
                f"critic residual_gain is {self.residual_gain}; it must be above 0 (0.1 is usual), or none"
            )
        if self.head == "hl_gauss":
            if self.v_min is None or self.v_max is None:
                raise ConfigError(
                    f"the hl_gauss head needs v_min and v_max, got {self.v_min} and {self.v_max}; "
                    "give the bounds of the value or use head = 'scalar'"
                )
            if self.bins < HLGaussHead.MIN_BINS:
                raise ConfigError(f"critic bins is {self.bins}; it must be at least {HLGaussHead.MIN_BINS}")

    def build(
        self, obs_dim: int, action_dim: int, chunk_size: int, *, generator: torch.Generator
    ) -> ChunkCritic:
        """Return the critic."""
        critic = MLPChunkCritic(
            obs_dim,
            action_dim,
            chunk_size,
            head=self.make_head(),
            ensemble=self.ensemble,
            width=self.width,
            depth=self.depth,
            aggregate=self.aggregate,
            generator=generator,
        )
        if self.residual_gain is not None:
            critic.read_residuals(self.residual_gain)
        return critic

    def make_head(self) -> ValueHead:
        """Return what the last layer means."""
        if self.head == "hl_gauss":
            assert self.v_min is not None and self.v_max is not None  # __post_init__ has seen to it.
            return HLGaussHead(self.v_min, self.v_max, self.bins)
        return ScalarHead()


class MLPChunkCritic(ChunkCritic):
    """Multilayer perceptron over observation, chunk and executed fraction of the chunk.

    Each hidden layer is `LayerNorm(SiLU(W x + b))`. The norm keeps values off the data from growing without
    bound (RLPD, arXiv 2302.02948, section 4.2); it has no scale and shift of its own, since the next layer's
    weights would only multiply with them.

    A chunk of which only the first h steps count is read with its last counted action held to the end, beside
    the fraction h/H: the content of the padding cannot matter, and a short chunk differs from a full one that
    happens to hold its last action.

    Args:
        obs_dim: Size of an observation.
        action_dim: Size of an action.
        chunk_size: Steps of a chunk.
        head: Meaning of the outputs.
        ensemble: Number of independent members.
        width: Units of a hidden layer.
        depth: Number of hidden layers.
        aggregate: How the values of the members become one.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        chunk_size: int,
        *,
        head: ValueHead,
        ensemble: int = 2,
        width: int = 192,
        depth: int = 3,
        aggregate: Aggregation = "mean",
        generator: torch.Generator,
    ) -> None:
        super().__init__(obs_dim, action_dim, chunk_size, ensemble=ensemble, head=head, aggregate=aggregate)
        sizes = [obs_dim + chunk_size * action_dim + 1, *[width] * depth]
        self._hidden_shape = (width,)
        self.hidden = nn.ModuleList(
            EnsembleLinear(ensemble, inputs, outputs, gain=math.sqrt(2), generator=generator)
            for inputs, outputs in pairwise(sizes)
        )
        self.output = EnsembleLinear(ensemble, width, head.size, gain=_OUTPUT_GAIN, generator=generator)

    def forward(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return outputs `[ensemble, batch, head.size]`, see `ChunkCritic.forward`."""
        if valid is None:
            fraction = torch.ones_like(obs[:, :1])
        else:
            steps = valid.sum(dim=1, keepdim=True)
            fraction = (steps / self.chunk_size).to(obs.dtype)
            actions = _hold_last(actions, steps)
        x, chunks = self._read(obs, actions)
        features = torch.cat([x, chunks.flatten(1), fraction], dim=1)
        hidden = features.expand(self.ensemble, -1, -1)
        for layer in self.hidden:
            hidden = functional.layer_norm(functional.silu(layer(hidden)), self._hidden_shape)
        return self.output(hidden)


def _hold_last(actions: Tensor, steps: Tensor) -> Tensor:
    """Repeat action h of `[batch, chunk, action]` to the end of the chunk; `steps [batch, 1]` holds h."""
    index = torch.minimum(torch.arange(actions.shape[1], device=actions.device), steps - 1)
    return actions.gather(1, index.unsqueeze(-1).expand_as(actions))
