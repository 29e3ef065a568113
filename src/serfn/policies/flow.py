"""The normalizing-flow policy: exact density over whole chunks, one pass to sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.flows import ConditionalChunkFlow, FlowConfig
from serfn.flows.transforms import atanh_clipped, tanh_log_slope
from serfn.policies.base import (
    LikelihoodPolicy,
    Metrics,
    base_noise,
    check_temperature,
    weighted_mean_per_dimension,
)
from serfn.policies.networks import ObservationEncoder, encode

DENSITY_LIMIT = 1.0 - 1e-6
"""Densities are evaluated at |a| ≤ this: beyond it, float32 soon leaves atanh no digits and then no value."""


@dataclass(frozen=True)
class FlowPolicyConfig:
    """Configuration of a `FlowPolicy`.

    Attributes:
        flow: the flow over pre-tanh chunks.
        encoder_width: width of the observation's context.
        encoder_depth: layers of the observation encoder.
        data_limit: imitated actions are clipped to ±this before atanh. Close to one, saturated actions become
            far outliers in pre-tanh space and the flow spends itself on them.
        data_noise: standard deviation of the dequantisation noise on imitated actions, in normalised units; 0
            is off.
    """

    flow: FlowConfig = field(default_factory=FlowConfig)
    encoder_width: int = 192
    encoder_depth: int = 2
    data_limit: float = 0.98
    data_noise: float = 0.05

    def __post_init__(self) -> None:
        for name in ("encoder_width", "encoder_depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0.0 < self.data_limit < 1.0:
            raise ConfigError(f"data_limit is {self.data_limit}: use a number in (0, 1), 0.98 is usual")
        if not 0.0 <= self.data_noise < 1.0:
            raise ConfigError(f"data_noise is {self.data_noise}: use a number in [0, 1), 0.05 is usual")


class FlowPolicy(LikelihoodPolicy):
    """`a = tanh(f(z; obs))`, `z ~ N(0, temperature² I)`.

    The density is

        log π(a | obs) = Σ_t [ log N(z_t; 0, I) + log|∂z/∂u|_t - Σ_dims log(1 - tanh² u_t) ],

    with the sum over the valid steps: the flow is causal in time, hence a prefix's density is exact and does
    not depend on what stands behind it. Reference: arXiv 2602.09580 (policy), arXiv 1605.08803, eqs. 2–3
    (density).
    """

    def __init__(self, config: FlowPolicyConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(obs_dim, action_dim, chunk_size)
        self.config = config
        self.encoder = ObservationEncoder(obs_dim, config.encoder_width, config.encoder_depth)
        self.flow = ConditionalChunkFlow(config.flow, config.encoder_width, action_dim, chunk_size)

    def sample(self, obs: Tensor, *, temperature: float = 1.0, generator: torch.Generator) -> Tensor:
        """Draw chunks [batch, chunk, action]; at temperature 0 the image of z = 0."""
        return self._generate(obs, obs.shape[:-1], temperature, generator)[0].tanh()

    def sample_candidates(
        self, obs: Tensor, count: int, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Tensor:
        """Draw chunks [batch, count, chunk, action]."""
        return self._generate(obs.unsqueeze(-2), (len(obs), count), temperature, generator)[0].tanh()

    def rsample_and_log_prob(
        self, obs: Tensor, *, temperature: float = 1.0, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Reparameterised chunks and their log-density at temperature 1, free of atanh's round-off."""
        u, log_prob = self.rsample_pre_tanh(obs, temperature=temperature, generator=generator)
        return u.tanh(), log_prob - tanh_log_slope(u).sum((-2, -1))

    def rsample_pre_tanh(
        self, obs: Tensor, *, temperature: float = 1.0, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Reparameterised pre-tanh chunks u [batch, chunk, action] and their log-density over u [batch].

        With `log_prob_pre_tanh` of a reference this gives the exact Kullback–Leibler integrand
        `log π(u) - log π_ref(u)`: the tanh Jacobian is the same in both and cancels, and no atanh is taken of
        saturated actions.
        """
        u, z, log_det = self._generate(obs, obs.shape[:-1], temperature, generator)
        return u, (_normal_log_prob(z) - log_det).sum(-1)

    def log_prob_pre_tanh(self, obs: Tensor, u: Tensor, valid: Tensor | None = None) -> Tensor:
        """Log-density over u [batch] of pre-tanh chunks [batch, chunk, action] or their valid prefixes."""
        return _sum_valid(self._step_log_prob_pre_tanh(obs, _cleared(u, valid)), valid)

    def log_prob(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Log-density [batch] of chunks; finite, with finite gradients, for all actions in [-1, 1]."""
        return _sum_valid(self._step_log_prob(obs, _cleared(actions, valid)), valid)

    def log_prob_candidates(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Log-density [batch, count] of chunks [batch, count, chunk, action]."""
        return _sum_valid(self._step_log_prob(obs.unsqueeze(-2), _cleared(actions, valid)), valid)

    def imitation_loss(
        self,
        obs: Tensor,
        actions: Tensor,
        valid: Tensor,
        *,
        generator: torch.Generator,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Negative log-likelihood of dequantised, clipped actions, per valid action dimension."""
        prepared = self.prepare_data(actions, generator=generator)
        log_prob = self.log_prob(obs, prepared, valid)
        loss = weighted_mean_per_dimension(-log_prob, valid, self.action_dim, weights)
        saturated = (prepared.abs() >= self.config.data_limit).float().mean(-1)
        metrics = {
            "nll_per_dim": loss.detach(),
            "saturated_fraction": (saturated * valid).sum() / valid.sum(),
        }
        return loss, metrics

    def prepare_data(self, actions: Tensor, *, generator: torch.Generator) -> Tensor:
        """`clip(a + ε, ±data_limit)`, `ε ~ N(0, data_noise²)`: what imitation takes the likelihood of."""
        if self.config.data_noise:
            shape = actions.shape[:-2]
            noise = base_noise(shape, self.chunk_size, self.action_dim, like=actions, generator=generator)
            actions = actions + self.config.data_noise * noise
        return actions.clamp(-self.config.data_limit, self.config.data_limit)

    @torch.no_grad()
    def fit_statistics(self, observations: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit the observation normaliser and the whitening of pre-tanh space."""
        self.normalizer.fit(observations)
        self.flow.whitening.fit(atanh_clipped(actions, self.config.data_limit), valid)

    def _generate(
        self, obs: Tensor, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        check_temperature(temperature)
        z = temperature * base_noise(leading, self.chunk_size, self.action_dim, like=obs, generator=generator)
        u, log_det = self.flow(z, self._conditions(obs))
        return u, z, log_det

    def _step_log_prob(self, obs: Tensor, actions: Tensor) -> Tensor:
        u = atanh_clipped(actions, DENSITY_LIMIT)
        return self._step_log_prob_pre_tanh(obs, u) - tanh_log_slope(u).sum(-1)

    def _step_log_prob_pre_tanh(self, obs: Tensor, u: Tensor) -> Tensor:
        if u.shape[-2:] != (self.chunk_size, self.action_dim):
            raise ValueError(
                f"chunks have shape {tuple(u.shape)}: "
                f"the last axes must be [{self.chunk_size}, {self.action_dim}]"
            )
        z, log_det = self.flow.inverse(u, self._conditions(obs))
        return _normal_log_prob(z) + log_det

    def _conditions(self, obs: Tensor) -> list[Tensor]:
        return self.flow.condition(encode(self.normalizer, self.encoder, obs))


def _normal_log_prob(z: Tensor) -> Tensor:
    """Standard normal log-density of each step, [..., chunk, action] → [..., chunk]."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2.0 * math.pi))


def _cleared(chunks: Tensor, valid: Tensor | None) -> Tensor:
    """Chunks with zeros behind the valid prefix: without effect on the density, but 0 · NaN is NaN."""
    return chunks if valid is None else torch.where(valid.unsqueeze(-1), chunks, torch.zeros_like(chunks))


def _sum_valid(steps: Tensor, valid: Tensor | None) -> Tensor:
    return (steps if valid is None else torch.where(valid, steps, torch.zeros_like(steps))).sum(-1)
