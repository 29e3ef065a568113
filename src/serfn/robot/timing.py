"""How punctual the control loop was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serfn.robot.clock import Clock

_REANCHOR_FRACTION = 0.25


@dataclass(frozen=True)
class TimingSummary:
    """Punctuality of a run; times in milliseconds.

    Attributes:
        steps: Control steps measured.
        missed: Steps whose command was sent after its deadline.
        jitter_p50_ms: Median deviation of the time between two commands from the period.
        jitter_p99_ms: 99th percentile of the same.
        jitter_max_ms: Largest of the same.
        late_p99_ms: 99th percentile of how late steps began.
        busy_p50_ms: Median time from the start of a step to its command.
        busy_p99_ms: 99th percentile of the same.
    """

    steps: int
    missed: int
    jitter_p50_ms: float
    jitter_p99_ms: float
    jitter_max_ms: float
    late_p99_ms: float
    busy_p50_ms: float
    busy_p99_ms: float

    @property
    def miss_rate(self) -> float:
        """Fraction of steps that missed their deadline."""
        return self.missed / self.steps if self.steps else 0.0


class Pace:
    """A fixed rate on a monotonic clock.

    A step that begins much too late shifts the schedule instead of being caught up: two commands never follow
    each other so closely that the robot would have to move faster than its limits say.

    Args:
        clock: Clock to sleep on.
        period_s: Time between steps.
    """

    def __init__(self, clock: Clock, period_s: float) -> None:
        self._clock = clock
        self._period_s = period_s
        self.restart()

    def restart(self) -> None:
        """Begin the next step at once."""
        self._next_s = self._clock.now()

    def wait(self) -> tuple[float, float]:
        """Sleep until the next step; return when it was scheduled and when it begins."""
        scheduled_s = self._next_s
        self._clock.sleep_until(scheduled_s)
        begins_s = self._clock.now()
        late = begins_s - scheduled_s > _REANCHOR_FRACTION * self._period_s
        self._next_s = (begins_s if late else scheduled_s) + self._period_s
        return scheduled_s, begins_s


class LoopTiming:
    """Measures every control step into storage that is allocated once.

    Args:
        period_s: Time between commands.
        deadline_s: A command sent later than this after its step's scheduled time has missed its deadline.
        capacity: Newest steps kept for the percentiles; misses are counted for all.
    """

    def __init__(self, period_s: float, deadline_s: float, capacity: int = 1 << 17) -> None:
        self._period_s = period_s
        self._deadline_s = deadline_s
        self._late_s, self._busy_s = np.zeros(capacity), np.zeros(capacity)
        self._interval_s = np.full(capacity, np.nan)
        self._steps = self._missed = 0
        self._last_sent_s = np.nan

    def interrupted(self) -> None:
        """The next command does not follow the last one directly, such as after a reset."""
        self._last_sent_s = np.nan

    def add(self, scheduled_s: float, began_s: float, sent_s: float) -> None:
        """Measure one step: when it should begin, when it began, and when its command was sent."""
        index = self._steps % len(self._late_s)
        self._late_s[index] = began_s - scheduled_s
        self._busy_s[index] = sent_s - began_s
        self._interval_s[index] = sent_s - self._last_sent_s
        self._last_sent_s = sent_s
        self._missed += sent_s - scheduled_s > self._deadline_s
        self._steps += 1

    def histogram(self, edges_ms: np.ndarray) -> np.ndarray:
        """Return how many jitters fall between neighbouring `edges_ms`; the outermost bins have no bounds."""
        inner = np.asarray(edges_ms, np.float64)[1:-1]
        return np.bincount(np.searchsorted(inner, self._jitter_ms(), side="right"), minlength=len(inner) + 1)

    def summary(self) -> TimingSummary:
        """Return the figures of all steps so far; zeros before the first."""
        kept = min(self._steps, len(self._late_s))
        jitter = self._jitter_ms()
        late, busy = self._late_s[:kept] * 1e3, self._busy_s[:kept] * 1e3
        return TimingSummary(
            steps=self._steps,
            missed=int(self._missed),
            jitter_p50_ms=_percentile(jitter, 50),
            jitter_p99_ms=_percentile(jitter, 99),
            jitter_max_ms=_percentile(jitter, 100),
            late_p99_ms=_percentile(late, 99),
            busy_p50_ms=_percentile(busy, 50),
            busy_p99_ms=_percentile(busy, 99),
        )

    def _jitter_ms(self) -> np.ndarray:
        intervals = self._interval_s[: min(self._steps, len(self._interval_s))]
        return np.abs(intervals[np.isfinite(intervals)] - self._period_s) * 1e3


def _percentile(values: np.ndarray, percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else 0.0
