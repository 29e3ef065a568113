"""Diffusion policy: trained as DDPM, sampled by deterministic DDIM. A baseline without a density.

References: Ho et al. 2020, arXiv 2006.11239, eq. 14 (loss); Song et al. 2020, arXiv 2010.02502, eq. 12 with σ
= 0 (sampling); Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17 (cosine schedule).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.flows.whitening import check_minimum_std
from serfn.policies.base import Metrics, PolicyConfig, base_noise, mean_per_dimension
from serfn.policies.denoising import DenoisingPolicy
from serfn.policies.networks import check_sizes

TRAIN_STEPS = 100
"""Noise levels of the training schedule."""


@dataclass(frozen=True)
class DiffusionConfig(PolicyConfig):
    """Configuration of a `DiffusionPolicy`.

    Attributes:
        steps: DDIM steps per sample, at most `TRAIN_STEPS`.
        width: hidden units of encoder and network.
        linear_mean: begin from a linear regression of actions on observations (see `LinearMean`).
        minimum_std: floor of the whitening's standard deviation, in normalised actions.
    """

    steps: int = 10
    width: int = 192
    linear_mean: bool = False
    minimum_std: float = 0.05

    def __post_init__(self) -> None:
        check_sizes(steps=self.steps, width=self.width)
        check_minimum_std(self.minimum_std)
        if self.steps > TRAIN_STEPS:
            raise ConfigError(f"steps is {self.steps}: use at most {TRAIN_STEPS}")

    def build(self, obs_dim: int, action_dim: int, chunk_size: int) -> DiffusionPolicy:
        """Return the policy with its initial weights."""
        return DiffusionPolicy(self, obs_dim, action_dim, chunk_size)


class DiffusionPolicy(DenoisingPolicy):
    """Predicts the noise in a whitened chunk at each of `TRAIN_STEPS` noise levels."""

    signal: Tensor
    levels: Tensor

    def __init__(self, config: DiffusionConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(
            obs_dim,
            action_dim,
            chunk_size,
            width=config.width,
            linear_mean=config.linear_mean,
            minimum_std=config.minimum_std,
        )
        self.config = config
        self.register_buffer("signal", cosine_signal(TRAIN_STEPS), persistent=False)
        self.register_buffer("levels", ddim_levels(config.steps, TRAIN_STEPS), persistent=False)

    def imitation_loss(
        self,
        obs: Tensor,
        actions: Tensor,
        valid: Tensor,
        *,
        generator: torch.Generator,
    ) -> tuple[Tensor, Metrics]:
        """Squared error of the predicted noise at a uniformly drawn level (DDPM, eq. 14)."""
        mask = valid.unsqueeze(-1)
        clean = torch.where(mask, self.whiten(actions, self.center(obs)), torch.zeros_like(actions))
        noise = base_noise(
            actions.shape[:-2], self.chunk_size, self.action_dim, like=actions, generator=generator
        )
        level = torch.randint(TRAIN_STEPS, (len(actions),), generator=generator, device=generator.device).to(
            actions.device
        )
        signal = self.signal[level, None, None]
        noisy = signal.sqrt() * clean + (1.0 - signal).sqrt() * noise
        output = self.network(noisy, self._time(level).unsqueeze(-1), self.condition(obs))
        error = torch.where(mask, (output - noise).square(), torch.zeros_like(output))
        loss = mean_per_dimension(error.sum((-2, -1)), valid, self.action_dim)
        return loss, {"diffusion_mse": loss.detach()}

    def generate(self, noise: Tensor, obs: Tensor) -> Tensor:
        """Walk down the noise levels by DDIM without added noise."""
        x, condition, center = noise, self.condition(obs), self.center(obs)
        signals = torch.cat([self.signal[self.levels], self.signal.new_ones(1)])
        times = self._time(self.levels)
        for index in range(self.config.steps):
            signal, next_signal = signals[index], signals[index + 1]
            predicted = self.network(x, times[index : index + 1], condition)
            clean = (x - (1.0 - signal).sqrt() * predicted) / signal.sqrt()
            # At the noisiest levels the division amplifies errors beyond any action: use the known bounds.
            clean = self.whiten(self.unwhiten(clean, center), center)
            predicted = (x - signal.sqrt() * clean) / (1.0 - signal).sqrt()
            x = next_signal.sqrt() * clean + (1.0 - next_signal).sqrt() * predicted
        return x

    def _time(self, level: Tensor) -> Tensor:
        return (level.to(self.signal.dtype) + 1.0) / TRAIN_STEPS


def ddim_levels(steps: int, train_steps: int) -> Tensor:
    """Evenly spaced noise levels, highest first, down to 0.

    Few steps start below the last level: almost nothing of the signal is left there, so the predicted clean
    chunk would be noise, and a long first step would carry it far.
    """
    return torch.arange(steps - 1, -1, -1) * train_steps // steps


def cosine_signal(train_steps: int) -> Tensor:
    """Remaining signal power ᾱ [train_steps] of the cosine schedule, each step's noise capped at 0.999."""
    position = torch.arange(train_steps + 1, dtype=torch.float64) / train_steps
    power = torch.cos((position + 0.008) / 1.008 * math.pi / 2).square()
    keep = (power[1:] / power[:-1]).clamp(min=1.0 - 0.999)
    return keep.cumprod(0).to(torch.float32)
