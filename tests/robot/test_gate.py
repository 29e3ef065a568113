from __future__ import annotations

import math

import numpy as np
import pytest

from serfn.core.errors import ConfigError, DataError
from serfn.robot.gate import GateAction, LikelihoodGate, LikelihoodRange, calibrate_range

CHUNKS = [np.full((4, 2), value) for value in (9.0, 5.0, 1.0)]


def gate(action: GateAction, max_draws: int = 3) -> LikelihoodGate:
    """Chunks near zero are likely."""
    return LikelihoodGate(
        lambda _, chunk: -float(np.abs(chunk).max()), LikelihoodRange(-2.0), action, max_draws
    )


def test_an_ordinary_chunk_passes() -> None:
    judge = gate("refuse")
    result = judge.decide(np.zeros(3), lambda: CHUNKS[2])
    assert result.actions is CHUNKS[2]
    assert (result.log_likelihood, result.flagged, judge.counts["passed"]) == (-1.0, False, 1)


def test_flagging_executes_and_says_so() -> None:
    result = gate("flag").decide(np.zeros(3), lambda: CHUNKS[0])
    assert result.actions is CHUNKS[0]
    assert result.flagged


def test_refusing_gives_no_chunk() -> None:
    judge = gate("refuse")
    assert judge.decide(np.zeros(3), lambda: CHUNKS[0]).actions is None
    assert judge.counts["refused"] == 1


def test_resampling_takes_the_first_ordinary_draw_or_refuses() -> None:
    draws = iter(CHUNKS)
    judge = gate("resample")
    result = judge.decide(np.zeros(3), lambda: next(draws))
    assert result.actions is CHUNKS[2]
    assert result.flagged
    assert judge.counts["resampled"] == 2
    assert gate("resample", 2).decide(np.zeros(3), iter(CHUNKS).__next__).actions is None


@pytest.mark.parametrize("action", ["refuse", "resample"])
def test_a_chunk_that_is_not_finite_never_passes(action: GateAction) -> None:
    judge = LikelihoodGate(lambda _, chunk: 0.0, LikelihoodRange(-1.0), action)
    result = judge.decide(np.zeros(3), lambda: np.full((4, 2), np.nan))
    assert result.actions is None
    assert math.isnan(result.log_likelihood)


def test_the_range_lets_the_asked_fraction_of_demonstrations_pass() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    low, both = (
        calibrate_range(values, low_quantile=0.01),
        calibrate_range(values, low_quantile=0.1, high_quantile=0.9),
    )
    assert np.mean([low.contains(value) for value in values]) == pytest.approx(0.99, abs=1e-3)
    assert np.mean([both.contains(value) for value in values]) == pytest.approx(0.8, abs=1e-3)
    wide = calibrate_range(values, low_quantile=0.1, high_quantile=0.9, slack=1.0)
    assert (wide.low, wide.high) == pytest.approx((both.low - 1, both.high + 1))


def test_too_few_demonstrations_for_the_quantile_are_refused() -> None:
    with pytest.raises(DataError, match="99 finite"):
        calibrate_range(np.append(np.arange(99.0), np.nan), low_quantile=0.01)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError):
        LikelihoodRange(1.0, 0.0)
    with pytest.raises(ConfigError):
        calibrate_range(np.arange(10.0), low_quantile=0.9, high_quantile=0.5)
    with pytest.raises(ConfigError):
        gate("resample", 0)
