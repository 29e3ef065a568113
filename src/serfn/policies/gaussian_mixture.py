"""Mixture of tanh-Gaussians over whole chunks: a few modes, each with one smooth chunk.

Reference: Bishop 1994, "Mixture density networks"; with chunks as in robomimic's BC-GMM (arXiv 2108.03298).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from serfn.core.errors import ConfigError
from serfn.flows.transforms import atanh_clipped
from serfn.flows.whitening import ChunkWhitening
from serfn.policies.base import base_noise
from serfn.policies.gaussian import gaussian_log_density, soft_log_std
from serfn.policies.networks import ObservationEncoder, encode
from serfn.policies.squashed import SquashedPolicy, check_data_preparation


@dataclass(frozen=True)
class GaussianMixtureConfig:
    """Configuration of a `GaussianMixturePolicy`.

    Attributes:
        components: number of Gaussians.
        width: hidden units of the network.
        depth: hidden layers of the network.
        data_limit: imitated actions are clipped to ±this before atanh.
        data_noise: standard deviation of the dequantisation noise on imitated actions; 0 is off.
        type: tells this configuration from those of the other policies.
    """

    components: int = 4
    width: int = 192
    depth: int = 3
    data_limit: float = 0.98
    data_noise: float = 0.05
    type: Literal["gaussian_mixture"] = "gaussian_mixture"

    def __post_init__(self) -> None:
        for name in ("components", "width", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        check_data_preparation(self.data_limit, self.data_noise)


class GaussianMixturePolicy(SquashedPolicy):
    """`a = tanh(u)`, `u ~ Σ_k w_k(obs) N(μ_k(obs), diag σ_k(obs)²)`; one component lasts for a whole chunk.

    Step by step the density is

        log p(u_t | u_{<t}) = log Σ_k w_k Π_{s≤t} N_ks - log Σ_k w_k Π_{s<t} N_ks,

    so that prefixes are exact. Samples are reparameterised within their component; its choice is not
    differentiable, so gradients through samples never reach the weights `w`.
    """

    def __init__(self, config: GaussianMixtureConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(
            obs_dim, action_dim, chunk_size, data_limit=config.data_limit, data_noise=config.data_noise
        )
        self.config = config
        self.encoder = ObservationEncoder(obs_dim, config.width, config.depth)
        self.logits = nn.Linear(config.width, config.components)
        self.output = nn.Linear(config.width, 2 * config.components * chunk_size * action_dim)
        for layer in (self.logits, self.output):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Equal components would get equal gradients for ever; each starts as another constant motion.
        with torch.no_grad():
            means = self.output.bias.view(config.components, 2, chunk_size, action_dim)[:, 0]
            means.copy_(torch.randn(config.components, 1, action_dim).expand_as(means))
        self.whitening = ChunkWhitening(chunk_size, action_dim)

    def draw(
        self, obs: Tensor, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Draw components from `softmax(logits / temperature)`, then chunks; at temperature 0 the largest."""
        log_weights, mean, log_std = self.predict(obs)
        uniform = torch.rand(
            (*leading, self.config.components), generator=generator, device=generator.device, dtype=obs.dtype
        )
        gumbel = -(-uniform.clamp(min=torch.finfo(obs.dtype).tiny).log()).log().to(obs.device)
        component = (log_weights + temperature * gumbel).argmax(-1)
        index = component[..., None, None, None].expand(*leading, 1, self.chunk_size, self.action_dim)
        shape = (*leading, *mean.shape[-3:])
        mean = mean.expand(shape).gather(-3, index).squeeze(-3)
        log_std = log_std.expand(shape).gather(-3, index).squeeze(-3)
        noise = base_noise(leading, self.chunk_size, self.action_dim, like=obs, generator=generator)
        return self.whitening(mean + temperature * log_std.exp() * noise)[0]

    def step_log_prob_pre_tanh(self, obs: Tensor, u: Tensor) -> Tensor:
        """Log-density of each step given those before it, [..., chunk]."""
        log_weights, mean, log_std = self.predict(obs)
        v, log_det = self.whitening.inverse(u)
        steps = gaussian_log_density(v.unsqueeze(-3), mean, log_std).sum(-1)
        so_far = (log_weights.unsqueeze(-1) + steps.cumsum(-1)).logsumexp(-2)
        return so_far - functional.pad(so_far[..., :-1], (1, 0)) + log_det

    @torch.no_grad()
    def fit_statistics(self, observations: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit the observation normaliser and the whitening of pre-tanh space."""
        self.normalizer.fit(observations)
        self.whitening.fit(atanh_clipped(actions, self.config.data_limit), valid)

    def predict(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log standard deviations of whitened pre-tanh actions.

        The first is [..., components], the others are [..., components, chunk, action].
        """
        context = encode(self.normalizer, self.encoder, obs)
        shape = (self.config.components, 2, self.chunk_size, self.action_dim)
        mean, raw = self.output(context).unflatten(-1, shape).unbind(-3)
        return self.logits(context).log_softmax(-1), mean, soft_log_std(raw)
