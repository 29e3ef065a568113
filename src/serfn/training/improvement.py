"""Policy improvement: which loss a policy descends in the offline and online stages.

Ours (`ImprovementConfig`) is an operator that moves towards better chunks and an anchor that holds back, ``L
= L_operator + λ · anchor``. Two operators with the exact divergence as their anchor were stable in our
first experiments; the likelihood of data as the only anchor collapsed, and is kept for comparison. The others
are the losses of the literature, with one configuration each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic
from serfn.critics.targets import Aggregation
from serfn.policies.base import ChunkPolicy
from serfn.policies.deterministic import DeterministicPolicy
from serfn.policies.distilled import DistilledFlowPolicy
from serfn.policies.squashed import SquashedPolicy
from serfn.training import baseline_losses, losses
from serfn.training.batch import TensorBatch
from serfn.training.losses import Metrics
from serfn.training.strength import adapt_strength, adapt_temperature

PolicyClass = type[ChunkPolicy]
"""A name of its own: in a configuration `type` is a field."""

Operator = Literal["q_gradient", "advantage_weighted", "own_samples"]
Anchor = Literal["kl", "nll"]
# Spelt outside the classes, where `type` would be read as their field of that name.
PolicyType = type[ChunkPolicy]


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
        temperature: Standard deviation σ of the base noise of the law whose likelihood `advantage_weighted`
            raises: the one that the replayed chunks were drawn at, 1 for demonstrations.
        own_samples: Chunks per state in `own_samples`.
        type: Tells this configuration from those of the literature's losses.

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
    temperature: float = 1.0
    own_samples: int = 16
    type: Literal["anchored"] = "anchored"

    policy_type: ClassVar[PolicyType] = SquashedPolicy

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
        if not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"temperature is {self.temperature}; a likelihood needs one above 0, that of the chunks"
            )
        if self.own_samples < 2:
            raise ConfigError(f"own_samples is {self.own_samples}; weights need at least 2, 16 is usual")

    @property
    def imitates_demonstrations(self) -> bool:
        """Whether the loss reads demonstrations beside its batch."""
        return self.anchor == "nll"

    def adapted(self, strength: Tensor, metrics: Metrics) -> Tensor:
        """Return λ for the next step, given what the loss measured in this one."""
        if self.target_divergence is None:
            return strength
        return adapt_strength(
            strength,
            metrics["policy/kl"],
            target=self.target_divergence,
            rate=self.strength_rate,
            low=self.min_strength,
            high=self.max_strength,
        )


@dataclass(frozen=True)
class SacConfig:
    """Soft actor-critic, the learner of RLPD and HIL-SERL (`baseline_losses.sac_loss`).

    Attributes:
        strength: Weight λ of the entropy per action dimension at the start of a stage.
        target_entropy: Entropy per action dimension that λ is adapted to hold; None keeps λ fixed. RLPD takes
            -0.5.
        strength_rate: Largest change of log λ per policy step while adapting.
        min_strength: Smallest adapted λ.
        max_strength: Largest adapted λ.
        type: Tells this configuration from the others.

    Raises:
        ConfigError: A value is out of range.
    """

    strength: float = 0.01
    target_entropy: float | None = -0.5
    strength_rate: float = 0.02
    min_strength: float = 1e-4
    max_strength: float = 10.0
    type: Literal["sac"] = "sac"

    policy_type: ClassVar[PolicyType] = SquashedPolicy
    imitates_demonstrations: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.strength:
            raise ConfigError(f"strength is {self.strength}; it must be 0 or more, 0.01 is usual")
        if (
            self.target_entropy is not None
            and not 0 < self.min_strength <= self.strength <= self.max_strength
        ):
            raise ConfigError(
                f"strength {self.strength} is outside [{self.min_strength}, {self.max_strength}]; widen "
                "min_strength and max_strength, which must be above 0"
            )
        if not 0 < self.strength_rate < 1:
            raise ConfigError(f"strength_rate is {self.strength_rate}; it must lie in (0, 1), 0.02 is usual")

    def adapted(self, strength: Tensor, metrics: Metrics) -> Tensor:
        """Return λ for the next step, given what the loss measured in this one."""
        if self.target_entropy is None:
            return strength
        return adapt_temperature(
            strength,
            metrics["policy/entropy"],
            target=self.target_entropy,
            rate=self.strength_rate,
            low=self.min_strength,
            high=self.max_strength,
        )


class _ConstantStrength:
    """Losses whose λ is not adapted."""

    def adapted(self, strength: Tensor, metrics: Metrics) -> Tensor:
        """Return λ, which stays."""
        return strength


@dataclass(frozen=True)
class Td3BcConfig(_ConstantStrength):
    """TD3+BC (`baseline_losses.td3_bc_loss`).

    Attributes:
        strength: Weight λ of the squared distance to recorded actions; the paper's α is 1 / λ.
        type: Tells this configuration from the others.

    Raises:
        ConfigError: The strength is negative.
    """

    strength: float = 0.4
    type: Literal["td3_bc"] = "td3_bc"

    policy_type: ClassVar[PolicyType] = DeterministicPolicy
    imitates_demonstrations: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ConfigError(f"strength is {self.strength}; it must be 0 or more, 0.4 is usual")


@dataclass(frozen=True)
class FqlConfig(_ConstantStrength):
    """Flow Q-learning (`baseline_losses.fql_loss`).

    Attributes:
        strength: Weight λ of the squared distance between student and teacher, per action dimension.
        type: Tells this configuration from the others.

    Raises:
        ConfigError: The strength is negative.
    """

    strength: float = 3.0
    type: Literal["fql"] = "fql"

    policy_type: ClassVar[PolicyType] = DistilledFlowPolicy
    imitates_demonstrations: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ConfigError(f"strength is {self.strength}; it must be 0 or more, 3 is usual")


@dataclass(frozen=True)
class CloningConfig(_ConstantStrength):
    """Imitation of all replayed chunks; improvement is left to best-of-N when acting.

    References: EMaQ (arXiv 2007.11091), section 4; with chunks and flow matching it is QC (arXiv 2507.07969).

    Attributes:
        type: Tells this configuration from the others.
    """

    type: Literal["cloning"] = "cloning"

    strength: ClassVar[float] = 0.0
    policy_type: ClassVar[PolicyType] = ChunkPolicy
    imitates_demonstrations: ClassVar[bool] = False


Improvement = ImprovementConfig | SacConfig | Td3BcConfig | FqlConfig | CloningConfig
"""What `OfflineConfig` and `OnlineConfig` choose from; the field `type` tells the members apart in files."""

PolicyT = TypeVar("PolicyT", bound=ChunkPolicy)


def check_policy(config: Improvement, policy: ChunkPolicy) -> None:
    """Raise `ConfigError` unless this kind of improvement can train this kind of policy."""
    _of_type(policy, config.policy_type, config)


def improvement_loss(
    config: Improvement,
    policy: ChunkPolicy,
    reference: ChunkPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    demonstrations: TensorBatch,
    *,
    strength: Tensor,
    how: Aggregation,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Return the loss of one policy step, with its metrics.

    Args:
        config: Which loss.
        policy: Policy to improve.
        reference: Frozen policy that anchors it, and proposes the chunks of `own_samples`.
        critic: Judge of chunks; gets no gradient from here.
        batch: Transitions to improve on.
        demonstrations: Transitions to imitate under the `nll` anchor.
        strength: λ, scalar.
        how: Aggregation of the critic's ensemble.
        generator: Source of noise on the device of the policy.

    Raises:
        ConfigError: The loss is not one for this kind of policy.
    """
    match config:
        case ImprovementConfig():
            return _anchored_loss(
                config,
                _of_type(policy, SquashedPolicy, config),
                _of_type(reference, SquashedPolicy, config),
                critic,
                batch,
                demonstrations,
                strength=strength,
                how=how,
                generator=generator,
            )
        case SacConfig():
            return baseline_losses.sac_loss(
                _of_type(policy, SquashedPolicy, config),
                critic,
                batch,
                strength=strength,
                how=how,
                generator=generator,
            )
        case Td3BcConfig():
            return baseline_losses.td3_bc_loss(
                _of_type(policy, DeterministicPolicy, config), critic, batch, strength=strength, how=how
            )
        case FqlConfig():
            return baseline_losses.fql_loss(
                _of_type(policy, DistilledFlowPolicy, config),
                critic,
                batch,
                strength=strength,
                how=how,
                generator=generator,
            )
        case CloningConfig():
            return losses.imitation_loss(policy, batch, generator=generator)


def _anchored_loss(
    config: ImprovementConfig,
    policy: SquashedPolicy,
    reference: SquashedPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    demonstrations: TensorBatch,
    *,
    strength: Tensor,
    how: Aggregation,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
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
            temperature=config.temperature,
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


def _of_type(policy: ChunkPolicy, kind: type[PolicyT], config: Improvement) -> PolicyT:
    if not isinstance(policy, kind):
        raise ConfigError(
            f"improvement of type '{config.type}' cannot train a {type(policy).__name__}, only a "
            f"{kind.__name__}; change policy.type or improvement.type"
        )
    return policy
