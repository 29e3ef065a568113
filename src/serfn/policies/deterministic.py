"""Deterministic policy with exploration noise: the policy of TD3+BC. A baseline without a density.

Reference: Fujimoto et al. 2018, arXiv 1802.09477, section 5.3 (clipped noise on the target's action).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serfn.policies.base import (
    ChunkPolicy,
    Metrics,
    PolicyConfig,
    base_noise,
    check_temperature,
    mean_per_dimension,
)
from serfn.policies.networks import MLP_DEPTH, ObservationEncoder, check_sizes, encode

NOISE = 0.2
"""Standard deviation of the noise on actions at temperature 1, in normalised units; TD3's."""

NOISE_CLIP = 2.5
"""Noise is clipped to ± this many standard deviations, as TD3's 0.2 clipped to ±0.5."""

_MEAN_LIMIT = 0.98
"""The regression is kept from where tanh is flat, so that the network can correct it."""


@dataclass(frozen=True)
class DeterministicConfig(PolicyConfig):
    """Configuration of a `DeterministicPolicy`.

    Attributes:
        width: hidden units of the network.
        linear_mean: begin from a linear regression of actions on observations (see `LinearMean`).
    """

    width: int = 192
    linear_mean: bool = False

    def __post_init__(self) -> None:
        check_sizes(width=self.width)

    def build(self, obs_dim: int, action_dim: int, chunk_size: int) -> DeterministicPolicy:
        """Return the policy with its initial weights."""
        return DeterministicPolicy(self, obs_dim, action_dim, chunk_size)


class DeterministicPolicy(ChunkPolicy):
    """`a = clip(tanh(m(obs) + μ(obs)) + temperature · NOISE · clip(ε, ±2.5), ±1)`, `ε ~ N(0, I)`.

    `m` is 0 unless `linear_mean` is set.
    """

    def __init__(self, config: DeterministicConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        mean_limit = _MEAN_LIMIT if config.linear_mean else None
        super().__init__(obs_dim, action_dim, chunk_size, mean_limit=mean_limit)
        self.config = config
        self.encoder = ObservationEncoder(obs_dim, config.width, MLP_DEPTH)
        self.output = nn.Linear(config.width, chunk_size * action_dim)

    def sample(self, obs: Tensor, *, temperature: float = 1.0, generator: torch.Generator) -> Tensor:
        """Mean chunks plus clipped noise [batch, chunk, action]; at temperature 0 differentiable means."""
        return self._noisy(self.mean(obs), temperature, generator)

    def sample_candidates(
        self, obs: Tensor, count: int, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Tensor:
        """Draw chunks [batch, count, chunk, action] around the same mean."""
        mean = self.mean(obs).unsqueeze(1).expand(-1, count, -1, -1)
        return self._noisy(mean, temperature, generator)

    def mean(self, obs: Tensor) -> Tensor:
        """Noise-free chunks [batch, chunk, action]."""
        output = self.output(encode(self.normalizer, self.encoder, obs))
        shift = 0.0 if self.linear_mean is None else self.linear_mean(self.normalizer(obs))
        return (output.unflatten(-1, (self.chunk_size, self.action_dim)) + shift).tanh()

    def imitation_loss(
        self,
        obs: Tensor,
        actions: Tensor,
        valid: Tensor,
        *,
        generator: torch.Generator,
    ) -> tuple[Tensor, Metrics]:
        """Squared error of the mean; `generator` is not used."""
        mask = valid.unsqueeze(-1)
        error = torch.where(mask, (self.mean(obs) - actions).square(), torch.zeros_like(actions))
        loss = mean_per_dimension(error.sum((-2, -1)), valid, self.action_dim)
        return loss, {"action_mse": loss.detach()}

    @torch.no_grad()
    def fit_statistics(self, observations: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit the observation normaliser, and the regression if there is one."""
        self.fit_inputs(observations, actions, valid)

    def _noisy(self, mean: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        check_temperature(temperature)
        noise = base_noise(
            tuple(mean.shape[:-2]), self.chunk_size, self.action_dim, like=mean, generator=generator
        )
        return (mean + temperature * NOISE * noise.clamp(-NOISE_CLIP, NOISE_CLIP)).clamp(-1.0, 1.0)
