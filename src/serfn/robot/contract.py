"""What a robot, a teleoperator, an operator and a referee are to the control loop.

`Robot` and `Teleoperator` have the shape of LeRobot's classes of the same names: flat dictionaries of floats
and images, and `send_action` returns what was really sent. `RobotInfo` adds what those dictionaries leave
open: the order of the numbers, their bounds and unit, and which of them are sensors that safety relies on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from serfn.core.errors import ConfigError, SerfnError
from serfn.core.spec import ActionSpec, ObservationSpec

Feature = type | tuple[int, ...]
"""One entry of an observation or action: `float`, or the shape of an array, `(height, width, channels)`."""

Observation = dict[str, Any]
Action = dict[str, float]

PositionUnit = Literal["rad", "m", "normalized"]

OperatorCommand = Literal[
    "stop", "pause", "resume", "take_over", "hand_back", "success", "failure", "discard", "stage"
]


class RobotError(SerfnError):
    """The robot did not answer, refused a command, or is in no state to move; ends the motion."""


@dataclass(frozen=True)
class RobotInfo:
    """What the feature dictionaries of a robot do not say.

    Args:
        name: Short name, such as `orca` or `simulated:cube`.
        action: Bounds of the commands in `unit`; its names are the keys of `send_action`, in policy order.
        observation: Size of the flat observation that a policy sees.
        state_keys: Keys of `get_observation` that make up the flat observation, in this order; scalars and
            arrays are concatenated.
        image_keys: Keys of `get_observation` that hold images `[height, width, channels]` uint8.
        position_keys: Key of the measured position of each commanded dimension, in the order of the
            commands and in `unit`; empty if the robot does not measure it.
        target_keys: Key of the position that each motor is driven to at the moment, in the order of the
            commands; the first command starts there. Empty starts at the measured positions.
        current_keys: Keys of motor currents in mA; empty if they are not measured.
        temperature_keys: Keys of motor temperatures in °C; empty if they are not measured.
        time_key: Key of the time in seconds, on the loop's clock, at which the state was measured; None
            takes the time of the read.
        rest: Pose that parking moves to, in the order of the commands; None stays where it is.
        control_hz: Commands per second that the robot is meant for.
        unit: Unit of positions and commands.
        accepts: What a policy may have been trained to command, where that is wider than `action`; safety
            cuts it to the limits. None accepts what `action` bounds.
        simulated: Whether nothing real moves. A robot that does not say so is hardware: it needs a limits
            file, and a person who confirms the limits before the first motion.

    Raises:
        ConfigError: Names are missing or repeated, a number of keys does not fit, or `rest` is out of bounds.
    """

    name: str
    action: ActionSpec
    observation: ObservationSpec
    state_keys: tuple[str, ...]
    control_hz: float
    image_keys: tuple[str, ...] = ()
    position_keys: tuple[str, ...] = ()
    target_keys: tuple[str, ...] = ()
    current_keys: tuple[str, ...] = ()
    temperature_keys: tuple[str, ...] = ()
    time_key: str | None = None
    rest: tuple[float, ...] | None = None
    unit: PositionUnit = "rad"
    accepts: ActionSpec | None = None
    simulated: bool = False

    def __post_init__(self) -> None:
        if not self.action.names or len(set(self.action.names)) != self.action.dim:
            raise ConfigError(
                f"robot '{self.name}' has action names {self.action.names}; name every dimension once"
            )
        if not self.state_keys:
            raise ConfigError(f"robot '{self.name}' has no state_keys; name what a policy shall see")
        for name in ("position_keys", "target_keys"):
            if (keys := getattr(self, name)) and len(keys) != self.action.dim:
                raise ConfigError(
                    f"robot '{self.name}' has {len(keys)} {name} for {self.action.dim} commanded dimensions; "
                    "give one per dimension or none"
                )
        if not (math.isfinite(self.control_hz) and self.control_hz > 0):
            raise ConfigError(f"control_hz is {self.control_hz}; it must be a positive number per second")
        if self.rest is not None:
            self._check_rest(self.rest)

    def _check_rest(self, rest: tuple[float, ...]) -> None:
        if len(rest) != self.action.dim:
            raise ConfigError(f"rest has {len(rest)} positions for {self.action.dim} dimensions; give all")
        bounds = zip(self.action.names, rest, self.action.low, self.action.high, strict=True)
        for name, position, low, high in bounds:
            if not low <= position <= high:
                raise ConfigError(
                    f"the rest position of '{name}' is {position:g}, outside [{low:g}, {high:g}]; move it"
                )


@runtime_checkable
class Robot(Protocol):
    """A robot as LeRobot has it, with `info` besides.

    `connect` must come first. Every other method raises `RobotError` when the robot is not connected or does
    not answer; none of them waits without a bound. `disconnect` leaves the robot safe, may be called at any
    time and twice, and frees the hardware even when it raises.
    """

    @property
    def name(self) -> str:
        """Short name of the robot."""
        ...

    @property
    def info(self) -> RobotInfo:
        """Order, bounds and units of the numbers; known before `connect`."""
        ...

    @property
    def observation_features(self) -> Mapping[str, Feature]:
        """What `get_observation` returns: `float` or an array's shape by key; known before `connect`."""
        ...

    @property
    def action_features(self) -> Mapping[str, Feature]:
        """What `send_action` takes, by key; known before `connect`."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether the robot answers."""
        ...

    @property
    def is_calibrated(self) -> bool:
        """Whether positions can be trusted; a robot that needs no calibration says True."""
        ...

    def connect(self, calibrate: bool = True) -> None:
        """Open the robot, without moving it unless it must be calibrated.

        Args:
            calibrate: Calibrate if the robot is not calibrated; this may move it.

        Raises:
            RobotError: It cannot be reached, or is connected already.
        """
        ...

    def get_observation(self) -> Observation:
        """Return the newest measurement, a flat dictionary with the keys of `observation_features`."""
        ...

    def send_action(self, action: Action) -> Action:
        """Send one command, positions by name, and return what was really sent, after the robot's own limits.

        The control loop sends nothing that has not passed the safety supervisor.
        """
        ...

    def disconnect(self) -> None:
        """Bring the robot to its safe state (motors off, or holding) and close it."""
        ...


