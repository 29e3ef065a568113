"""A policy: Laplace noise around a linear function of the observation, squashed into the bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serfn.policies.base import PolicyConfig
from serfn.policies.squashed import Context, SquashedPolicy

_EDGE = 1e-6


@dataclass(frozen=True)
class LaplaceConfig(PolicyConfig):
    """Configuration of a `LaplacePolicy`.

    Attributes:
        data_noise: standard deviation of the noise on imitated actions; 0 is off.
        linear_mean: begin from a linear regression of actions on observations.
    """

    data_noise: float = 0.05
    linear_mean: bool = False

    def build(self, obs_dim: int, action_dim: int, chunk_size: int) -> LaplacePolicy:
        """Return the policy with its initial weights."""
        return LaplacePolicy(self, obs_dim, action_dim, chunk_size)


class LaplacePolicy(SquashedPolicy):
    """`a = tanh(v)`, `v ~ Laplace(W obs + b, exp(s))` for every step and dimension."""

    def __init__(self, config: LaplaceConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(config, obs_dim, action_dim, chunk_size)
        self.config = config
        self.mean = nn.Linear(obs_dim, chunk_size * action_dim)
        self.log_scale = nn.Parameter(torch.full((chunk_size, action_dim), -1.0))

    def draw(
        self, context: Context, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Sample v [..., chunk, action]; at temperature 0 the mean."""
        shape = (*leading, self.chunk_size, self.action_dim)
        uniform = torch.rand(shape, generator=generator, device=context.obs.device, dtype=context.obs.dtype)
        centred = (uniform - 0.5).clamp(_EDGE - 0.5, 0.5 - _EDGE)
        noise = -centred.sign() * torch.log1p(-2 * centred.abs())
        return self.predict(context.obs) + temperature * self.log_scale.exp() * noise

    def step_log_prob(self, context: Context, v: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-density of each step [..., chunk]."""
        log_scale = self.log_scale + math.log(temperature)
        distance = (v - self.predict(context.obs)).abs() * (-log_scale).exp()
        return (-distance - log_scale - math.log(2.0)).sum(-1)

    def fit_whitening(self, v: Tensor, valid: Tensor) -> None:
        """Do nothing: the mean and the scale are learnt in v itself."""

    def predict(self, obs: Tensor) -> Tensor:
        """Return the mean of v [..., chunk, action]."""
        return self.mean(self.normalizer(obs)).unflatten(-1, (self.chunk_size, self.action_dim))
