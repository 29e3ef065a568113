"""Mixture of tanh-Gaussians over whole chunks: a few modes, each with one smooth chunk.

Reference: Bishop 1994, "Mixture density networks"; with chunks as in robomimic's BC-GMM (arXiv 2108.03298).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from serfn.flows.whitening import ChunkWhitening, check_minimum_std
from serfn.policies.base import PolicyConfig
from serfn.policies.chunk_distribution import MixtureDistribution, MixtureHead
from serfn.policies.networks import MLP_DEPTH, ObservationEncoder, check_sizes, encode
from serfn.policies.squashed import Context, SquashedPolicy, check_data_noise


@dataclass(frozen=True)
class GaussianMixtureConfig(PolicyConfig):
    """Configuration of a `GaussianMixturePolicy`.

    Attributes:
        components: number of Gaussians.
        width: hidden units of the network.
        data_noise: standard deviation of the dequantisation noise on imitated actions; 0 is off.
        linear_mean: begin from a linear regression of actions on observations (see `LinearMean`).
        minimum_std: floor of the whitening's standard deviation, in pre-tanh units.
    """

    components: int = 4
    width: int = 192
    data_noise: float = 0.05
    linear_mean: bool = False
    minimum_std: float = 0.05

    def __post_init__(self) -> None:
        check_sizes(components=self.components, width=self.width)
        check_data_noise(self.data_noise)
        check_minimum_std(self.minimum_std)

    def build(self, obs_dim: int, action_dim: int, chunk_size: int) -> GaussianMixturePolicy:
        """Return the policy with its initial weights."""
        return GaussianMixturePolicy(self, obs_dim, action_dim, chunk_size)


class GaussianMixturePolicy(SquashedPolicy):
    """`a = tanh(m(obs) + v)`, `v ~ Σ_k w_k(obs) N(μ_k(obs), diag σ_k(obs)²)`; one component per chunk.

    Prefixes are exact and samples reparameterised within their component, see `MixtureDistribution`.
    """

    def __init__(self, config: GaussianMixtureConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(config, obs_dim, action_dim, chunk_size)
        self.config = config
        self.encoder = ObservationEncoder(obs_dim, config.width, MLP_DEPTH)
        self.head = MixtureHead(config.width, config.components, chunk_size, action_dim)
        self.whitening = ChunkWhitening(chunk_size, action_dim, config.minimum_std)

    def parts(self, obs: Tensor) -> tuple[Tensor, ...]:
        """The encoded observations."""
        return (encode(self.normalizer, self.encoder, obs),)

    def draw(
        self, context: Context, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Draw components from `softmax(logits / temperature)`, then chunks; at temperature 0 the largest."""
        return self.whitening(self.head(*context.parts).draw(leading, temperature, generator))[0]

    def step_log_prob(self, context: Context, v: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-density of each step given those before it, [..., chunk]."""
        white, log_det = self.whitening.inverse(v)
        return self.head(*context.parts).step_log_prob(white, temperature) + log_det

    def fit_whitening(self, v: Tensor, valid: Tensor) -> None:
        """Set the whitening, in whose units the network predicts."""
        self.whitening.fit(v, valid)

    def predict(self, obs: Tensor) -> MixtureDistribution:
        """Distribution of whitened v."""
        return self.head(*self.parts(obs))
