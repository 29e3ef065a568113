"""Ours: an operator that raises the value, and a penalty that keeps the policy close to where it came from.

``L = L_operator + λ · penalty``. With the exact divergence from the reference as the penalty, all operators
are stable; the likelihood of data bounds neither the divergence nor the critic's error off the data, and is
kept for comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic
from serfn.policies.base import ChunkPolicy, mean_per_dimension
from serfn.policies.squashed import Context, SquashedPolicy
from serfn.training.batch import TensorBatch
from serfn.training.coefficient import (
    adapt_coefficient,
    effective_sample_size,
    temperature_for_sample_size,
)
from serfn.training.improvements.base import ImprovementConfig, check_adapted, check_coefficient
from serfn.training.losses import Metrics, imitation_loss, policy_values, sample_with_kl

_RATE, _LOW, _HIGH = 0.02, 0.003, 10.0
"""Largest change of log λ per policy step while it adapts, and its bounds."""

_SAMPLE_FRACTION = 0.25
"""Effective sample size that sets the temperature of weights, as a fraction of the samples."""


@dataclass(frozen=True)
class RegularizedConfig(ImprovementConfig):
    """An operator and a penalty.

    Attributes:
        operator: `q_gradient` ascends the critic through the flow; `advantage_weighted` raises the likelihood
            of replayed chunks by their advantage (AWR); `mpo` that of the reference's samples by their value.
        penalty: `kl` is the exact divergence from the reference, `nll` the negative log-likelihood of
            demonstrations.
        coefficient: λ at the start of a stage, on the penalty per action dimension. It follows the scale of
            the advantage (a chunk moves a Q in [-1, 1] by about 0.002), so .02 to .03 suits the gradient,
            about .1 likelihoods.
        target_kl: KL / D that λ is adapted to hold; None keeps λ fixed.
        baseline_samples: The policy's chunks per state that estimate its value in `advantage_weighted`.
        temperature: Standard deviation σ of the base noise of the distribution whose likelihood
            `advantage_weighted` raises: the one that the replayed chunks were drawn at, 1 for demonstrations.
        mpo_samples: Chunks per state in `mpo`.

    Raises:
        ConfigError: A value is out of range, or a target divergence is asked of the `nll` penalty.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        **ImprovementConfig.RENAMED,
        "anchor": "penalty",
        "target_divergence": "target_kl",
        "own_samples": "mpo_samples",
        "operator=own_samples": "operator=mpo",
    }
    policy_type: ClassVar[type[ChunkPolicy]] = SquashedPolicy

    operator: Literal["q_gradient", "advantage_weighted", "mpo"] = "q_gradient"
    penalty: Literal["kl", "nll"] = "kl"
    coefficient: float = 0.03
    target_kl: float | None = None
    baseline_samples: int = 4
    temperature: float = 1.0
    mpo_samples: int = 16

    def __post_init__(self) -> None:
        check_coefficient(self.coefficient, 0.03)
        if self.target_kl is not None:
            if self.penalty != "kl":
                raise ConfigError("target_kl adapts the coefficient of a divergence; set penalty to 'kl'")
            if not self.target_kl > 0:
                raise ConfigError(f"target_kl is {self.target_kl}; it must be above 0, 0.3 is usual")
            check_adapted(self.coefficient, _LOW, _HIGH)
        if self.baseline_samples < 1:
            raise ConfigError(
                f"baseline_samples is {self.baseline_samples}; it must be at least 1, 4 is usual"
            )
        if not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"temperature is {self.temperature}; a likelihood needs one above 0, that of the chunks"
            )
        if self.mpo_samples < 2:
            raise ConfigError(f"mpo_samples is {self.mpo_samples}; weights need at least 2, 16 is usual")

    @property
    def imitates_demonstrations(self) -> bool:
        """Whether the penalty is the likelihood of demonstrations."""
        return self.penalty == "nll"

    def adapted(self, coefficient: Tensor, metrics: Metrics) -> Tensor:
        """Return λ for the next step, moved towards what holds the target divergence."""
        if self.target_kl is None:
            return coefficient
        return adapt_coefficient(
            coefficient, metrics["policy/kl"], target=self.target_kl, rate=_RATE, low=_LOW, high=_HIGH
        )

    def loss(
        self,
        policy: ChunkPolicy,
        reference: ChunkPolicy,
        critic: ChunkCritic,
        batch: TensorBatch,
        demonstrations: TensorBatch,
        *,
        coefficient: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Metrics]:
        """Return the operator's loss with λ times the penalty, see `ImprovementConfig.loss`."""
        policy = self.required(policy, SquashedPolicy)
        reference = self.required(reference, SquashedPolicy)
        # One pass through the encoder, and one set of conditions, for all that follows.
        context = policy.context(batch.obs)
        if self.operator == "q_gradient":
            # The operator's sample serves the penalty too, so that one pass through the flow is enough.
            if self.penalty == "kl":
                return q_gradient_kl(
                    policy, reference, critic, batch, context, coefficient=coefficient, generator=generator
                )
            return q_gradient_nll(
                policy, critic, batch, context, demonstrations, coefficient=coefficient, generator=generator
            )
        if self.operator == "advantage_weighted":
            loss, metrics = advantage_weighted(
                policy,
                critic,
                batch,
                context,
                baseline_samples=self.baseline_samples,
                temperature=self.temperature,
                generator=generator,
            )
        else:
            loss, metrics = mpo(
                policy, reference, critic, batch, context, samples=self.mpo_samples, generator=generator
            )
        if self.penalty == "kl":
            divergence = sample_with_kl(policy, reference, context, generator)[1].mean()
            return loss + coefficient * divergence, {**metrics, "policy/kl": divergence.detach()}
        nll, nll_metrics = imitation_loss(policy, demonstrations, generator=generator)
        return loss + coefficient * nll, {**metrics, **nll_metrics}


