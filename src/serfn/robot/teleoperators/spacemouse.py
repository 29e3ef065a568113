"""A SpaceMouse: six axes that a person pushes and turns, each the speed of one commanded dimension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serfn.core.errors import ConfigError
from serfn.core.extras import extra
from serfn.robot.contract import Action, Feature, RobotError, RobotInfo

AXES = ("x", "y", "z", "roll", "pitch", "yaw")
"""Axes of the device in the order in which they move the robot's first dimensions."""

_RANGE_PER_S = 0.5
"""Speed at full deflection, as a fraction of a dimension's range per second."""


class SpaceMouseTeleoperator:
    """Integrates the deflections of a SpaceMouse into positions of the robot's first six dimensions.

    Args:
        info: What the robot is; its rate says how often `get_action` is called.
        driver: Something whose `open()` returns the device, with `read()` (an object with the attributes
            `AXES` in -1 to 1) and `close()`; None takes the package `pyspacemouse`.

    Raises:
        ConfigError: `pyspacemouse` is not installed.
    """

    def __init__(self, info: RobotInfo, driver: Any = None) -> None:
        if driver is None:
            with extra("teleop"):
                import pyspacemouse as driver  # pyright: ignore[reportMissingImports]
        self._driver: Any = driver
        self._device: Any = None
        self._action = info.action
        self._step_s = 1.0 / info.control_hz
        self._wanted: Action = {}

    @property
    def name(self) -> str:
        """Short name of the device."""
        return "spacemouse"

    @property
    def action_features(self) -> Mapping[str, Feature]:
        """The dimensions that it moves."""
        return dict.fromkeys(self._action.names[: len(AXES)], float)

    @property
    def is_connected(self) -> bool:
        """Whether the device is open."""
        return self._device is not None

    def connect(self, calibrate: bool = True) -> None:
        """Open the device.

        Raises:
            ConfigError: There is none.
        """
        try:
            self._device = self._driver.open()
        # The driver has exceptions of its own, different from version to version.
        except Exception as error:
            raise ConfigError(f"the SpaceMouse cannot be opened: {error}; is it plugged in?") from error

    def get_action(self) -> Action:
        """Return the positions that the deflections lead to, inside the robot's bounds.

        Raises:
            RobotError: The device does not answer.
        """
        try:
            state = self._device.read()
            deflections = [float(getattr(state, axis)) for axis in AXES]
        except Exception as error:
            raise RobotError(f"the SpaceMouse does not answer: {error}") from error
        bounds = zip(self._action.names, self._action.low, self._action.high, deflections, strict=False)
        for name, low, high, deflection in bounds:
            if name in self._wanted:
                moved = self._wanted[name] + deflection * _RANGE_PER_S * self._step_s * (high - low)
                self._wanted[name] = min(max(moved, low), high)
        return dict(self._wanted)

    def send_feedback(self, feedback: Mapping[str, float]) -> None:
        """Start from where the robot is."""
        names = self._action.names[: len(AXES)]
        self._wanted = {name: float(feedback[name]) for name in names if name in feedback}

    def disconnect(self) -> None:
        """Close the device."""
        if self._device is not None:
            self._device.close()
            self._device = None
