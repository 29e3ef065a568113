"""Watchdogs: how long something that must keep coming has been missing, in three tiers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from serfn.core.errors import ConfigError


class Tier(IntEnum):
    """How serious an absence is: nothing, a warning, hold the robot, stop it for good."""

    OK = 0
    WARN = 1
    HOLD = 2
    STOP = 3


@dataclass(frozen=True)
class WatchdogConfig:
    """Ages in seconds at which the tiers begin.

    Attributes:
        warn_s: The absence is counted.
        hold_s: The robot brakes and holds until the source is back.
        stop_s: The robot stops, and stays stopped until a person releases it.

    Raises:
        ConfigError: The ages are not positive and increasing.
    """

    warn_s: float
    hold_s: float
    stop_s: float

    def __post_init__(self) -> None:
        if not 0 < self.warn_s < self.hold_s < self.stop_s:
            raise ConfigError(
                f"watchdog ages are warn {self.warn_s}, hold {self.hold_s}, stop {self.stop_s} s; "
                "give positive ages that increase in this order"
            )


class Watchdog:
    """Measures the age of the last sign of life.

    >>> dog = Watchdog(WatchdogConfig(0.1, 0.2, 1.0), now_s=0.0)
    >>> dog.tier(0.05).name, dog.tier(0.2).name, dog.tier(3.0).name
    ('OK', 'HOLD', 'STOP')
    >>> dog.feed(3.0); dog.tier(3.05).name
    'OK'
    """

    def __init__(self, config: WatchdogConfig, now_s: float) -> None:
        self._config = config
        self._last_s = now_s

    def feed(self, time_s: float) -> None:
        """Note a sign of life of `time_s`; an older one than the last changes nothing."""
        self._last_s = max(self._last_s, time_s)

    def age_s(self, now_s: float) -> float:
        """Seconds since the last sign of life."""
        return now_s - self._last_s

    def tier(self, now_s: float) -> Tier:
        """The tier of the present age."""
        # Times on a grid of control steps meet the ages exactly, up to round-off.
        age, config = self.age_s(now_s) + 1e-9, self._config
        if age >= config.stop_s:
            return Tier.STOP
        if age >= config.hold_s:
            return Tier.HOLD
        return Tier.WARN if age >= config.warn_s else Tier.OK
