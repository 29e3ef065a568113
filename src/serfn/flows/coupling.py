"""Coupling layers: part of a chunk is transformed elementwise, conditioned on the part left untouched.

Reference: Dinh et al., arXiv 1605.08803, section 3.2. `forward` maps base → data. Log-determinants are per
step, [..., chunk]; causal conditioners make the Jacobian block lower triangular in time, so that the sum over
a prefix of steps is the log-determinant of the map restricted to that prefix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from serfn.flows.conditioners import CausalMLP
from serfn.flows.transforms import ElementwiseTransform

Elementwise: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

INPUT_LIMIT = 5.0
"""Conditioners see at most this many standard deviations: |z| on foreign chunks stays far smaller."""


class Coupling(nn.Module, ABC):
    """A conditioner and an elementwise transform; subclasses choose which elements are active."""

    def __init__(self, transform: ElementwiseTransform, conditioner: CausalMLP) -> None:
        super().__init__()
        self.transform = transform
        self.conditioner = conditioner

    def condition(self, context: Tensor) -> Tensor:
        """Project the context [..., context] for this layer."""
        return self.conditioner.condition(context)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Base → data: `(y [..., chunk, action], log_det [..., chunk])`."""
        return self._apply_to_active(x, condition, self.transform.forward)

    def inverse(self, y: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Data → base: `(x [..., chunk, action], log_det [..., chunk])`."""
        return self._apply_to_active(y, condition, self.transform.inverse)

    def _predict(self, passive: Tensor, condition: Tensor) -> Tensor:
        """Raw parameters from softly clipped passive elements: the conditioner does not extrapolate."""
        return self.conditioner(INPUT_LIMIT * torch.tanh(passive / INPUT_LIMIT), condition)

    @abstractmethod
    def _apply_to_active(
        self, x: Tensor, condition: Tensor, elementwise: Elementwise
    ) -> tuple[Tensor, Tensor]: ...


class ActionCoupling(Coupling):
    """Splits the action dimensions of every step into passive and active ones."""

    passive_index: Tensor
    active_index: Tensor
    order: Tensor

    def __init__(
        self, transform: ElementwiseTransform, conditioner: CausalMLP, passive: Tensor, active: Tensor
    ) -> None:
        super().__init__(transform, conditioner)
        self.register_buffer("passive_index", passive, persistent=False)
        self.register_buffer("active_index", active, persistent=False)
        self.register_buffer("order", torch.cat([passive, active]).argsort(), persistent=False)

    def _apply_to_active(
        self, x: Tensor, condition: Tensor, elementwise: Elementwise
    ) -> tuple[Tensor, Tensor]:
        passive = x.index_select(-1, self.passive_index)
        active = x.index_select(-1, self.active_index)
        active, log_det = elementwise(active, self._predict(passive, condition))
        return torch.cat([passive, active], dim=-1).index_select(-1, self.order), log_det.sum(-1)


class TimeCoupling(Coupling):
    """Splits the steps: those of one parity are active, conditioned on earlier steps of the other.

    This is what a single action dimension leaves to split. Step 0 is conditioned on the context alone.
    """

    active_steps: Tensor

    def __init__(
        self, transform: ElementwiseTransform, conditioner: CausalMLP, chunk_size: int, parity: int
    ) -> None:
        super().__init__(transform, conditioner)
        active = (torch.arange(chunk_size) % 2 == parity).unsqueeze(-1)
        self.register_buffer("active_steps", active, persistent=False)

    def _apply_to_active(
        self, x: Tensor, condition: Tensor, elementwise: Elementwise
    ) -> tuple[Tensor, Tensor]:
        raw = self._predict(torch.where(self.active_steps, torch.zeros_like(x), x), condition)
        y, log_det = elementwise(x, raw)
        kept = torch.where(self.active_steps, log_det, torch.zeros_like(log_det))
        return torch.where(self.active_steps, y, x), kept.sum(-1)
