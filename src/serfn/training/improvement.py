"""Policy improvement: an operator that moves towards better chunks, and an anchor that holds back.

Every operator minimises ``L_operator + λ · anchor``. Two operators and the exact divergence as their anchor
were stable in a feasibility study; the likelihood of data as the only anchor collapsed, and is kept for
comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic
from serfn.critics.targets import Aggregation
from serfn.policies.flow import FlowPolicy
from serfn.training import losses
from serfn.training.batch import TensorBatch
from serfn.training.losses import Metrics

Operator = Literal["q_gradient", "advantage_weighted", "own_samples"]
Anchor = Literal["kl", "nll"]


@dataclass(frozen=True)
class ImprovementConfig:
    """How the policy improves.

    Attributes:
        operator: `q_gradient` ascends the critic through the flow; `advantage_weighted` raises the likelihood
            of replayed chunks by their advantage; `own_samples` that of the reference's samples by their
            value.
        anchor: `kl` is the exact divergence from the reference, `nll` the negative log-likelihood of
            demonstrations.
        strength: λ at the start of a stage, on the anchor per action dimension. It follows the scale of the
            advantage (a chunk moves a Q in [-1, 1] by about 0.002), so .02 to .03 suits the gradient, about
            .1 likelihoods.
        target_divergence: KL / D that λ is adapted to hold; None keeps λ fixed.
        strength_rate: Largest change of log λ per policy step while adapting.
        min_strength: Smallest adapted λ.
        max_strength: Largest adapted λ.
        sample_fraction: Effective sample size that sets the temperature of weights, as a fraction of the
            samples.
        baseline_samples: Own chunks per state that estimate its value in `advantage_weighted`.
        own_samples: Chunks per state in `own_samples`.

    Raises:
        ConfigError: A value is out of range, or a target divergence is asked of the `nll` anchor.
    """

    operator: Operator = "q_gradient"
    anchor: Anchor = "kl"
    strength: float = 0.03
    target_divergence: float | None = None
    strength_rate: float = 0.02
    min_strength: float = 0.003
    max_strength: float = 10.0
    sample_fraction: float = 0.25
    baseline_samples: int = 4
    own_samples: int = 16

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ConfigError(f"strength is {self.strength}; it must be 0 or more, 0.03 is usual")
        if self.target_divergence is not None:
            if self.anchor != "kl":
                raise ConfigError("target_divergence adapts the strength of a divergence; set anchor to 'kl'")
            if not self.target_divergence > 0:
                raise ConfigError(
                    f"target_divergence is {self.target_divergence}; it must be above 0, 0.3 is usual"
                )
            if not 0 < self.min_strength <= self.strength <= self.max_strength:
                raise ConfigError(
                    f"strength {self.strength} is outside [{self.min_strength}, {self.max_strength}]; "
                    "widen min_strength and max_strength, which must be above 0"
                )
        if not 0 < self.strength_rate < 1:
            raise ConfigError(f"strength_rate is {self.strength_rate}; it must lie in (0, 1), 0.02 is usual")
        if not 0 < self.sample_fraction < 1:
            raise ConfigError(
                f"sample_fraction is {self.sample_fraction}; it must lie in (0, 1), 0.25 is usual"
            )
        if self.baseline_samples < 1:
            raise ConfigError(
                f"baseline_samples is {self.baseline_samples}; it must be at least 1, 4 is usual"
            )
        if self.own_samples < 2:
            raise ConfigError(f"own_samples is {self.own_samples}; weights need at least 2, 16 is usual")


def improvement_loss(
    config: ImprovementConfig,
    policy: FlowPolicy,
    reference: FlowPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    demonstrations: TensorBatch,
    *,
    strength: Tensor,
    how: Aggregation,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Return the loss of one policy step, with the metrics of its operator and anchor.

    Args:
        config: Operator and anchor.
        policy: Policy to improve.
        reference: Frozen policy that anchors it, and proposes the chunks of `own_samples`.
        critic: Judge of chunks; gets no gradient from here.
        batch: Transitions to improve on.
        demonstrations: Transitions to imitate under the `nll` anchor.
        strength: λ, scalar.
        how: Aggregation of the critic's ensemble.
        generator: Source of noise on the device of the policy.
    """
    if config.operator == "q_gradient":
        # The operator's own sample serves the anchor too, so that one pass through the flow is enough.
        if config.anchor == "kl":
            return losses.q_gradient_kl(
                policy, reference, critic, batch, strength=strength, how=how, generator=generator
            )
        return losses.q_gradient_nll(
            policy, critic, batch, demonstrations, strength=strength, how=how, generator=generator
        )
    if config.operator == "advantage_weighted":
        loss, metrics = losses.advantage_weighted_likelihood(
            policy,
            critic,
            batch,
            baseline_samples=config.baseline_samples,
            sample_fraction=config.sample_fraction,
            how=how,
            generator=generator,
        )
    else:
        loss, metrics = losses.weighted_own_samples(
            policy,
            reference,
            critic,
            batch,
            samples=config.own_samples,
            sample_fraction=config.sample_fraction,
            how=how,
            generator=generator,
        )
    if config.anchor == "kl":
        divergence = losses.sample_with_divergence(policy, reference, batch.obs, generator)[1].mean()
        return loss + strength * divergence, {**metrics, "policy/kl": divergence.detach()}
    nll, nll_metrics = losses.imitation_loss(policy, demonstrations, generator=generator)
    return loss + strength * nll, {**metrics, **nll_metrics}
