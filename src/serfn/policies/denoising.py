"""What policies share that turn noise into a chunk step by step with one network, and so have no density."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from serfn.flows.whitening import ChunkWhitening
from serfn.policies.base import ChunkPolicy, base_noise, check_temperature
from serfn.policies.networks import (
    DENOISER_ENCODER_DEPTH,
    ChunkDenoiser,
    ObservationEncoder,
    encode,
)


class DenoisingPolicy(ChunkPolicy):
    """Encoder, network and whitening, and sampling around a subclass's way from noise to data.

    Args:
        obs_dim: observation dimensions.
        action_dim: action dimensions.
        chunk_size: control steps per chunk.
        width: hidden units of encoder and network.
        linear_mean: whether chunks begin from a `LinearMean` of actions.
        minimum_std: floor of the whitening's standard deviation, in normalised actions.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        chunk_size: int,
        *,
        width: int,
        linear_mean: bool,
        minimum_std: float,
    ) -> None:
        super().__init__(obs_dim, action_dim, chunk_size, mean_limit=1.0 if linear_mean else None)
        self.encoder = ObservationEncoder(obs_dim, width, DENOISER_ENCODER_DEPTH)
        self.network = ChunkDenoiser(width, action_dim, chunk_size, width)
        self.whitening = ChunkWhitening(chunk_size, action_dim, minimum_std)

    @abstractmethod
    def generate(self, noise: Tensor, obs: Tensor) -> Tensor:
        """Carry noise [..., chunk, action] to whitened chunks of that shape; `obs` broadcasts."""

    def sample(self, obs: Tensor, *, temperature: float = 1.0, generator: torch.Generator) -> Tensor:
        """Draw chunks [batch, chunk, action], clipped to [-1, 1]."""
        return self._draw(obs, obs.shape[:-1], temperature, generator)

    def sample_candidates(
        self, obs: Tensor, count: int, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Tensor:
        """Draw chunks [batch, count, chunk, action]."""
        return self._draw(obs.unsqueeze(-2), (len(obs), count), temperature, generator)

    @torch.no_grad()
    def fit_statistics(self, observations: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit the normaliser, the regression if there is one, and the whitening of what it leaves."""
        self.fit_inputs(observations, actions, valid)
        self.whitening.fit(actions - self.center(observations), valid)

    def center(self, obs: Tensor) -> Tensor | float:
        """Actions that whitened chunks of zeros stand for, before the whitening's own mean: `m(obs)`."""
        return 0.0 if self.linear_mean is None else self.linear_mean.actions(self.normalizer(obs))

    def whiten(self, actions: Tensor, center: Tensor | float) -> Tensor:
        """Actions to whitened chunks."""
        return self.whitening.inverse(actions - center)[0]

    def unwhiten(self, white: Tensor, center: Tensor | float) -> Tensor:
        """Whitened chunks to actions in [-1, 1]."""
        return (self.whitening(white)[0] + center).clamp(-1.0, 1.0)

    def condition(self, obs: Tensor) -> Tensor:
        """Encode raw observations for the network."""
        return self.network.condition(encode(self.normalizer, self.encoder, obs))

    def _draw(
        self, obs: Tensor, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        check_temperature(temperature)
        noise = base_noise(leading, self.chunk_size, self.action_dim, like=obs, generator=generator)
        return self.unwhiten(self.generate(temperature * noise, obs), self.center(obs))
