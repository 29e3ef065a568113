"""Tanh-Gaussian policy: one mode per observation, over a chunk of any size. The policy of SAC and RLPD.

Reference: Haarnoja et al. 2018, arXiv 1801.01290, appendix C (squashed Gaussian and its density).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serfn.flows.whitening import ChunkWhitening, check_minimum_std
from serfn.policies.base import PolicyConfig, base_noise
from serfn.policies.networks import MLP_DEPTH, ObservationEncoder, check_sizes, encode
from serfn.policies.squashed import Context, SquashedPolicy, check_data_noise

LOG_STD_LIMIT = 4.0
"""The log standard deviation of whitened actions is softly kept within ± this."""


@dataclass(frozen=True)
class GaussianConfig(PolicyConfig):
    """Configuration of a `GaussianPolicy`.

    Attributes:
        width: hidden units of the network.
        data_noise: standard deviation of the dequantisation noise on imitated actions; 0 is off.
        linear_mean: begin from a linear regression of actions on observations (see `LinearMean`).
        minimum_std: floor of the whitening's standard deviation, in pre-tanh units.
    """

    width: int = 192
    data_noise: float = 0.05
    linear_mean: bool = False
    minimum_std: float = 0.05

    def __post_init__(self) -> None:
        check_sizes(width=self.width)
        check_data_noise(self.data_noise)
        check_minimum_std(self.minimum_std)

    def build(self, obs_dim: int, action_dim: int, chunk_size: int) -> GaussianPolicy:
        """Return the policy with its initial weights."""
        return GaussianPolicy(self, obs_dim, action_dim, chunk_size)


class GaussianPolicy(SquashedPolicy):
    """`a = tanh(m(obs) + v)`, `v ~ N(μ(obs), diag σ(obs)²)` over all steps, independent given `obs`.

    A chunk of one step is the usual per-step policy. Where demonstrations have several modes the mean lies
    between them. `m` is 0 unless `linear_mean` is set.
    """

    def __init__(self, config: GaussianConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(config, obs_dim, action_dim, chunk_size)
        self.config = config
        self.encoder = ObservationEncoder(obs_dim, config.width, MLP_DEPTH)
        self.output = nn.Linear(config.width, 2 * chunk_size * action_dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.whitening = ChunkWhitening(chunk_size, action_dim, config.minimum_std)

    def parts(self, obs: Tensor) -> tuple[Tensor, ...]:
        """The network's output."""
        return (self.output(encode(self.normalizer, self.encoder, obs)),)

    def draw(
        self, context: Context, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Mean plus scaled noise; at temperature 0 the mean."""
        mean, log_std = self._split(*context.parts)
        noise = base_noise(leading, self.chunk_size, self.action_dim, like=mean, generator=generator)
        return self.whitening(mean + temperature * log_std.exp() * noise)[0]

    def step_log_prob(self, context: Context, v: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-density of each step [..., chunk]."""
        mean, log_std = self._split(*context.parts)
        white, log_det = self.whitening.inverse(v)
        return gaussian_log_density(white, mean, log_std + math.log(temperature)).sum(-1) + log_det

    def fit_whitening(self, v: Tensor, valid: Tensor) -> None:
        """Set the whitening, in whose units the network predicts."""
        self.whitening.fit(v, valid)

    def predict(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of whitened v, [..., chunk, action] each."""
        return self._split(*self.parts(obs))

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = output.unflatten(-1, (2, self.chunk_size, self.action_dim)).unbind(-3)
        return mean, soft_log_std(raw)


def gaussian_log_density(value: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Elementwise `log N(value; mean, exp(log_std)²)`."""
    return -0.5 * ((value - mean) * (-log_std).exp()).square() - log_std - 0.5 * math.log(2.0 * math.pi)


def soft_log_std(raw: Tensor) -> Tensor:
    """Log standard deviation within ±`LOG_STD_LIMIT`; zero stays zero."""
    return LOG_STD_LIMIT * torch.tanh(raw / LOG_STD_LIMIT)
