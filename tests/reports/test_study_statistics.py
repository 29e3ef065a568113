from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from serfn.core.results import EvaluationResult
from serfn.reports.run_record import EvaluationPoint, RunRecord
from serfn.reports.statistics import (
    interquartile_mean,
    paired_interval,
    probability_of_improvement,
    stratified_bootstrap_interval,
)
from serfn.reports.study.curves import Reach, first_reach, mean_height, median_reach, on_grid, worst_dip

pytestmark = pytest.mark.slow

scores = st.lists(st.floats(-10, 10), min_size=2, max_size=9)


@settings(deadline=None)
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_interquartile_mean_is_scipys_trimmed_mean(values: list[float]) -> None:
    reference = scipy.stats.trim_mean(values, 0.25)
    assert float(interquartile_mean(values)) == pytest.approx(reference, rel=1e-9, abs=1e-9)


def test_interquartile_mean_by_hand() -> None:
    # Eight values: two are cut off at either end.
    assert float(interquartile_mean([9, 1, 5, 4, 3, 100, -7, 6])) == (3 + 4 + 5 + 6) / 4


def test_stratified_bootstrap_agrees_with_scipy_on_one_task() -> None:
    sample = np.random.default_rng(1).normal(size=20)
    ours = stratified_bootstrap_interval([sample], rng=np.random.default_rng(2), n_boot=4000)
    reference = scipy.stats.bootstrap(
        (sample,),
        lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis=axis),
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert ours.mean == pytest.approx(scipy.stats.trim_mean(sample, 0.25))
    assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high), abs=0.06)


def test_bootstrap_resamples_within_each_task() -> None:
    # Runs of a task agree perfectly: nothing is left to chance, although tasks differ a lot.
    interval = stratified_bootstrap_interval([[0.0] * 3, [10.0] * 3], np.mean, rng=np.random.default_rng(0))
    assert (interval.mean, interval.low, interval.high, interval.n) == (5, 5, 5, 6)


def test_one_run_of_a_task_says_nothing_about_the_spread() -> None:
    interval = stratified_bootstrap_interval([[1.0], [2.0, 3.0]], rng=np.random.default_rng(0))
    assert (interval.low, interval.high) == (-math.inf, math.inf)
    better = probability_of_improvement([[1.0]], [[0.0]], rng=np.random.default_rng(0))
    assert (better.mean, better.low, better.high) == (1, 0, 1)


@settings(deadline=None)
@given(a=scores, b=scores)
def test_probability_of_improvement_is_the_mann_whitney_statistic(a: list[float], b: list[float]) -> None:
    ours = probability_of_improvement([a], [b], rng=np.random.default_rng(0), n_boot=50)
    u = scipy.stats.mannwhitneyu(a, b).statistic
    assert ours.mean == pytest.approx(u / (len(a) * len(b)))
    assert 0 <= ours.low <= ours.high <= 1


def test_probability_of_improvement_by_hand() -> None:
    # First task: 2 beats 1, ties with 2, and 0 loses twice: (1 + .5) / 4. Second: always better.
    ours = probability_of_improvement([[2, 0], [5, 6]], [[1, 2], [3, 4]], rng=np.random.default_rng(0))
    assert ours.mean == pytest.approx((1.5 / 4 + 1) / 2)
    assert ours.n == 4


def test_paired_interval_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 5, 7)
    a, b = shared + rng.normal(1, 0.3, 7), shared + rng.normal(0, 0.3, 7)
    reference = scipy.stats.ttest_rel(a, b).confidence_interval()
    ours = paired_interval(a, b)
    assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high))
    assert ours.low > 0, "what the seeds share cancels"
    assert paired_interval([2.0], [1.0]).low == -math.inf


def test_area_by_hand() -> None:
    # 0..10 rises 0 -> 1 (area 5), 10..20 stays at 1 (area 10), then it is held until 40 (area 20).
    assert mean_height([0, 10, 20], [0, 1, 1], 40) == pytest.approx(35 / 40)
    # A budget that ends between two evaluations cuts the trapezoid.
    assert mean_height([0, 10], [0, 1], 5) == pytest.approx(0.25)
    assert mean_height([0.0], [0.4], 0) == mean_height([0.0], [0.4], 30) == pytest.approx(0.4)


