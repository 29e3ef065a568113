"""Soft actor-critic, the learner of RLPD and HIL-SERL; notation as in `losses`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from serfn.critics.base import ChunkCritic
from serfn.policies.base import ChunkPolicy
from serfn.policies.squashed import SquashedPolicy
from serfn.training.batch import TensorBatch
from serfn.training.coefficient import adapt_temperature
from serfn.training.improvements.base import ImprovementConfig, check_adapted, check_coefficient
from serfn.training.losses import Metrics, policy_values

_RATE, _LOW, _HIGH = 0.02, 1e-4, 10.0
"""Largest change of log λ per policy step while it adapts, and its bounds."""


@dataclass(frozen=True)
class SacConfig(ImprovementConfig):
    """Soft actor-critic (`sac_loss`).

    Attributes:
        coefficient: Weight λ of the entropy per action dimension at the start of a stage.
        target_entropy: Entropy per action dimension that λ is adapted to hold; None keeps λ fixed. RLPD takes
            -0.5.

    Raises:
        ConfigError: A value is out of range.
    """

    policy_type: ClassVar[type[ChunkPolicy]] = SquashedPolicy

    coefficient: float = 0.01
    target_entropy: float | None = -0.5

    def __post_init__(self) -> None:
        check_coefficient(self.coefficient, 0.01)
        if self.target_entropy is not None:
            check_adapted(self.coefficient, _LOW, _HIGH)

    def adapted(self, coefficient: Tensor, metrics: Metrics) -> Tensor:
        """Return λ for the next step, moved towards what holds the target entropy."""
        if self.target_entropy is None:
            return coefficient
        return adapt_temperature(
            coefficient,
            metrics["policy/entropy"],
            target=self.target_entropy,
            rate=_RATE,
            low=_LOW,
            high=_HIGH,
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
        """Return `sac_loss`, see `ImprovementConfig.loss`."""
        policy = self.required(policy, SquashedPolicy)
        return sac_loss(policy, critic, batch, coefficient=coefficient, generator=generator)


def sac_loss(
    policy: SquashedPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    *,
    coefficient: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Maximise value and entropy.

    ``L = E_a[λ · log π(a | s) / D - Q(s, a)]``, ``a ~ π``; the paper's temperature is α = λ / D.

    Reference: SAC (arXiv 1812.05905), Eq. 7; with demonstrations and LayerNorm critics it is RLPD (arXiv
    2302.02948).
    """
    actions, log_prob = policy.rsample_and_log_prob(batch.obs, generator=generator)
    values = critic.value(batch.obs, actions)
    entropy = -log_prob.mean() / actions[0].numel()
    return -coefficient * entropy - values.mean(), {
        **policy_values(values),
        "policy/entropy": entropy.detach(),
    }
