"""Behaviour cloning of all replayed chunks; improvement is left to best-of-N when acting."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from serfn.critics.base import ChunkCritic
from serfn.policies.base import ChunkPolicy
from serfn.training.batch import TensorBatch
from serfn.training.improvements.base import ImprovementConfig
from serfn.training.losses import Metrics, imitation_loss


@dataclass(frozen=True)
class BcConfig(ImprovementConfig):
    """Imitation of the batch.

    References: EMaQ (arXiv 2007.11091), section 4; with chunks and flow matching it is QC (arXiv 2507.07969).
    """

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
        """Return the imitation loss of `batch`, see `ImprovementConfig.loss`; it has no coefficient."""
        return imitation_loss(policy, batch, generator=generator)
