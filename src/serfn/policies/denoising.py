"""What policies share that turn noise into a chunk step by step with one network, and so have no density."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from serfn.flows.whitening import ChunkWhitening
from serfn.policies.base import ChunkPolicy, base_noise, check_temperature
from serfn.policies.networks import ChunkDenoiser, ObservationEncoder, encode


class DenoisingPolicy(ChunkPolicy):
    """Encoder, network and whitening, and sampling around a subclass's way from noise to data.

    Args:
        obs_dim: observation dimensions.
        action_dim: action dimensions.
        chunk_size: control steps per chunk.
        width: hidden units of encoder and network.
        depth: hidden layers of the network.
        encoder_depth: layers of the observation encoder.
    """

    def __init__(
        self, obs_dim: int, action_dim: int, chunk_size: int, *, width: int, depth: int, encoder_depth: int
    ) -> None:
        super().__init__(obs_dim, action_dim, chunk_size)
        self.encoder = ObservationEncoder(obs_dim, width, encoder_depth)
        self.network = ChunkDenoiser(width, action_dim, chunk_size, width, depth)
        self.whitening = ChunkWhitening(chunk_size, action_dim)

    @abstractmethod
    def generate(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Carry noise [..., chunk, action] to whitened chunks of that shape, given encoded observations."""

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
        """Fit the observation normaliser and the whitening of actions."""
        self.normalizer.fit(observations)
        self.whitening.fit(actions, valid)

    def condition(self, obs: Tensor) -> Tensor:
        """Encode raw observations for the network."""
        return self.network.condition(encode(self.normalizer, self.encoder, obs))

    def _draw(
        self, obs: Tensor, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        check_temperature(temperature)
        noise = base_noise(leading, self.chunk_size, self.action_dim, like=obs, generator=generator)
        return self.whitening(self.generate(temperature * noise, self.condition(obs)))[0].clamp(-1.0, 1.0)
