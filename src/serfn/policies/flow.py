"""The normalizing-flow policy: exact density over whole chunks, one pass to sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor

from serfn.flows import ConditionalChunkFlow, FlowConfig
from serfn.flows.frozen import FrozenChunkFlow, freeze
from serfn.policies.base import PolicyConfig
from serfn.policies.chunk_distribution import MixtureHead, StandardNormalHead
from serfn.policies.encoders.base import EncoderConfig
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.policies.networks import check_sizes, encode
from serfn.policies.squashed import Context, SquashedPolicy, check_data_noise


@dataclass(frozen=True)
class FlowPolicyConfig(PolicyConfig):
    """Configuration of a `FlowPolicy`.

    Attributes:
        flow: the flow over pre-tanh chunks.
        base_components: Gaussians in the base. 1 is N(0, I). The image of one Gaussian under a flow always
            connects its modes; where demonstrations do one thing or the other and nothing between, several
            (4 is usual), with weights, means and widths from the observation, leave the way between empty.
        linear_mean: begin from a linear regression of actions on observations (see `LinearMean`): for
            absolute commands that are to be precise over a wide range.
        members: flows of these settings whose mixture is the policy, see `FlowEnsemblePolicy`; 1 is one flow.
        encoder: what turns the observation into the context of flow and base.
        data_noise: standard deviation of the dequantisation noise on imitated actions, in normalised units; 0
            is off.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "encoder_width": "policy.encoder.width",
        "encoder_depth": "policy.encoder.depth",
    }

    flow: FlowConfig = field(default_factory=FlowConfig)
    base_components: int = 1
    linear_mean: bool = False
    members: int = 1
    encoder: EncoderConfig = field(default_factory=MLPEncoderConfig)
    data_noise: float = 0.05

    def __post_init__(self) -> None:
        check_sizes(base_components=self.base_components, members=self.members)
        check_data_noise(self.data_noise)

    def build(self, obs_dim: int, action_dim: int, chunk_size: int) -> SquashedPolicy:
        """Return the policy with its initial weights."""
        # The mixture is made of policies of this module.
        from serfn.policies.flow_ensemble import FlowEnsemblePolicy

        kind = FlowPolicy if self.members == 1 else FlowEnsemblePolicy
        return kind(self, obs_dim, action_dim, chunk_size)


class FlowPolicy(SquashedPolicy):
    """`a = tanh(f(z; obs) + m(obs))`, `z ~ N(0, temperature² I)`, or a mixture of Gaussians given `obs`.

    `m` is 0 unless `linear_mean` is set.

    The density is

        log π(a | obs) = Σ_t [ log p(z_t | z_{<t}) + log|∂z/∂u|_t - Σ_dims log(1 - tanh² u_t) ],

    with the sum over the valid steps: the flow is causal in time, hence a prefix's density is exact and does
    not depend on what stands behind it. Reference: arXiv 2602.09580 (policy), arXiv 1605.08803, eqs. 2–3
    (density); for a base of several components see `chunk_distribution`.
    """

    def __init__(self, config: FlowPolicyConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(config, obs_dim, action_dim, chunk_size)
        self.config = config
        self.encoder = config.encoder.build(obs_dim)
        self.flow = ConditionalChunkFlow(config.flow, config.encoder.context_dim, action_dim, chunk_size)
        self.drawn_by: FrozenChunkFlow | ConditionalChunkFlow | None = None
        self.base = (
            StandardNormalHead(chunk_size, action_dim)
            if config.base_components == 1
            else MixtureHead(config.encoder.context_dim, config.base_components, chunk_size, action_dim)
        )

    def frozen(self) -> FlowPolicy:
        """Return a copy that draws by a `FrozenChunkFlow`."""
        policy = cast(FlowPolicy, super().frozen())
        policy.drawn_by = freeze(self.flow)
        return policy

    def parts(self, obs: Tensor) -> tuple[Tensor, ...]:
        """The encoded observations, and the share of the flow's couplings."""
        encoded = encode(self.normalizer, self.encoder, obs)
        return encoded, *self._drawing.condition(encoded)

    def draw(
        self, context: Context, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Images v of base noise; at temperature 0 that of z = 0, or of the likeliest component's mean."""
        encoded, *conditions = context.parts
        z = self.base(encoded).draw(leading, temperature, generator)
        return self._drawing(z, conditions)[0]

    def draw_with_density(
        self, context: Context, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Images v of base noise with their densities, in one pass through the flow."""
        encoded, *conditions = context.parts
        base = self.base(encoded)
        z = base.draw(leading, temperature, generator)
        v, log_det = self._drawing(z, conditions)
        return v, base.step_log_prob(z, 1.0) - log_det

    def step_log_prob(self, context: Context, v: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-density of each step given those before it, [..., chunk], by the inverse flow."""
        encoded, *conditions = context.parts
        if self.drawn_by is not None:
            conditions = self.flow.condition(encoded)
        z, log_det = self.flow.inverse(v, conditions)
        return self.base(encoded).step_log_prob(z, temperature) + log_det

    def fit_whitening(self, v: Tensor, valid: Tensor) -> None:
        """Set the outermost layer of the flow."""
        self.flow.whitening.fit(v, valid)

    @property
    def _drawing(self) -> ConditionalChunkFlow | FrozenChunkFlow:
        return self.flow if self.drawn_by is None else self.drawn_by
