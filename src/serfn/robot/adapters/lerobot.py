"""Any robot of LeRobot behind the contract; the package itself is not needed, only an object of its shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from serfn.core.errors import ConfigError
from serfn.core.spec import ActionSpec, ObservationSpec
from serfn.robot.adapters.described import DescribedRobot
from serfn.robot.contract import (
    Action,
    Feature,
    Observation,
    PositionUnit,
    RobotError,
    RobotInfo,
    action_vector,
)


class LeRobotLike(Protocol):
    """The part of LeRobot's `Robot` that is used here."""

    name: str

    @property
    def observation_features(self) -> Mapping[str, Any]:
        """Types and shapes of observations."""
        ...

    @property
    def action_features(self) -> Mapping[str, Any]:
        """Types and shapes of actions."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether it is connected."""
        ...

    @property
    def is_calibrated(self) -> bool:
        """Whether it is calibrated."""
        ...

    def connect(self, calibrate: bool = True) -> None:
        """Connect."""
        ...

    def get_observation(self) -> dict[str, Any]:
        """Measure."""
        ...

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Command."""
        ...

    def disconnect(self) -> None:
        """Disconnect."""
        ...


class LeRobotRobot(DescribedRobot):
    """A LeRobot robot with the bounds and the unit that LeRobot does not tell.

    Scalars of its observation, in their order, make up the state; arrays of three dimensions are images. An
    observation of the same name as an action is its measured position.

    Args:
        robot: The LeRobot robot.
        low: Lowest command by action name; also fixes which actions there are.
        high: Highest command by action name.
        control_hz: Commands per second that the robot is meant for.
        unit: Unit of its positions; `normalized` for LeRobot's motors, whose range is ±100 or 0 to 100.
        rest: Pose to park, by action name; None stays where it is.

    Raises:
        ConfigError: The bounds have other names than the robot's actions.
    """

    def __init__(
        self,
        robot: LeRobotLike,
        low: Mapping[str, float],
        high: Mapping[str, float],
        control_hz: float,
        *,
        unit: PositionUnit = "normalized",
        rest: Mapping[str, float] | None = None,
    ) -> None:
        self._robot = robot
        names = tuple(robot.action_features)
        for bounds in (low, high, *(() if rest is None else (rest,))):
            if set(bounds) != set(names):
                different = ", ".join(sorted(set(bounds) ^ set(names))[:4])
                raise ConfigError(f"bounds and actions of '{robot.name}' differ in {different}; give all")
        features = robot.observation_features
        scalars = tuple(key for key, feature in features.items() if not isinstance(feature, tuple))
        measured = names if set(names) <= set(scalars) else ()
        self._info = RobotInfo(
            name=f"lerobot:{robot.name}",
            action=ActionSpec(
                tuple(float(low[name]) for name in names), tuple(float(high[name]) for name in names), names
            ),
            observation=ObservationSpec(len(scalars), scalars),
            state_keys=scalars,
            control_hz=control_hz,
            image_keys=_images(features),
            position_keys=measured,
            rest=None if rest is None else tuple(float(rest[name]) for name in names),
            unit=unit,
        )

    @property
    def observation_features(self) -> Mapping[str, Feature]:
        """See `Robot`."""
        return self._robot.observation_features

    @property
    def action_features(self) -> Mapping[str, Feature]:
        """See `Robot`."""
        return self._robot.action_features

    @property
    def is_connected(self) -> bool:
        """See `Robot`."""
        return self._robot.is_connected

    @property
    def is_calibrated(self) -> bool:
        """See `Robot`."""
        return self._robot.is_calibrated

    def connect(self, calibrate: bool = True) -> None:
        """See `Robot`."""
        self._ask("connect", calibrate=calibrate)

    def get_observation(self) -> Observation:
        """See `Robot`."""
        return self._ask("get_observation")

    def send_action(self, action: Action) -> Action:
        """See `Robot`."""
        action_vector(action, self._info.action.names)
        sent = self._ask("send_action", action)
        return {name: float(sent[name]) for name in self._info.action.names}

    def disconnect(self) -> None:
        """See `Robot`; LeRobot itself refuses to disconnect twice."""
        if self._robot.is_connected:
            self._ask("disconnect")

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self._robot, method)(*args, **kwargs)
        # Drivers raise what they like; to the loop all of it means that the robot did not answer.
        except Exception as error:
            raise RobotError(f"robot '{self.name}': {method} failed: {error}") from error


def _images(features: Mapping[str, Any]) -> tuple[str, ...]:
    shapes: dict[str, Sequence[int]] = {
        key: value for key, value in features.items() if isinstance(value, tuple)
    }
    for key, shape in shapes.items():
        if len(shape) != 3:
            raise ConfigError(f"observation '{key}' has shape {shape}; only scalars and images are supported")
    return tuple(shapes)
