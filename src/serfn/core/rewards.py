"""What rewards look like, so that those of two sides can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from serfn.core.words import number

_SPARSE = 0.2
_DENSE = 0.5


@dataclass(frozen=True)
class RewardKind:
    """Range and sparsity of the rewards of some steps.

    Attributes:
        low: Smallest reward of a step.
        high: Largest reward of a step.
        paid: Share of the steps whose reward is not 0.
    """

    low: float
    high: float
    paid: float

    @classmethod
    def of(cls, rewards: Iterable[np.ndarray]) -> RewardKind:
        """Return the kind of the rewards `[T]` of several episodes, at least one step in all."""
        values = np.concatenate([np.asarray(item, np.float64) for item in rewards])
        return cls(float(values.min()), float(values.max()), float(np.mean(values != 0)))

    def agrees(self, other: RewardKind) -> bool:
        """Return whether both can be rewards of one task, seen by better and worse policies.

        They cannot if one is paid at few steps and the other at most of them, or if one is never negative and
        the other never positive while both are paid at most steps.
        """
        first, second = sorted((self, other), key=lambda kind: kind.paid)
        # Rewards that were never paid say nothing: a policy may have failed.
        if first.paid and first.paid <= _SPARSE and second.paid >= _DENSE:
            return False
        if first.paid < _DENSE:
            return True
        return not ((self.low >= 0 and other.high <= 0) or (self.high <= 0 and other.low >= 0))

    def __str__(self) -> str:
        return f"in [{number(self.low)}, {number(self.high)}] and not 0 at {self.paid:.0%} of the steps"
