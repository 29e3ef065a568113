from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from serfn.core.results import EvaluationResult
from serfn.reports.statistics import (
    bootstrap_interval,
    difference_interval,
    mean_t_interval,
    name_score,
    summarize,
    t_quantile,
    wilson_interval,
)


@settings(deadline=None)
@given(n=st.integers(1, 400), fraction=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(n: int, fraction: float, confidence: float) -> None:
    successes = round(fraction * n)
    ours = wilson_interval(successes, n, confidence)
    reference = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert ours.low <= ours.mean <= ours.high


@settings(deadline=None)
@given(probability=st.floats(0.001, 0.999), freedom=st.integers(1, 3000))
def test_t_quantile_agrees_with_scipy(probability: float, freedom: int) -> None:
    reference = scipy.stats.t.ppf(probability, freedom)
    assert t_quantile(probability, freedom) == pytest.approx(reference, rel=1e-9, abs=1e-9)


def test_mean_interval_by_hand() -> None:
    # mean 3, standard deviation sqrt(2.5), n 5, t(.975, 4) = 2.776445
    interval = mean_t_interval([1, 2, 3, 4, 5])
    half = 2.776445 * math.sqrt(2.5 / 5)
    assert (interval.mean, interval.n) == (3, 5)
    assert (interval.low, interval.high) == pytest.approx((3 - half, 3 + half), abs=1e-6)


def test_one_value_says_nothing_about_the_mean() -> None:
    assert mean_t_interval([2.0]).high == math.inf
    assert difference_interval([2.5], [1.5]).low == -math.inf


def test_welch_agrees_with_scipy_and_errs_to_the_wide_side() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 23), rng.normal(0, 3, 31)
    ours = difference_interval(a, b)
    reference = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert ours.low <= reference.low < reference.high <= ours.high
    assert ours.high - ours.low == pytest.approx(reference.high - reference.low, rel=2e-3)


def test_newcombe_reproduces_the_published_example() -> None:
    # Newcombe 1998, table II, (a): 56/70 against 48/80, method 10.
    interval = difference_interval([1] * 56 + [0] * 14, [1] * 48 + [0] * 32)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_rates_without_events_still_have_an_uncertain_difference() -> None:
    interval = difference_interval([0] * 10, [0] * 10)
    assert interval.low < -0.2 and interval.high > 0.2


def test_bootstrap_covers_the_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(150):
        interval = bootstrap_interval(rng.exponential(size=40), np.median, rng=rng, n_boot=300)
        covered += interval.low <= math.log(2) <= interval.high
    assert 0.88 <= covered / 150 <= 0.99


def test_bootstrap_of_the_mean_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    sample = rng.normal(size=60)
    ours = bootstrap_interval(sample, rng=rng, n_boot=4000)
    reference = scipy.stats.bootstrap(
        (sample,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high), abs=0.03)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: wilson_interval(3, 2), "3 successes of 2"),
        (lambda: wilson_interval(0, 0), "0 successes of 0"),
        (lambda: wilson_interval(1, 2, 95), "confidence is 95"),
        (lambda: mean_t_interval([]), "no values"),
        (lambda: difference_interval([], [1.0]), "no values"),
        (lambda: t_quantile(1.0, 3), "1.0, 3"),
    ],
)
def test_bad_input_is_named(call, named: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=named):
        call()


def cube_result(scores: tuple[float, ...]) -> EvaluationResult:
    return EvaluationResult(
        returns=tuple(score / 10 for score in scores),
        successes=(True, True, False, None),
        lengths=(400, 400, 100, 400),
        scores=scores,
        metrics={"dropped": (0.0, 0.0, 1.0, 0.0), "rev_per_min": scores, "score": scores},
        control_hz=20.0,
    )


def test_success_as_the_score_is_a_rate_and_listed_once() -> None:
    result = EvaluationResult((3.0, 1.0), (True, False), (5, 5), (1.0, 0.0), {}, 10.0)
    rows = summarize(result)
    assert [row.name for row in rows] == ["success", "return", "episode_seconds"]
    assert rows[0].rate
    failed = EvaluationResult((3.0, 1.0), (False, False), (5, 5), (0.0, 0.0), {"score": (0.0, 0.0)}, 10.0)
    assert name_score([failed]) == "score"


def test_summary_has_one_row_per_quantity() -> None:
    rows = {row.name: row for row in summarize(cube_result((1.0, 2.0, 0.5, 3.0)))}
    assert list(rows) == ["rev_per_min", "success", "dropped", "return", "episode_seconds"]
    assert rows["dropped"].rate and rows["dropped"].interval.mean == 0.25
    assert rows["success"].interval.n == 3
    assert rows["episode_seconds"].interval.mean == pytest.approx((60 + 5) / 4)


def test_score_keeps_its_name_although_one_stage_scores_nothing() -> None:
    assert name_score([cube_result((0.0,) * 4), cube_result((1.0, 2.0, 3.0, 4.0))]) == "rev_per_min"
    assert name_score([cube_result((0.0,) * 4)]) in ("return", "score")
