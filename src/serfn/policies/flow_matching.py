"""Flow-matching policy: a learned velocity field integrated by Euler's method. A baseline without a density.

Reference: Lipman et al. 2022, arXiv 2210.02747, eqs. 20–23 with σ_min = 0 (straight paths).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.flows.whitening import ChunkWhitening
from serfn.policies.base import (
    ChunkPolicy,
    Metrics,
    base_noise,
    check_temperature,
    weighted_mean_per_dimension,
)
from serfn.policies.networks import ChunkDenoiser, ObservationEncoder, encode


@dataclass(frozen=True)
class FlowMatchingConfig:
    """Configuration of a `FlowMatchingPolicy`.

    Attributes:
        steps: Euler steps per sample.
        prediction: what the network puts out, the velocity or the data point at the path's end.
        width: hidden units of encoder and network.
        depth: hidden layers of the network.
        encoder_depth: layers of the observation encoder.
    """

    steps: int = 10
    prediction: Literal["velocity", "data"] = "velocity"
    width: int = 192
    depth: int = 3
    encoder_depth: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "width", "depth", "encoder_depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.prediction not in ("velocity", "data"):
            raise ConfigError(f"prediction is {self.prediction!r}: use 'velocity' or 'data'")


class FlowMatchingPolicy(ChunkPolicy):
    """`dx/dt = v(x, t; obs)` from noise at t = 0 to a whitened chunk at t = 1."""

    def __init__(self, config: FlowMatchingConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(obs_dim, action_dim, chunk_size)
        self.config = config
        self.encoder = ObservationEncoder(obs_dim, config.width, config.encoder_depth)
        self.network = ChunkDenoiser(config.width, action_dim, chunk_size, config.width, config.depth)
        self.whitening = ChunkWhitening(chunk_size, action_dim)

    def sample(self, obs: Tensor, *, temperature: float = 1.0, generator: torch.Generator) -> Tensor:
        """Draw chunks [batch, chunk, action], clipped to [-1, 1]."""
        return self._integrate(obs, obs.shape[:-1], temperature, generator)

    def sample_candidates(
        self, obs: Tensor, count: int, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Tensor:
        """Draw chunks [batch, count, chunk, action]."""
        return self._integrate(obs.unsqueeze(-2), (len(obs), count), temperature, generator)

    def imitation_loss(
        self,
        obs: Tensor,
        actions: Tensor,
        valid: Tensor,
        *,
        generator: torch.Generator,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Conditional flow matching (eq. 23): squared error against the straight path's velocity or end."""
        mask = valid.unsqueeze(-1)
        end = torch.where(mask, self.whitening.inverse(actions)[0], torch.zeros_like(actions))
        start = base_noise(
            actions.shape[:-2], self.chunk_size, self.action_dim, like=actions, generator=generator
        )
        time = torch.rand(
            (len(actions), 1), generator=generator, device=generator.device, dtype=actions.dtype
        )
        time = time.to(actions.device)
        point = torch.lerp(start, end, time.unsqueeze(-1))
        output = self.network(point, time, self._condition(obs))
        target = end if self.config.prediction == "data" else end - start
        error = torch.where(mask, (output - target).square(), torch.zeros_like(output))
        loss = weighted_mean_per_dimension(error.sum((-2, -1)), valid, self.action_dim, weights)
        return loss, {"flow_matching_mse": loss.detach()}

    @torch.no_grad()
    def fit_statistics(self, observations: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit the observation normaliser and the whitening of actions."""
        self.normalizer.fit(observations)
        self.whitening.fit(actions, valid)

    def _integrate(
        self, obs: Tensor, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        check_temperature(temperature)
        x = temperature * base_noise(leading, self.chunk_size, self.action_dim, like=obs, generator=generator)
        condition = self._condition(obs)
        step = 1.0 / self.config.steps
        for index in range(self.config.steps):
            output = self.network(x, x.new_full((1,), index * step), condition)
            velocity = output if self.config.prediction == "velocity" else (output - x) / (1.0 - index * step)
            x = x + step * velocity
        return self.whitening(x)[0].clamp(-1.0, 1.0)

    def _condition(self, obs: Tensor) -> Tensor:
        return self.network.condition(encode(self.normalizer, self.encoder, obs))
