"""Does the critic's choice among candidates help on this robot? Asked of the robot's own episodes.

A critic of demonstrations from another system may rank chunks no better than chance, and then the best of N
is worse than one sample: it picks what the critic is most wrong about. So episodes of both kinds are
collected side by side, and the kind that earns more gets more of them (Thompson 1933, "On the likelihood that
one unknown probability exceeds another", by its posterior probability instead of a draw).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from serfn.data.episode import Episode, evaluation_result

SCORE = "score"
"""Metric of an episode by which the task ranks policies; without it success counts, else the return."""

WINDOW = 4
"""Rounds that count: policy and critic change, so that what was better once need not be so now."""


@dataclass(frozen=True)
class Trial:
    """Scores of the episodes of one round.

    Attributes:
        one: Of those that acted with one sample.
        best: Of those that acted with the critic's choice.
    """

    one: tuple[float, ...]
    best: tuple[float, ...]


@dataclass(frozen=True)
class Gain:
    """What the critic's choice is worth per episode, with its standard error."""

    mean: float
    standard_error: float

    @property
    def probability(self) -> float:
        """Probability that the choice helps, for a normal error."""
        if self.standard_error == 0:
            return 0.5 if self.mean == 0 else float(self.mean > 0)
        return 0.5 * (1 + math.erf(self.mean / self.standard_error / math.sqrt(2)))


def gain_of_choice(trials: Sequence[Trial]) -> Gain | None:
    """Return what the last `WINDOW` rounds say; None before there are two episodes of each kind."""
    one = [score for trial in trials[-WINDOW:] for score in trial.one]
    best = [score for trial in trials[-WINDOW:] for score in trial.best]
    if len(one) < 2 or len(best) < 2:
        return None
    error = math.sqrt(statistics.variance(one) / len(one) + statistics.variance(best) / len(best))
    return Gain(statistics.fmean(best) - statistics.fmean(one), error)


def share_of_choice(gain: Gain | None, episodes: int) -> int:
    """Return how many of the next `episodes` act with the critic's choice; at least one of each kind.

    A single episode goes to the likelier kind.
    """
    probability = 0.5 if gain is None else gain.probability
    if episodes == 1:
        return int(probability > 0.5)
    return min(max(round(episodes * probability), 1), episodes - 1)


def scores_of(episodes: Sequence[Episode]) -> tuple[float, ...]:
    """Return one score per episode, by the rule of evaluations; empty for no episodes."""
    if not episodes:
        return ()
    scored = all(SCORE in episode.metrics for episode in episodes)
    # The rate does not matter for scores.
    return evaluation_result(episodes, 1.0, SCORE if scored else None).scores
