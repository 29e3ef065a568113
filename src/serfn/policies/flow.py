"""The normalizing-flow policy: exact density over whole chunks, one pass to sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.flows import ConditionalChunkFlow, FlowConfig
from serfn.flows.transforms import atanh_clipped
from serfn.policies.base import base_noise
from serfn.policies.networks import ObservationEncoder, encode
from serfn.policies.squashed import SquashedPolicy, check_data_preparation


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
        type: tells this configuration from those of the other policies.
    """

    flow: FlowConfig = field(default_factory=FlowConfig)
    encoder_width: int = 192
    encoder_depth: int = 2
    data_limit: float = 0.98
    data_noise: float = 0.05
    type: Literal["flow"] = "flow"

    def __post_init__(self) -> None:
        for name in ("encoder_width", "encoder_depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        check_data_preparation(self.data_limit, self.data_noise)


class FlowPolicy(SquashedPolicy):
    """`a = tanh(f(z; obs))`, `z ~ N(0, temperature² I)`.

    The density is

        log π(a | obs) = Σ_t [ log N(z_t; 0, I) + log|∂z/∂u|_t - Σ_dims log(1 - tanh² u_t) ],

    with the sum over the valid steps: the flow is causal in time, hence a prefix's density is exact and does
    not depend on what stands behind it. Reference: arXiv 2602.09580 (policy), arXiv 1605.08803, eqs. 2–3
    (density).
    """

    def __init__(self, config: FlowPolicyConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(
            obs_dim, action_dim, chunk_size, data_limit=config.data_limit, data_noise=config.data_noise
        )
        self.config = config
        self.encoder = ObservationEncoder(obs_dim, config.encoder_width, config.encoder_depth)
        self.flow = ConditionalChunkFlow(config.flow, config.encoder_width, action_dim, chunk_size)

    def draw(
        self, obs: Tensor, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Images u of base noise; at temperature 0 the image of z = 0."""
        return self._generate(obs, leading, temperature, generator)[0]

    def draw_with_density(
        self, obs: Tensor, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Images u of base noise with their densities, in one pass through the flow."""
        u, z, log_det = self._generate(obs, leading, temperature, generator)
        return u, _normal_log_prob(z) - log_det

    def step_log_prob_pre_tanh(self, obs: Tensor, u: Tensor) -> Tensor:
        """Log-density of each step [..., chunk], by the inverse flow."""
        z, log_det = self.flow.inverse(u, self._conditions(obs))
        return _normal_log_prob(z) + log_det

    @torch.no_grad()
    def fit_statistics(self, observations: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit the observation normaliser and the whitening of pre-tanh space."""
        self.normalizer.fit(observations)
        self.flow.whitening.fit(atanh_clipped(actions, self.config.data_limit), valid)

    def _generate(
        self, obs: Tensor, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        z = temperature * base_noise(leading, self.chunk_size, self.action_dim, like=obs, generator=generator)
        u, log_det = self.flow(z, self._conditions(obs))
        return u, z, log_det

    def _conditions(self, obs: Tensor) -> list[Tensor]:
        return self.flow.condition(encode(self.normalizer, self.encoder, obs))


def _normal_log_prob(z: Tensor) -> Tensor:
    """Standard normal log-density of each step, [..., chunk, action] → [..., chunk]."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2.0 * math.pi))
