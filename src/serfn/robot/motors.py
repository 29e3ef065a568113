"""What the motors and joints say about their own health: current, temperature, stalls."""

from __future__ import annotations

from collections import deque
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
                return "stall", (
                    f"joint '{joint}' does not follow its command: it is blocked, its motor is off, or its "
                    "sensor is stuck"
                )
        return None


class StallDetector:
    """Watches how far every joint moves in a window of time, and how far it is from its command.

    Speed is judged by the range of all readings of the window: a blocked joint whose quantised encoder
    toggles between two ticks has a speed between neighbouring readings, and none over the window. A joint is
    stalled if it has stood still for the whole window while its command was too far away all the time, or
    moved on by twice the distance allowed, as when it swings about the place where the joint hangs. A joint
    that is blocked, switched off or whose sensor is stuck looks the same.

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
        self._window: deque[tuple[float, np.ndarray, np.ndarray]] = deque()

    def stalled(self, positions: np.ndarray, command: np.ndarray, now_s: float) -> str | None:
        """Return the name of a stalled joint, or None.

        Args:
            positions: Measured positions `[action]`.
            command: Last command `[action]`.
            now_s: Time of the measurement in seconds.
        """
        limits, window = self._limits, self._window
        window.append((now_s, positions, command))
        begin_s = now_s - limits.seconds + _ROUND_OFF_S
        # The window begins with the last reading that is old enough.
        while len(window) > 1 and window[1][0] <= begin_s:
            window.popleft()
        if window[0][0] > begin_s:
            return None
        measured = np.array([item[1] for item in window])
        commands = np.array([item[2] for item in window])
        still = np.ptp(measured, axis=0) < limits.speed * limits.seconds
        far = (np.abs(commands - measured) > limits.error).all(axis=0)
        moved_on = np.ptp(commands, axis=0) > 2.0 * limits.error
        stalled = still & (far | moved_on)
        return self._names[int(np.argmax(stalled))] if stalled.any() else None
