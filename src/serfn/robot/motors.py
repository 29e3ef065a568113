"""What the motors and joints say about their own health: current, temperature, stalls."""

from __future__ import annotations

from typing import Literal

import numpy as np

from serfn.robot.contract import Observation, RobotInfo, read_vector
from serfn.robot.limits import SafetyLimits, StallLimits

Overload = Literal["over_current", "over_temperature", "stall"]

_ROUND_OFF_S = 1e-9


class MotorGuard:
    """Checks every sound measurement against the limits on motors.

    Args:
        info: The robot: which keys are currents, temperatures and positions.
        limits: The limits; those that are None are not watched.
    """

    def __init__(self, info: RobotInfo, limits: SafetyLimits) -> None:
        self._info = info
        self._limits = limits
        self._stall = None if limits.stall is None else StallDetector(limits.stall, info.action.names)
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        self._over_current_since_s: float | None = None
        if self._stall is not None:
            self._stall.reset()

    def check(
        self, observation: Observation, command: np.ndarray, now_s: float
    ) -> tuple[Overload, str] | None:
        """Return the rule that is broken, with one line for people, or None.

        Args:
            observation: A new measurement.
            command: Last command `[action]`.
            now_s: Time of the measurement in seconds.
        """
        limits, info = self._limits, self._info
        if limits.max_current_ma is not None:
            currents = np.abs(read_vector(observation, info.current_keys))
            worst = int(np.argmax(currents))
            if currents[worst] <= limits.max_current_ma:
                self._over_current_since_s = None
            elif self._over_current_since_s is None:
                self._over_current_since_s = now_s
            since_s = self._over_current_since_s
            if since_s is not None and now_s - since_s + _ROUND_OFF_S >= limits.over_current_s:
                reading = f"{info.current_keys[worst]} is {currents[worst]:.0f} mA"
                return "over_current", f"{reading}, limit {limits.max_current_ma:.0f}"
        if limits.max_temperature_c is not None:
            temperatures = read_vector(observation, info.temperature_keys)
            worst = int(np.argmax(temperatures))
            if temperatures[worst] > limits.max_temperature_c:
                reading = f"{info.temperature_keys[worst]} is {temperatures[worst]:.0f} °C"
                return "over_temperature", f"{reading}, limit {limits.max_temperature_c:.0f}"
        if self._stall is not None:
            positions = read_vector(observation, info.position_keys)
            if (joint := self._stall.stalled(positions, command, now_s)) is not None:
                return "stall", f"joint '{joint}' does not follow its command"
        return None


class StallDetector:
    """Watches the distance between command and measurement of every joint.

    A joint that is blocked, disconnected or whose sensor is stuck looks the same.

    Args:
        limits: When a joint counts as stalled.
        names: Names of the joints, for messages.
    """

    def __init__(self, limits: StallLimits, names: tuple[str, ...]) -> None:
        self._limits = limits
        self._names = names
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        self._positions = np.full(len(self._names), np.nan)
        self._since_s = np.full(len(self._names), np.nan)
        self._time_s = np.nan

    def stalled(self, positions: np.ndarray, command: np.ndarray, now_s: float) -> str | None:
        """Return the name of a stalled joint, or None.

        Args:
            positions: Measured positions `[action]`.
            command: Last command `[action]`.
            now_s: Time of the measurement in seconds.
        """
        elapsed_s = max(now_s - self._time_s, 1e-6)
        # The first measurement has no speed: NaN compares as not still.
        still = np.abs(positions - self._positions) < self._limits.speed * elapsed_s
        still &= np.abs(command - positions) > self._limits.error
        self._since_s = np.where(still, np.where(np.isnan(self._since_s), now_s, self._since_s), np.nan)
        self._positions, self._time_s = positions, now_s
        lasting = now_s - self._since_s + _ROUND_OFF_S >= self._limits.seconds
        return self._names[int(np.argmax(lasting))] if lasting.any() else None
