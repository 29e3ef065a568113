"""Ways for a person to move the robot: single keys, a recording, or any LeRobot teleoperator.

All satisfy `serfn.robot.contract.Teleoperator`. What they ask for passes the safety supervisor like the
policy's own actions, so none of them needs limits of its own.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serfn.core.errors import ConfigError, DataError
from serfn.core.spec import ActionSpec
from serfn.robot.contract import Action, Feature, OperatorEvent, RobotError


class KeyboardJog:
    """Moves one joint at a time: choose it with `[` and `]`, move it with `-` and `+` (or `=`).

    Taking over starts where the robot is: the control loop reports each command by `send_feedback`, and the
    wanted positions follow it while no person acts.

    Args:
        action: Names and bounds of the commands.
        step: Fraction of a joint's range that one key press moves it by.

    Raises:
        ConfigError: The names are missing, or the step is out of (0, 1].
    """

    def __init__(self, action: ActionSpec, *, step: float = 0.02) -> None:
        if not action.names:
            raise ConfigError("jogging needs the names of the joints; give them in the action specification")
        if not 0 < step <= 1:
            raise ConfigError(f"jog step is {step}; it must lie in (0, 1], as a fraction of a joint's range")
        self._spec = action
        self._step = step
        self._joint = 0
        self._wanted: Action = {}
        self._moved = np.zeros(action.dim)
        self._lock = threading.Lock()
        self._connected = False

    @property
    def name(self) -> str:
        """Short name of the device."""
        return "keyboard"

    @property
    def action_features(self) -> Mapping[str, Feature]:
        """All joints of the robot."""
        return dict.fromkeys(self._spec.names, float)

    @property
    def is_connected(self) -> bool:
        """Whether `connect` was called."""
        return self._connected

    @property
    def joint(self) -> str:
        """Name of the joint that the keys move."""
        return self._spec.names[self._joint]

    def connect(self, calibrate: bool = True) -> None:
        """Make the keys count."""
        self._connected = True

    def disconnect(self) -> None:
        """Forget what the keys asked for."""
        self._connected = False
        with self._lock:
            self._wanted = {}
            self._moved[:] = 0

    def press(self, key: str) -> None:
        """Take one key press, from any thread; other keys than those of the jog are ignored."""
        with self._lock:
            if key in "[]":
                self._joint = (self._joint + (1 if key == "]" else -1)) % self._spec.dim
            elif key in "-+=":
                extent = self._spec.high[self._joint] - self._spec.low[self._joint]
                self._moved[self._joint] += (-1 if key == "-" else 1) * self._step * extent

    def get_action(self) -> Action:
        """Return the positions asked for, inside the bounds; empty before the first feedback."""
        with self._lock:
            for index, name in enumerate(self._spec.names):
                if name in self._wanted and self._moved[index]:
                    target = self._wanted[name] + self._moved[index]
                    self._wanted[name] = min(max(target, self._spec.low[index]), self._spec.high[index])
            self._moved[:] = 0
            return dict(self._wanted)

    def send_feedback(self, feedback: Mapping[str, float]) -> None:
        """Take where the robot is, as the start of the next take-over."""
        with self._lock:
            self._wanted = {name: float(feedback[name]) for name in self._spec.names if name in feedback}
            self._moved[:] = 0


class RecordedTeleoperator:
    """Replays commands, one per control step, and then keeps the last one.

    Args:
        actions: `[steps, action]`, physical units, in the order of `names`.
        names: Names of the commanded dimensions.

    Raises:
        DataError: The recording is empty, not finite, or of another size than the names.
    """

    def __init__(self, actions: np.ndarray, names: Sequence[str]) -> None:
        actions = np.asarray(actions, np.float64)
        if actions.ndim != 2 or actions.shape[0] == 0 or actions.shape[1] != len(names):
            raise DataError(
                f"the recording has shape {actions.shape}; expected [steps, {len(names)}] with a step or more"
            )
        if not np.isfinite(actions).all():
            raise DataError("the recording holds values that are not finite; repair or drop it")
        self._actions = actions
        self._names = tuple(names)
        self._next = 0
        self._connected = False

    @property
    def name(self) -> str:
        """Short name of the device."""
        return "recording"

    @property
    def action_features(self) -> Mapping[str, Feature]:
        """The recorded dimensions."""
        return dict.fromkeys(self._names, float)

    @property
    def is_connected(self) -> bool:
        """Whether `connect` was called."""
        return self._connected

    @property
    def finished(self) -> bool:
        """Whether the whole recording was replayed."""
        return self._next >= len(self._actions)

    def connect(self, calibrate: bool = True) -> None:
        """Go to the beginning of the recording."""
        self._next, self._connected = 0, True

    def get_action(self) -> Action:
        """Return the next recorded command."""
        row = self._actions[min(self._next, len(self._actions) - 1)]
        self._next += 1
        return dict(zip(self._names, map(float, row), strict=True))

    def send_feedback(self, feedback: Mapping[str, float]) -> None:
        """Ignore where the robot is."""

    def disconnect(self) -> None:
        """Stop replaying."""
        self._connected = False


class LeRobotTeleoperator:
    """Any object with the methods of LeRobot's `Teleoperator`, and its events as those of an operator.

    It also serves as an `Operator`: `is_intervention` takes over and hands back, `success`, `failure`,
    `rerecord_episode` (discards) and `terminate_episode` (failure, unless success came with it) end the
    episode.

    Args:
        device: The device.
        names: Names of the robot's commanded dimensions.
        rename: Name of the robot's dimension by name of the device's; others keep their names.

    Raises:
        ConfigError: The device moves dimensions that the robot does not have, or lacks a method.
    """

    def __init__(self, device: Any, names: Sequence[str], rename: Mapping[str, str] | None = None) -> None:
        missing = [
            method for method in ("connect", "get_action", "disconnect") if not hasattr(device, method)
        ]
        if missing:
            raise ConfigError(f"a {type(device).__name__} lacks {', '.join(missing)}; give a teleoperator")
        self._device = device
        self._rename = dict(rename or {})
        self._own = {new: old for old, new in self._rename.items()}
        self._teleoperating = False
        features: Mapping[str, Any] = device.action_features
        # LeRobot's flat form is {"joint.pos": float}; some devices describe {"names": {...}} instead.
        described = features.get("names")
        offered = described if isinstance(described, Mapping | Sequence) else features
        self._names = tuple(self._rename.get(str(name), str(name)) for name in offered)
        foreign = sorted(set(self._names) - set(names))
        if foreign:
            raise ConfigError(
                f"teleoperator '{self.name}' moves {', '.join(foreign)}, the robot has {', '.join(names)}; "
                "rename its dimensions"
            )

    @property
    def name(self) -> str:
        """Short name of the device."""
        return str(getattr(self._device, "name", type(self._device).__name__))

    @property
    def action_features(self) -> Mapping[str, Feature]:
        """The dimensions that the device moves, by the robot's names."""
        return dict.fromkeys(self._names, float)

    @property
    def is_connected(self) -> bool:
        """Whether the device answers."""
        return bool(self._device.is_connected)

    def connect(self, calibrate: bool = True) -> None:
        """Open the device."""
        self._device.connect(calibrate)

    def get_action(self) -> Action:
        """Return the device's positions by the robot's names.

        Raises:
            RobotError: A value is not finite.
        """
        action = {
            self._rename.get(str(name), str(name)): float(value)
            for name, value in self._device.get_action().items()
        }
        broken = [name for name, value in action.items() if not math.isfinite(value)]
        if broken:
            raise RobotError(
                f"teleoperator '{self.name}' says {broken[0]} is {action[broken[0]]}; restart it"
            )
        return action

    def send_feedback(self, feedback: Mapping[str, float]) -> None:
        """Tell the device where the robot is, if it can feel that."""
        if getattr(self._device, "feedback_features", None):
            self._device.send_feedback({self._own.get(name, name): feedback[name] for name in feedback})

    def disconnect(self) -> None:
        """Close the device."""
        self._device.disconnect()

    def poll(self) -> Sequence[OperatorEvent]:
        """Return the device's events as an operator's; a device without events has none."""
        read = getattr(self._device, "get_teleop_events", None)
        if read is None:
            return []
        # Keys of an enumeration with string values, or plain strings.
        told = {str(getattr(key, "value", key)): bool(value) for key, value in read().items()}
        events = []
        if (acting := told.get("is_intervention", False)) != self._teleoperating:
            self._teleoperating = acting
            events.append(OperatorEvent("take_over" if acting else "hand_back"))
        if told.get("rerecord_episode"):
            events.append(OperatorEvent("discard"))
        elif told.get("success"):
            events.append(OperatorEvent("success"))
        elif told.get("failure") or told.get("terminate_episode"):
            events.append(OperatorEvent("failure"))
        return events


class SeveralOperators:
    """Several people or devices as one operator, such as a keyboard beside a teleoperator's buttons.

    Args:
        operators: Whom to ask, in this order.
    """

    def __init__(self, *operators: Any) -> None:
        self._operators = operators

    def poll(self) -> Sequence[OperatorEvent]:
        """Return what any of them asked for; never waits."""
        return [event for operator in self._operators for event in operator.poll()]
