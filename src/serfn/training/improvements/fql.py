"""Flow Q-learning: ascend the critic through a student of flow matching; notation as in `losses`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from serfn.critics.base import ChunkCritic
from serfn.policies.base import ChunkPolicy
from serfn.policies.distilled import DistilledFlowPolicy
from serfn.training.batch import TensorBatch
from serfn.training.improvements.base import ImprovementConfig, check_coefficient
from serfn.training.losses import Metrics, mean_magnitude, policy_values


@dataclass(frozen=True)
class FqlConfig(ImprovementConfig):
    """Flow Q-learning (`fql_loss`).

    Attributes:
        coefficient: Weight λ of the squared distance between student and teacher, per action dimension.

    Raises:
        ConfigError: The coefficient is negative.
    """

    policy_type: ClassVar[type[ChunkPolicy]] = DistilledFlowPolicy

    coefficient: float = 3.0

    def __post_init__(self) -> None:
        check_coefficient(self.coefficient, 3.0)

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
        """Return `fql_loss`, see `ImprovementConfig.loss`."""
        policy = self.required(policy, DistilledFlowPolicy)
        return fql_loss(policy, critic, batch, coefficient=coefficient, generator=generator)


def fql_loss(
    policy: DistilledFlowPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    *,
    coefficient: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Ascend the critic through the one-step student, held to its teacher, which imitates the batch.

    ``L = L_flow-matching(φ) - E_z[Q(s, μ(z; s))] / E|Q| + λ · E_z‖μ(z; s) - φ(z; s)‖² / D``.

    References: FQL (arXiv 2502.02538), Eqs. 6 and 8, with the normalised critic of its code; over chunks it
    is QC-FQL (arXiv 2507.07969), section 4.2.
    """
    imitation, metrics = policy.teacher.imitation_loss(
        batch.obs, batch.actions, batch.valid, generator=generator
    )
    actions, distances = policy.sample_with_distance(batch.obs, generator=generator)
    values = critic.value(batch.obs, actions)
    distance = distances.mean()
    loss = imitation - values.mean() / mean_magnitude(values) + coefficient * distance
    return loss, {
        **policy_values(values),
        **{f"policy/{name}": value for name, value in metrics.items()},
        "policy/distillation_mse": distance.detach(),
    }
