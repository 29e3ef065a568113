"""A critic and an improvement: linear values, and imitation weighted by the advantage (arXiv 1910.00177)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from serfn.critics.base import ChunkCritic, CriticConfig, EnsembleLinear
from serfn.critics.heads import ScalarHead
from serfn.policies.base import ChunkPolicy, LikelihoodPolicy
from serfn.training.batch import TensorBatch
from serfn.training.improvements.base import ImprovementConfig
from serfn.training.losses import Metrics

MOST_WEIGHT = 20.0


@dataclass(frozen=True)
class LinearCriticConfig(CriticConfig):
    """Configuration of a `LinearCritic`."""

    def build(
        self, obs_dim: int, action_dim: int, chunk_size: int, *, generator: torch.Generator
    ) -> ChunkCritic:
        """Return the critic with its initial weights."""
        critic = LinearCritic(
            obs_dim, action_dim, chunk_size, ensemble=2, head=ScalarHead(), aggregate=self.aggregate
        )
        inputs = obs_dim + chunk_size * action_dim
        critic.output = EnsembleLinear(2, inputs, 1, gain=0.1, generator=generator)
        return critic


class LinearCritic(ChunkCritic):
    """`Q = w · (obs, chunk) + b`, with zeros in place of the steps that do not count."""

    output: EnsembleLinear

    def forward(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return values [ensemble, batch, 1]."""
        x, chunks = self._read(obs, actions)
        if valid is not None:
            chunks = torch.where(valid.unsqueeze(-1), chunks, torch.zeros_like(chunks))
        return self.output(torch.cat([x, chunks.flatten(1)], dim=1).expand(self.ensemble, -1, -1))


@dataclass(frozen=True)
class WeightedConfig(ImprovementConfig):
    """Imitation of recorded chunks, weighted by exp(advantage / coefficient).

    Attributes:
        coefficient: the smaller, the less is imitated beside the best chunks.
    """

    policy_type: ClassVar[type[ChunkPolicy]] = LikelihoodPolicy

    coefficient: float = 0.1

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
        """Return the loss and the mean weight."""
        policy = self.required(policy, LikelihoodPolicy)
        with torch.no_grad():
            own = critic.value(batch.obs, policy.sample(batch.obs, generator=generator))
            advantage = critic.value(batch.obs, batch.actions, batch.valid) - own
            weight = (advantage / coefficient).exp().clamp(max=MOST_WEIGHT)
        loss = -(weight * policy.log_prob(batch.obs, batch.actions, batch.valid)).mean()
        return loss, {"policy/weight": weight.mean()}