@settings(deadline=None)
@given(
    steps=st.lists(st.floats(0.1, 5), min_size=1, max_size=8), heights=st.lists(st.floats(-5, 5), min_size=9)
)
def test_area_agrees_with_the_trapezoid_rule(steps: list[float], heights: list[float]) -> None:
    x = np.concatenate([[0.0], np.cumsum(steps)])
    y = np.array(heights[: len(x)])
    assert mean_height(x.tolist(), y.tolist(), x[-1]) == pytest.approx(np.trapezoid(y, x) / x[-1], abs=1e-9)


def test_reaching_a_threshold_is_measured_not_interpolated() -> None:
    x, y = [0, 10, 20, 30], [0.2, 0.5, 0.9, 0.3]
    assert first_reach(x, y, 0.6, 30) == Reach(20, True)
    assert first_reach(x, y, 0.95, 30) == Reach(30, False)
    assert first_reach(x, y, 0.6, 15) == Reach(15, False)
    assert first_reach(x, y, 0.1, 30) == Reach(0, True)


def test_median_under_censoring_by_hand() -> None:
    # At risk 5, 4, 2: survival 4/5, 3/5, then 3/10 at 8, as one run was censored at 6.
    reaches = [Reach(2, True), Reach(4, True), Reach(6, False), Reach(8, True), Reach(10, False)]
    assert median_reach(reaches) == 8
    assert median_reach([Reach(2, True), Reach(4, True), Reach(9, False), Reach(9, False)]) == 4
    assert median_reach([Reach(2, True), Reach(9, False), Reach(9, False)]) == math.inf


@settings(deadline=None)
@given(
    times=st.lists(st.integers(1, 12), min_size=1, max_size=9),
    reached=st.lists(st.booleans(), min_size=9, max_size=9),
)
def test_median_agrees_with_scipys_survival_function(times: list[int], reached: list[bool]) -> None:
    reaches = [Reach(float(time), hit) for time, hit in zip(times, reached, strict=False)]
    data = scipy.stats.CensoredData(
        uncensored=[reach.at for reach in reaches if reach.reached],
        right=[reach.at for reach in reaches if not reach.reached],
    )
    survival = scipy.stats.ecdf(data).sf
    below = [at for at, p in zip(survival.quantiles, survival.probabilities, strict=True) if p <= 0.5 + 1e-12]
    assert median_reach(reaches) == (below[0] if below else math.inf)


def evaluated(stage: str, score: float, *, final: bool) -> EvaluationPoint:
    return EvaluationPoint(
        stage, final, 0, 0.0, 0, {}, EvaluationResult((score,), (None,), (1,), (score,), {}, 1.0)
    )


@pytest.mark.parametrize(
    ("imitation_interim", "interim", "final", "dip"),
    [
        (None, [0.5, 0.2, 0.9], 0.9, -0.3),
        (None, [0.6, 0.7], 0.8, 0.0),
        # Easier seeds in between: 0.6 there is less than 0.5 with the final ones.
        (0.7, [0.6, 0.8], 0.8, -0.1),
        # Harder ones: 0.45 is no dip.
        (0.4, [0.45], 0.8, 0.0),
        (0.4, [0.45], 0.3, -0.2),
    ],
)
def test_dip_compares_with_the_same_seeds(
    imitation_interim: float | None, interim: list[float], final: float, dip: float
) -> None:
    points = [evaluated("imitation", 0.5, final=True)]
    if imitation_interim is not None:
        points.append(evaluated("imitation", imitation_interim, final=False))
    points += [evaluated("online", score, final=False) for score in interim]
    points.append(evaluated("online", final, final=True))
    record = RunRecord(Path(), {}, {}, tuple(points), (), ())
    assert worst_dip(record) == pytest.approx(dip)


def test_grid() -> None:
    assert on_grid([0, 2], [1, 3], np.array([0, 1, 5])).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: stratified_bootstrap_interval([], rng=np.random.default_rng(0)), "no tasks"),
        (lambda: stratified_bootstrap_interval([[]], rng=np.random.default_rng(0)), "no values"),
        (
            lambda: probability_of_improvement([[1]], [[1], [2]], rng=np.random.default_rng(0)),
            "1 and 2 tasks",
        ),
        (lambda: paired_interval([1, 2], [1]), "2 and 1 values"),
        (lambda: mean_height([1, 2], [0, 0], 2), "must start at 0"),
        (lambda: mean_height([0, 2], [0, 0], -1), "until is -1"),
        (lambda: median_reach([]), "no runs"),
    ],
)
def test_bad_input_is_named(call, named: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=named):
        call()