def q_gradient_kl(
    policy: SquashedPolicy,
    reference: SquashedPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    context: Context,
    *,
    coefficient: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Ascend the critic through the flow, tied to the reference by the exact divergence on the same sample.

    ``L = -E_z Q(s, f(z; s)) + λ · KL(π ‖ π_ref) / D``, ``KL = E_z[log π - log π_ref]`` at `f(z; s)`.
    """
    actions, divergence = sample_with_kl(policy, reference, context, generator)
    values = critic.value(batch.obs, actions)
    divergence = divergence.mean()
    loss = -values.mean() + coefficient * divergence
    return loss, {**policy_values(values), "policy/kl": divergence.detach()}


def q_gradient_nll(
    policy: SquashedPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    context: Context,
    demonstrations: TensorBatch,
    *,
    coefficient: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Ascend the critic through the flow, tied to data only by likelihood; kept for comparison.

    ``L = -E_z Q(s, f(z; s)) - λ · E_data[log π(a | s)] / D``. The likelihood of data is no trust region: it
    bounds neither the divergence nor the critic's error off the data.

    Reference: arXiv 2602.09580, policy objective.
    """
    actions, _ = policy.rsample_and_log_prob(context, generator=generator)
    values = critic.value(batch.obs, actions)
    nll, metrics = imitation_loss(policy, demonstrations, generator=generator)
    return -values.mean() + coefficient * nll, {**policy_values(values), **metrics}


def advantage_weighted(
    policy: SquashedPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    context: Context,
    *,
    baseline_samples: int,
    temperature: float,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Raise the likelihood of replayed chunks that were better than what the policy does on average.

    ``L = -Σ_i w_i log π(a_i | s_i) / Σ_i w_i D_i`` (`D_i` valid dimensions) with ``w = softmax(A / η)`` over
    the batch and ``A_i = Q(s_i, a_i) - mean_k Q(s_i, a_k)``, ``a_k ~ π``; η gives an effective sample size of
    a quarter of the batch. The critic is never differentiated with respect to actions, so its errors off the
    data are not exploited.

    π is the distribution at `temperature` here, and the likelihood that of the steps `batch.planned`. Where
    those were drawn from π, equal weights leave it unchanged on average. To the distribution at temperature 1
    chunks of a lower temperature say, good or bad, that it is too wide.

    References: AWR (arXiv 1910.00177), Eq. 5; CRR (arXiv 2006.15134), Eq. 4.
    """
    with torch.no_grad():
        own = policy.sample_candidates(
            context, baseline_samples, temperature=temperature, generator=generator
        )
        baseline = critic.candidate_values(batch.obs, own).mean(1)
        values = critic.value(batch.obs, batch.actions, batch.valid)
        advantages = values - baseline
        sharpness = temperature_for_sample_size(advantages, _SAMPLE_FRACTION)
        weights = torch.softmax(advantages / sharpness, dim=0)
    actions = policy.prepare_data(batch.actions, generator=generator)
    log_prob = policy.log_prob(context, actions, batch.planned, temperature=temperature)
    loss = mean_per_dimension(-log_prob, batch.planned, policy.action_dim, weights)
    return loss, {
        **policy_values(baseline),
        "policy/weighted_nll_per_dim": loss.detach(),
        "policy/advantage": advantages.mean(),
        "policy/temperature": sharpness,
        "policy/sample_size": effective_sample_size(weights),
    }


def mpo(
    policy: SquashedPolicy,
    proposal: SquashedPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    context: Context,
    *,
    samples: int,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Distil best-of-N into one sample: imitate those of the proposal's chunks that the critic prefers.

    ``L = -E_s Σ_i w_i log π(a_i | s) / D``, ``a_i ~ proposal(s)``, ``w = softmax(Q / η)`` over the samples of
    a state. Needs a penalty besides the proposal, or it drifts.

    Reference: MPO (arXiv 1806.06920), Eqs. 7-10, with η from the effective sample size instead of its dual.
    """
    with torch.no_grad():
        actions = proposal.sample_candidates(batch.obs, samples, generator=generator)
        values = critic.candidate_values(batch.obs, actions)
        temperature = temperature_for_sample_size(values, _SAMPLE_FRACTION)
        weights = torch.softmax(values / temperature, dim=1)
    log_prob = policy.log_prob_candidates(context, actions) / actions[0, 0].numel()
    return -(weights * log_prob).sum(1).mean(), {
        **policy_values(values),
        "policy/temperature": temperature,
        "policy/sample_size": effective_sample_size(weights).mean(),
    }
