"""Networks shared by the policies."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from serfn.core.errors import ConfigError
from serfn.policies.normalizer import ObservationNormalizer

MLP_DEPTH = 3
"""Hidden layers of policies that are one perceptron from observation to chunk."""

DENOISER_DEPTH = 3
"""Hidden layers of a `ChunkDenoiser`."""

DENOISER_ENCODER_DEPTH = 2
"""Layers of the observation encoder in front of it."""


class ObservationEncoder(nn.Sequential):
    """Multi-layer perceptron with SiLU after every layer, [..., obs] → [..., width]."""

    def __init__(self, obs_dim: int, width: int, depth: int) -> None:
        layers: list[nn.Module] = []
        for index in range(depth):
            layers += [nn.Linear(obs_dim if index == 0 else width, width), nn.SiLU()]
        super().__init__(*layers)


class ChunkDenoiser(nn.Module):
    """Network of the iterative policies: noisy chunk [..., chunk, action] and time [..., 1] → same shape.

    A perceptron over the flat chunk; context and a sinusoidal embedding of the time enter every hidden layer.
    """

    frequencies: Tensor

    def __init__(self, context_dim: int, action_dim: int, chunk_size: int, width: int) -> None:
        super().__init__()
        depth = DENOISER_DEPTH
        size = chunk_size * action_dim
        self.shape = (chunk_size, action_dim)
        self.input = nn.Linear(size, width)
        self.condition = nn.Linear(context_dim, width * depth)
        self.time = nn.Linear(32, width * depth)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.output = nn.Linear(width, size)
        self.register_buffer(
            "frequencies", math.pi * torch.logspace(0.0, 3.0, 16, base=4.0), persistent=False
        )

    def forward(self, chunk: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Evaluate at time in [0, 1]; `condition` is `self.condition(context)`, shared by all steps."""
        angle = time * self.frequencies
        shares = (condition + self.time(torch.cat([angle.sin(), angle.cos()], dim=-1))).chunk(
            len(self.hidden) + 1, dim=-1
        )
        hidden = functional.silu(self.input(chunk.flatten(-2)) + shares[0])
        for layer, share in zip(self.hidden, shares[1:], strict=True):
            hidden = hidden + functional.silu(layer(hidden) + share)
        return self.output(hidden).unflatten(-1, self.shape)


def check_sizes(**sizes: int) -> None:
    """Raise `ConfigError` unless all sizes are at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} is {size}: it must be at least 1")


def encode(normalizer: ObservationNormalizer, encoder: nn.Module, obs: Tensor) -> Tensor:
    """Context [..., context] of raw observations [..., obs].

    Raises:
        ValueError: the observation has another width than the policy was built for.
    """
    if obs.shape[-1] != normalizer.mean.shape[0]:
        raise ValueError(
            f"obs has shape {tuple(obs.shape)}: its last axis must be {normalizer.mean.shape[0]}"
        )
    return encoder(normalizer(obs))
