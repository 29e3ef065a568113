"""The numbers of a study: one row per run, one row per method, and curves over all seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from serfn.core.seeding import generator
from serfn.reports.statistics import (
    Interval,
    mean_t_interval,
    paired_interval,
    probability_of_improvement,
    stratified_bootstrap_interval,
    wilson_interval,
)
from serfn.reports.study.curves import (
    Axis,
    Reach,
    first_reach,
    mean_height,
    median_reach,
    on_grid,
    worst_dip,
)
from serfn.reports.study.record import StudyRecord, StudyRunRecord

Outcome = Literal["ahead", "behind", "open"]
"""Where the reference stands: ahead or behind if the 95% interval of the paired difference excludes 0."""

_GRID_POINTS = 41
_CURVE_RESAMPLES = 1000


@dataclass(frozen=True)
class RunRow:
    """One run in numbers; the columns of `runs.csv`. Missing values are None."""

    task: str
    method: str
    seed: int
    outcome: str
    final: float
    imitation: float
    evaluation_episodes: int
    successes: int | None
    area_minutes: float
    area_episodes: float
    threshold: float | None
    reached: bool | None
    reach_minutes: float | None
    reach_episodes: float | None
    worst_dip: float
    robot_minutes: float
    online_episodes: int
    environment_steps: int
    updates: int
    policy_parameters: int
    critic_parameters: int
    seconds: float
    seconds_imitation: float
    nll_imitation: float | None
    nll: float | None
    coverage_imitation: float | None
    coverage: float | None


@dataclass(frozen=True)
class MethodRow:
    """One method on one task; the columns of `methods.csv`, each interval as mean, low, high and n.

    Attributes:
        task: Task.
        method: Method.
        seeds: Seeds whose runs are done.
        score: Interquartile mean of the final scores, bootstrapped over seeds.
        success: Successful evaluation episodes of all seeds, Wilson's interval; None where the task does not
            tell.
        area: Interquartile mean of the mean score while adapting, over robot minutes.
        lead: Reference minus this method in final score, paired on equal seeds; None for the reference.
        area_lead: The same of the mean score while adapting.
        better: Probability that a run of the reference beats one of this method; None for the reference.
        dip: Mean over seeds of the worst dip below imitation.
        deepest_dip: Worst dip of all seeds.
        reached: Seeds that reached the threshold; None without one.
        reach_minutes: Median robot minutes to the threshold under censoring, infinite if half never did.
        reach_episodes: The same in episodes.
        outcome: Where the reference stands against this method.
    """

    task: str
    method: str
    seeds: int
    score: Interval
    success: Interval | None
    area: Interval
    lead: Interval | None
    area_lead: Interval | None
    better: Interval | None
    dip: float
    deepest_dip: float
    reached: int | None
    reach_minutes: float | None
    reach_episodes: float | None
    outcome: Outcome


@dataclass(frozen=True)
class CurveBand:
    """Curves of a method's seeds as one: interquartile mean and 95% bootstrap interval at each point."""

    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def run_rows(record: StudyRecord) -> list[RunRow]:
    """Return one row per evaluated run, in the order of tasks, methods and seeds."""
    return [
        _run_row(record, run)
        for task in record.tasks
        for method in record.methods
        for run in record.of(task, method)
    ]


def method_rows(record: StudyRecord, rows: Sequence[RunRow]) -> list[MethodRow]:
    """Return one row per task and method with at least one evaluated run."""
    groups: dict[tuple[str, str], list[RunRow]] = {}
    for row in rows:
        groups.setdefault((row.task, row.method), []).append(row)
    return [
        _method_row(task, method, group, groups.get((task, record.reference), []), record.reference)
        for (task, method), group in groups.items()
    ]


def overall_better(record: StudyRecord, rows: Sequence[RunRow]) -> dict[str, Interval]:
    """Return, per method, the probability that the reference is better, averaged over the tasks of both.

    Tasks are the strata of the bootstrap; scores of different tasks are never compared.
    """
    result = {}
    for method in record.methods:
        if method == record.reference:
            continue
        pairs = [
            (_finals(rows, task, record.reference), _finals(rows, task, method)) for task in record.tasks
        ]
        pairs = [pair for pair in pairs if all(pair)]
        if pairs:
            ours, others = zip(*pairs, strict=True)
            rng = generator(0, "study", "overall", method)
            result[method] = probability_of_improvement(ours, others, rng=rng)
    return result


def curve_band(record: StudyRecord, task: str, method: str, axis: Axis) -> CurveBand | None:
    """Return the curves of all seeds of a method as a band, or None if there are none."""
    curves = [run.curve for run in record.of(task, method) if run.curve is not None]
    if not curves:
        return None
    x = np.linspace(0.0, record.budget(task, axis), _GRID_POINTS)
    heights = np.stack([on_grid(curve.along(axis), curve.scores, x) for curve in curves], axis=1)
    # The same resamples at every point, so that the band has no ripple of its own.
    intervals = [
        stratified_bootstrap_interval(
            [column], rng=generator(0, "study", task, method, "curve"), n_boot=_CURVE_RESAMPLES
        )
        for column in heights
    ]
    middle, low, high = (
        np.array([getattr(interval, name) for interval in intervals]) for name in ("mean", "low", "high")
    )
    return CurveBand(x, middle, low, high, len(curves))


