"""The outcome of an evaluation, one entry per episode."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import DataError


@dataclass(frozen=True)
class EvaluationResult:
    """Outcome of a set of evaluation episodes, in the order in which they were seeded.

    Args:
        returns: Undiscounted sum of rewards of each episode.
        successes: Whether each episode succeeded; None where the task does not say.
        lengths: Control steps of each episode.
        scores: The number by which the task ranks policies, higher is better (such as revolutions per
            minute).
        metrics: Further numbers of the task, each with one value per episode.
        control_hz: Control steps per second.
        aborted: Episodes that the environment's own code cut short; they are in no column.

    Raises:
        DataError: There are no episodes or the lengths of the columns differ.
    """

    returns: tuple[float, ...]
    successes: tuple[bool | None, ...]
    lengths: tuple[int, ...]
    scores: tuple[float, ...]
    metrics: dict[str, tuple[float, ...]]
    control_hz: float
    aborted: int = 0

    def __post_init__(self) -> None:
        if not self.returns:
            raise DataError("an evaluation needs at least one episode, got 0")
        columns = {
            "successes": self.successes,
            "lengths": self.lengths,
            "scores": self.scores,
            **self.metrics,
        }
        for name, column in columns.items():
            if len(column) != len(self.returns):
                raise DataError(
                    f"evaluation column '{name}' has {len(column)} values for {len(self.returns)} episodes"
                )

    @property
    def episodes(self) -> int:
        """Number of episodes that ended."""
        return len(self.returns)

    @property
    def minutes(self) -> float:
        """Time on the robot of all episodes together."""
        return sum(self.lengths) / self.control_hz / 60

    @property
    def mean_score(self) -> float:
        """Mean score over the episodes."""
        return statistics.fmean(self.scores)

    @property
    def success_rate(self) -> float | None:
        """Fraction of successes among the episodes whose outcome is known; None if there are none."""
        known = [success for success in self.successes if success is not None]
        return sum(known) / len(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping that JSON can write."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> EvaluationResult:
        """Inverse of `to_dict`; strict, see `serfn.core.config.from_dict`."""
        return from_dict(cls, mapping)
