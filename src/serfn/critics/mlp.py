"""A chunk critic that reads the whole chunk as one vector: small, fast, the default."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from serfn.critics.base import ChunkCritic, EnsembleLinear
from serfn.critics.heads import ValueHead

_OUTPUT_GAIN = 0.1


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
        generator: torch.Generator,
    ) -> None:
        super().__init__(obs_dim, action_dim, chunk_size, ensemble=ensemble, head=head)
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
