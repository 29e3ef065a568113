"""Relative motion with a clutch: the robot moves as far as the device does, times a factor."""

from __future__ import annotations

import math
from collections.abc import Mapping

from serfn.core.errors import ConfigError
from serfn.robot.contract import Action, Feature, Teleoperator


class RelativeTeleoperator:
    """Moves the robot by `speed` times what the device moved since the clutch closed.

    So a person may put the device into another pose with the clutch open, and taking over never jumps. The
    clutch is the device's attribute `engaged`; a device without one counts as engaged whenever it says
    anything.

    Args:
        device: The device.
        speed: Motion of the robot per motion of the device, above 0.

    Raises:
        ConfigError: The factor is not positive.
    """

    def __init__(self, device: Teleoperator, speed: float) -> None:
        if not 0 < speed < math.inf:
            raise ConfigError(f"speed is {speed}; it must be above 0, such as 0.5")
        self._device, self._speed = device, speed
        self._robot: Action = {}
        self._start: Action | None = None
        self._origin: Action = {}

    @property
    def name(self) -> str:
        """Name of the device."""
        return self._device.name

    @property
    def action_features(self) -> Mapping[str, Feature]:
        """Those of the device."""
        return self._device.action_features

    @property
    def is_connected(self) -> bool:
        """Whether the device answers."""
        return self._device.is_connected

    def connect(self, calibrate: bool = True) -> None:
        """Open the device."""
        self._device.connect(calibrate)

    def get_action(self) -> Action:
        """Return the wanted positions; empty while the clutch is open, so that the robot holds."""
        said = self._device.get_action()
        if not said or not getattr(self._device, "engaged", True):
            self._start = None
            return {}
        if self._start is None:
            self._start, self._origin = dict(self._robot), dict(said)
        wanted = {
            name: self._start[name] + self._speed * (value - self._origin.get(name, value))
            for name, value in said.items()
            if name in self._start
        }
        self._robot |= wanted
        return wanted

    def send_feedback(self, feedback: Mapping[str, float]) -> None:
        """Take where the robot is as the place to start from."""
        self._robot, self._start = {name: float(value) for name, value in feedback.items()}, None
        self._device.send_feedback(feedback)

    def disconnect(self) -> None:
        """Close the device."""
        self._device.disconnect()
