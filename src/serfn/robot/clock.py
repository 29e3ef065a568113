"""Time as the control loop sees it: monotonic, and injected, so that tests need not wait."""

from __future__ import annotations

import time
from typing import Protocol

_SPIN_S = 5e-4


class Clock(Protocol):
    """A monotonic clock that can be slept on."""

    def now(self) -> float:
        """Seconds since an arbitrary start; never runs backwards."""
        ...

    def sleep_until(self, deadline_s: float) -> None:
        """Return once `now()` has reached `deadline_s`; at once if it has passed."""
        ...


class MonotonicClock:
    """The machine's monotonic clock.

    Operating systems wake a sleeper late by their timer slack; the last half millisecond is therefore spent
    yielding in a loop, which bounds the lateness on a quiet machine by some ten microseconds.
    """

    def now(self) -> float:
        """Seconds of `time.monotonic`, which does not follow changes of the wall clock."""
        return time.monotonic()

    def sleep_until(self, deadline_s: float) -> None:
        """See `Clock`."""
        while (remaining := deadline_s - time.monotonic()) > 0:
            time.sleep(remaining - _SPIN_S if remaining > _SPIN_S else 0)


class ManualClock:
    """A clock that moves only when told: sleeping jumps to the deadline, work is simulated by `advance`.

    >>> clock = ManualClock()
    >>> clock.sleep_until(0.05); clock.advance(0.01); round(clock.now(), 3)
    0.06
    """

    def __init__(self, start_s: float = 0.0) -> None:
        self._now = start_s

    def now(self) -> float:
        """See `Clock`."""
        return self._now

    def sleep_until(self, deadline_s: float) -> None:
        """See `Clock`."""
        self._now = max(self._now, deadline_s)

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: At least 0.
        """
        self._now += max(0.0, seconds)
