"""The gate at the end of a stage: is the new policy allowed to replace the best one so far?

Rule. A policy is promoted when its mean evaluation score is at least the best mean so far, unless both are 0
in every episode, where nothing tells them apart. A lower mean is never promoted, but the reason says whether
the decrease lies within the noise of the two evaluations: with standard errors `s` of the means, a difference
is within the interval when `|new - best| <= 1.96 * sqrt(s_new^2 + s_best^2)`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import DataError
from serfn.core.words import number


@dataclass(frozen=True)
class Score:
    """Mean evaluation score of a policy with its standard error.

    Attributes:
        mean: Mean over episodes; higher is better.
        standard_error: Standard deviation of that mean; 0 when there is a single episode.
        episodes: Number of episodes behind it.
    """

    mean: float
    standard_error: float
    episodes: int

    @classmethod
    def of(cls, scores: Sequence[float]) -> Score:
        """Summarise one score per episode.

        Raises:
            DataError: There are no scores or one of them is not finite.
        """
        if not scores:
            raise DataError("a gate needs at least one evaluation episode, got none")
        if not all(math.isfinite(score) for score in scores):
            raise DataError(f"evaluation scores must be finite, got {list(scores)}")
        error = statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0
        return cls(statistics.fmean(scores), error, len(scores))

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping that JSON can write."""
        return to_dict(self)


@dataclass(frozen=True)
class GateDecision:
    """What a gate decided about a policy, and why.

    Attributes:
        stage: Stage that asked.
        promoted: Whether the policy becomes the best one so far.
        reason: One sentence for the report.
        score: Mean score of the candidate, None for a rollback without an evaluation.
        best: Mean score of the best policy before the decision, None if there was none.
    """

    stage: str
    promoted: bool
    reason: str
    score: float | None
    best: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping that JSON can write."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, mapping: dict[str, Any]) -> GateDecision:
        """Inverse of `to_dict`."""
        return from_dict(cls, mapping)


def decide(stage: str, candidate: Score, best: Score | None) -> GateDecision:
    """Apply the rule of this module.

    Args:
        stage: Name of the stage that asks.
        candidate: Score of the policy at the end of the stage.
        best: Score of the best policy so far; None if this is the first evaluation.
    """
    if best is None:
        return GateDecision(stage, True, "first evaluated policy", candidate.mean, None)
    if candidate == best and candidate.mean == candidate.standard_error == 0:
        return GateDecision(
            stage, False, "0 in every episode, as the best so far: nothing to tell them apart by", 0.0, 0.0
        )
    difference = candidate.mean - best.mean
    noise = _noise(candidate, best)
    within = "within" if abs(difference) <= noise else "outside"
    change = (
        f"mean score {number(candidate.mean)} against {number(best.mean)}, {within} the 95% interval "
        f"(±{number(noise)})"
    )
    if difference >= 0:
        return GateDecision(
            stage, True, f"not worse than the best so far: {change}", candidate.mean, best.mean
        )
    return GateDecision(
        stage, False, f"worse than the best so far, which stays: {change}", candidate.mean, best.mean
    )


def clearly_worse(candidate: Score, best: Score, evaluations: int = 1) -> bool:
    """Return whether `candidate` is below `best` by more than the interval of their difference.

    The best of several evaluations is partly luck, and more so the more there were: the interval covers ``1 -
    0.05 / evaluations`` (Bonferroni).

    Args:
        candidate: Score of the policy in question.
        best: The highest score so far.
        evaluations: How many evaluations `best` is the highest of.
    """
    return best.mean - candidate.mean > _noise(candidate, best, evaluations)


def _noise(a: Score, b: Score, comparisons: int = 1) -> float:
    """Half the interval of the difference of two means, at ``1 - 0.05 / comparisons``."""
    quantile = statistics.NormalDist().inv_cdf(1 - 0.025 / comparisons)
    return quantile * math.hypot(a.standard_error, b.standard_error)
