from __future__ import annotations

import time

import numpy as np
import pytest

from serfn.robot.clock import ManualClock, MonotonicClock
from serfn.robot.timing import LoopTiming, Pace

PERIOD_S = 0.05


def test_steps_keep_to_the_grid_whatever_they_take() -> None:
    clock = ManualClock(5.0)
    pace = Pace(clock, PERIOD_S)
    begins = []
    for busy_s in (0.0, 0.03, 0.049, 0.001, 0.05):
        begins.append(pace.wait()[1])
        clock.advance(busy_s)
    assert begins == pytest.approx([5.0, 5.05, 5.10, 5.15, 5.20])


def test_a_late_step_shifts_the_grid_and_is_never_caught_up() -> None:
    clock = ManualClock()
    pace = Pace(clock, PERIOD_S)
    begins, busy = [], [0.0, 0.18, 0.0, 0.0]
    for busy_s in busy:
        scheduled, begin = pace.wait()
        begins.append(begin)
        clock.advance(busy_s)
    assert begins == pytest.approx([0.0, 0.05, 0.23, 0.28])
    assert np.diff(begins).min() >= PERIOD_S - 1e-12
    assert scheduled == pytest.approx(0.28)


def test_misses_jitter_and_lateness_are_what_happened() -> None:
    timing = LoopTiming(PERIOD_S, deadline_s=0.03)
    for scheduled, late, busy in (
        (0.0, 0.0, 0.01),
        (0.05, 0.002, 0.01),
        (0.10, 0.0, 0.04),
        (0.15, 0.0, 0.01),
    ):
        timing.add(scheduled, scheduled + late, scheduled + late + busy)
    summary = timing.summary()
    assert (summary.steps, summary.missed, summary.miss_rate) == (4, 1, 0.25)
    # Intervals: 52, 78, 20 ms.
    assert summary.jitter_max_ms == pytest.approx(30.0)
    assert summary.jitter_p50_ms == pytest.approx(28.0)
    assert summary.busy_p50_ms == pytest.approx(10.0)
    assert timing.histogram(np.array([0, 1, 5, 29, 100])).tolist() == [0, 1, 1, 1]


def test_a_break_between_episodes_is_no_jitter() -> None:
    timing = LoopTiming(PERIOD_S, deadline_s=0.03)
    timing.add(0.0, 0.0, 0.0)
    timing.interrupted()
    timing.add(60.0, 60.0, 60.0)
    timing.add(60.05, 60.05, 60.05)
    assert timing.summary().jitter_max_ms == pytest.approx(0.0, abs=1e-6)


def test_the_newest_steps_are_kept_and_all_misses_counted() -> None:
    timing = LoopTiming(PERIOD_S, deadline_s=0.01, capacity=4)
    for step in range(10):
        timing.add(step * PERIOD_S, step * PERIOD_S, step * PERIOD_S + (0.02 if step < 5 else 0.0))
    summary = timing.summary()
    assert (summary.steps, summary.missed) == (10, 5)
    assert summary.busy_p99_ms == pytest.approx(0.0)
    assert LoopTiming(PERIOD_S, 0.01).summary().miss_rate == 0.0


def test_the_real_clock_sleeps_until_its_deadline() -> None:
    clock = MonotonicClock()
    deadline = clock.now() + 0.003
    clock.sleep_until(deadline)
    assert deadline <= clock.now()
    clock.sleep_until(deadline - 10.0)
    assert abs(clock.now() - time.monotonic()) < 60.0