def _run_row(record: StudyRecord, run: StudyRunRecord) -> RunRow:
    final, curve, measures = run.final, run.curve, run.measures
    if final is None or curve is None:
        raise ValueError(f"run {run.run.folder} has no evaluation; ask StudyRecord.of for those that have")
    axes: tuple[Axis, ...] = ("minutes", "episodes")
    ends: dict[Axis, float] = {axis: record.budget(run.task, axis) for axis in axes}
    threshold = record.tasks[run.task].threshold
    reaches: dict[Axis, Reach | None] = {
        axis: None if threshold is None else first_reach(curve.along(axis), curve.scores, threshold, end)
        for axis, end in ends.items()
    }
    known = [success for success in final.successes if success is not None]
    imitated = run.imitated
    seconds = run.seconds
    return RunRow(
        task=run.task,
        method=run.method,
        seed=run.seed,
        outcome=measures.outcome,
        final=final.mean_score,
        imitation=curve.imitation,
        evaluation_episodes=final.episodes,
        successes=sum(known) if len(known) == final.episodes else None,
        area_minutes=mean_height(curve.minutes, curve.scores, ends["minutes"]),
        area_episodes=mean_height(curve.episodes, curve.scores, ends["episodes"]),
        threshold=threshold,
        reached=None if reaches["minutes"] is None else reaches["minutes"].reached,
        reach_minutes=None if reaches["minutes"] is None else reaches["minutes"].at,
        reach_episodes=None if reaches["episodes"] is None else reaches["episodes"].at,
        worst_dip=worst_dip(run.run),
        robot_minutes=float(run.run.status.get("robot_minutes", 0.0)),
        online_episodes=int(run.run.status.get("episodes", 0)),
        environment_steps=run.environment_steps,
        updates=int(run.run.status.get("updates", 0)),
        policy_parameters=measures.policy_parameters,
        critic_parameters=measures.critic_parameters,
        seconds=sum(seconds.values()),
        seconds_imitation=seconds.get("imitation", 0.0),
        nll_imitation=None if imitated is None else imitated.nll,
        nll=measures.nll,
        coverage_imitation=None if imitated is None or imitated.ways is None else imitated.ways.coverage,
        coverage=None if measures.ways is None else measures.ways.coverage,
    )


def _method_row(
    task: str, method: str, group: Sequence[RunRow], reference: Sequence[RunRow], name: str
) -> MethodRow:
    def over_seeds(values: Sequence[float], what: str) -> Interval:
        return stratified_bootstrap_interval([values], rng=generator(0, "study", task, method, what))

    pairs = [] if method == name else [(a, b) for a in reference for b in group if a.seed == b.seed]
    lead = paired_interval([a.final for a, _ in pairs], [b.final for _, b in pairs]) if pairs else None
    area_lead = (
        paired_interval([a.area_minutes for a, _ in pairs], [b.area_minutes for _, b in pairs])
        if pairs
        else None
    )
    better = (
        probability_of_improvement(
            [[row.final for row in reference]],
            [[row.final for row in group]],
            rng=generator(0, "study", task, method, "better"),
        )
        if method != name and reference
        else None
    )
    counted = [row for row in group if row.successes is not None]
    thresholds = group[0].threshold is not None
    return MethodRow(
        task=task,
        method=method,
        seeds=len(group),
        score=over_seeds([row.final for row in group], "score"),
        success=wilson_interval(
            sum(row.successes or 0 for row in counted), sum(row.evaluation_episodes for row in counted)
        )
        if counted
        else None,
        area=over_seeds([row.area_minutes for row in group], "area"),
        lead=lead,
        area_lead=area_lead,
        better=better,
        dip=mean_t_interval([row.worst_dip for row in group]).mean,
        deepest_dip=min(row.worst_dip for row in group),
        reached=sum(bool(row.reached) for row in group) if thresholds else None,
        reach_minutes=_median(group, "reach_minutes") if thresholds else None,
        reach_episodes=_median(group, "reach_episodes") if thresholds else None,
        outcome=_outcome(lead),
    )


def _outcome(lead: Interval | None) -> Outcome:
    if lead is None or not math.isfinite(lead.low):
        return "open"
    return "ahead" if lead.low > 0 else "behind" if lead.high < 0 else "open"


def _median(group: Sequence[RunRow], column: str) -> float:
    return median_reach([Reach(getattr(row, column), bool(row.reached)) for row in group])


def _finals(rows: Sequence[RunRow], task: str, method: str) -> list[float]:
    return [row.final for row in rows if (row.task, row.method) == (task, method)]