@runtime_checkable
class SceneReset(Protocol):
    """A robot whose scene can put itself back, such as a simulation or a scripted fixture."""

    def reset_scene(self, seed: int | None = None) -> None:
        """Bring the scene to a new start; `seed` fixes the draw where there is one."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What a referee says about the step that led to the newest observation.

    Args:
        reward: Reward of the step.
        terminated: The task is over by itself (goal or failure).
        truncated: The scene cannot go on, though the task is not over.
        success: Whether the task is solved so far; None if the referee cannot tell.
        metrics: Numbers of the task about the episode so far.
    """

    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None
    metrics: Mapping[str, float] | None = None


@runtime_checkable
class Referee(Protocol):
    """Judges each step: a simulation, a reward classifier. Without one, only people end episodes early."""

    def judge(self, observation: Observation) -> Verdict:
        """Return the verdict on the step that led to `observation`; called once per control step."""
        ...


@dataclass(frozen=True)
class OperatorEvent:
    """One thing that a person asked for.

    `stop` latches; `pause` holds until `resume`; `take_over` hands the robot to the teleoperator until
    `hand_back`; `success`, `failure` and `discard` end the episode; `stage` labels the step with `value`.
    """

    command: OperatorCommand
    value: int = 0


class Operator(Protocol):
    """A person at a keyboard, a panel, a foot switch."""

    def poll(self) -> Sequence[OperatorEvent]:
        """Return what was asked for since the last call, oldest first; never waits."""
        ...


@runtime_checkable
class Teleoperator(Protocol):
    """A device by which a person moves the robot, as LeRobot has it."""

    @property
    def name(self) -> str:
        """Short name of the device."""
        ...

    @property
    def action_features(self) -> Mapping[str, Feature]:
        """What `get_action` returns, by key: those of the robot, or some of them."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether the device answers."""
        ...

    def connect(self, calibrate: bool = True) -> None:
        """Open the device."""
        ...

    def get_action(self) -> Action:
        """Return the wanted positions by name; never waits. Names left out keep their last command."""
        ...

    def send_feedback(self, feedback: Mapping[str, float]) -> None:
        """Show the device what the robot does, so that taking over starts where the robot is."""
        ...

    def disconnect(self) -> None:
        """Close the device."""
        ...


def read_vector(observation: Observation, keys: Sequence[str]) -> np.ndarray:
    """Return the values of `keys`, in this order, as one float64 vector; arrays are flattened.

    Raises:
        RobotError: A key is missing.
    """
    try:
        values = [observation[key] for key in keys]
    except KeyError as error:
        raise RobotError(
            f"the robot's observation lacks {error}; it has {', '.join(sorted(observation)[:8])}, …"
        ) from error
    try:
        return np.array(values, np.float64)
    except ValueError:
        return np.concatenate([np.ravel(value) for value in values]).astype(np.float64)


def action_vector(action: Action, names: Sequence[str]) -> np.ndarray:
    """Return the positions of `names`, in this order, as a float64 vector.

    Raises:
        RobotError: A name is missing or unknown, or a position is not finite.
    """
    if set(action) != set(names):
        different = ", ".join(sorted(set(action) ^ set(names))[:4])
        raise RobotError(
            f"the action has other names than the robot, such as {different}; send all of its own"
        )
    values = np.array([action[name] for name in names], np.float64)
    if not np.isfinite(values).all():
        name = names[int(np.argmax(~np.isfinite(values)))]
        raise RobotError(f"the position of '{name}' is {action[name]}; send finite positions")
    return values
