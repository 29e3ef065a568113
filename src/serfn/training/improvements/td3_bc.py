"""TD3+BC: ascend the critic close to recorded actions; notation as in `losses`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from serfn.critics.base import ChunkCritic
from serfn.policies.base import ChunkPolicy
from serfn.policies.deterministic import DeterministicPolicy
from serfn.training.batch import TensorBatch
from serfn.training.improvements.base import ImprovementConfig, check_coefficient
from serfn.training.losses import Metrics, mean_magnitude, policy_values


@dataclass(frozen=True)
class Td3BcConfig(ImprovementConfig):
    """TD3+BC (`td3_bc_loss`).

    Attributes:
        coefficient: Weight λ of the squared distance to recorded actions; the paper's α is 1 / λ.

    Raises:
        ConfigError: The coefficient is negative.
    """

    policy_type: ClassVar[type[ChunkPolicy]] = DeterministicPolicy

    coefficient: float = 0.4

    def __post_init__(self) -> None:
        check_coefficient(self.coefficient, 0.4)

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
        """Return `td3_bc_loss`, see `ImprovementConfig.loss`; it draws no noise."""
        policy = self.required(policy, DeterministicPolicy)
        return td3_bc_loss(policy, critic, batch, coefficient=coefficient)


def td3_bc_loss(
    policy: DeterministicPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    *,
    coefficient: Tensor,
) -> tuple[Tensor, Metrics]:
    """Ascend the critic, held to the recorded actions by their squared distance.

    ``L = -E_s[Q(s, π(s))] / E|Q| + λ · E[(π(s) - a)²]``, the mean over valid action dimensions; the paper's
    weight of the critic is α = 1 / λ (2.5 there).

    References: TD3+BC (arXiv 2106.06860), Eqs. 3 and 5; ReBRAC (arXiv 2305.09836), Eq. 4.
    """
    actions = policy.mean(batch.obs)
    values = critic.value(batch.obs, actions)
    mask = batch.valid.unsqueeze(-1)
    squares = torch.where(mask, (actions - batch.actions).square(), torch.zeros_like(actions))
    distance = squares.sum() / (mask.sum() * policy.action_dim)
    loss = -values.mean() / mean_magnitude(values) + coefficient * distance
    return loss, {**policy_values(values), "policy/action_mse": distance.detach()}
