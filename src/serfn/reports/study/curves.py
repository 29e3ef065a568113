"""What a curve of evaluations during adaptation says: its area, time to a threshold, worst dip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from serfn.reports.run_record import RunRecord

Axis = Literal["minutes", "episodes"]


@dataclass(frozen=True)
class AdaptationCurve:
    """Mean score of the evaluations of one run, against the robot's experience.

    The first point, at zero experience, is the policy that enters the online stage. Where a stage is
    evaluated twice at the same experience, the final evaluation counts: it has more episodes and fresh
    starts.

    Attributes:
        minutes: Robot time of each evaluation, in minutes.
        episodes: Online episodes before each evaluation.
        scores: Mean score of each evaluation.
        imitation: Mean score after imitation.
    """

    minutes: tuple[float, ...]
    episodes: tuple[float, ...]
    scores: tuple[float, ...]
    imitation: float

    def along(self, axis: Axis) -> tuple[float, ...]:
        """Return the experience of each evaluation, in minutes or in episodes."""
        return self.minutes if axis == "minutes" else self.episodes


@dataclass(frozen=True)
class Reach:
    """When a curve reached a threshold.

    Attributes:
        at: Experience of the first evaluation at or above the threshold, or where the observation ended.
        reached: Whether it did; False means censored: not before `at`.
    """

    at: float
    reached: bool


def adaptation_curve(record: RunRecord) -> AdaptationCurve | None:
    """Return the curve of a run, or None before its first final evaluation."""
    finals = {point.stage: point for point in record.finals()}
    before = finals.get("offline", finals.get("imitation"))
    if before is None:
        return None
    points = {(0.0, 0): before.result.mean_score}
    online = [point for point in record.evaluations if point.stage == "online"]
    for point in sorted(online, key=lambda point: (point.episodes, point.final)):
        points[point.robot_minutes, point.episodes] = point.result.mean_score
    minutes, episodes = zip(*points, strict=True)
    imitation = finals.get("imitation", before).result.mean_score
    return AdaptationCurve(minutes, tuple(map(float, episodes)), tuple(points.values()), imitation)


def mean_height(x: Sequence[float], y: Sequence[float], until: float) -> float:
    r"""Area under a curve over [0, until], divided by `until`: the mean score while adapting.

    Straight lines join the points (trapezoids); after its last point a curve stays where it is, so that a
    method that does not learn online counts with its one score.

    >>> mean_height([0, 10, 20], [0, 1, 1], 20)
    0.75

    Raises:
        ValueError: `x` does not start at 0 or does not grow, or `until` is negative.
    """
    knots, heights = _checked(x, y)
    if until < 0:
        raise ValueError(f"until is {until}; give the end of the budget, 0 or more")
    if until == 0:
        return float(heights[0])
    grid = np.unique(np.append(knots[knots < until], [0.0, until]))
    values = np.interp(grid, knots, heights)
    return float(np.sum(np.diff(grid) * (values[1:] + values[:-1]) / 2) / until)


def first_reach(x: Sequence[float], y: Sequence[float], threshold: float, until: float) -> Reach:
    """Return when a curve is first evaluated at or above `threshold` within [0, until].

    There is no interpolation between evaluations: what nobody measured has not been reached.
    """
    knots, heights = _checked(x, y)
    hits = knots[(heights >= threshold) & (knots <= until)]
    return Reach(float(hits[0]), True) if hits.size else Reach(float(until), False)


def median_reach(reaches: Sequence[Reach]) -> float:
    """Return the median time to a threshold under censoring, infinite where half of the runs never get there.

    It is the smallest time at which the Kaplan-Meier estimate of the fraction of runs still below the
    threshold is at most one half (Kaplan and Meier 1958).

    Raises:
        ValueError: There are no runs.
    """
    if not reaches:
        raise ValueError("got no runs; the time to a threshold needs at least one")
    below = 1.0
    for time in sorted({reach.at for reach in reaches if reach.reached}):
        at_risk = sum(reach.at >= time for reach in reaches)
        events = sum(reach.reached and reach.at == time for reach in reaches)
        below *= 1 - events / at_risk
        # Products of fractions such as 2/3 · 3/4 may miss one half by a rounding error.
        if below <= 0.5 + 1e-12:
            return time
    return math.inf


def worst_dip(record: RunRecord) -> float:
    """Return how far the lowest evaluation after imitation lies below it, at most 0: 0 means never below.

    Each is compared with imitation with the same seeds: final with final evaluation, and interim ones
    with the one that imitation has on theirs. A run that lacks the latter compares with its final one. The
    final evaluation of the offline stage counts too: the online stage begins with what it left.
    """
    finals = {point.stage: point for point in record.finals()}
    on_its_way, way = record.interim()
    closing = finals.get("imitation")
    if closing is None:
        return 0.0
    pairs = [(point, on_its_way or closing) for point in way]
    pairs += [(finals[stage], closing) for stage in ("offline", "online") if stage in finals]
    return min([0.0, *(a.result.mean_score - b.result.mean_score for a, b in pairs)])


def on_grid(x: Sequence[float], y: Sequence[float], grid: np.ndarray) -> np.ndarray:
    """Return the curve's heights on `grid`: straight between its points, constant after the last."""
    knots, heights = _checked(x, y)
    return np.interp(grid, knots, heights)


def _checked(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    knots, heights = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if knots.size == 0 or knots.size != heights.size or knots[0] != 0 or (np.diff(knots) < 0).any():
        raise ValueError(
            f"a curve has {heights.size} heights at {knots.tolist()}; it must start at 0 and not go back"
        )
    return knots, heights
