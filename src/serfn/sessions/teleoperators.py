"""Teleoperators by name, as they are written on the command line.

- `keyboard`: single keys jog one joint at a time; needs a terminal;
- `spacemouse`: a SpaceMouse moves the first six dimensions (extra `teleop`);
- `zmq:ADDRESS`: a stream of joint targets, see `serfn.robot.teleoperators.stream` (extra `teleop`);
- `lerobot:NAME,key=value,…`: a teleoperator of an installed LeRobot, with the fields of its configuration,
  such as `lerobot:so101_leader,port=/dev/ttyACM0,id=left`;
- `scripted`: the demonstrator of a simulated task, for trying things out;
- `package.module:Class`, or the name of an entry point `serfn.teleoperators`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from serfn.core.errors import ConfigError
from serfn.core.registry import attribute
from serfn.core.seeding import generator
from serfn.robot.contract import Action, Feature, Robot, Teleoperator, read_vector
from serfn.robot.parts.registry import build_teleoperator
from serfn.robot.teleoperation import KeyboardJog, LeRobotTeleoperator
from serfn.robot.teleoperators.relative import RelativeTeleoperator
from serfn.tasks.registry import task


def make_teleoperator(
    name: str,
    robot: Robot,
    *,
    jog: KeyboardJog | None = None,
    speed: float | None = None,
    seed: int = 0,
) -> Teleoperator:
    """Return a teleoperator by name, not connected.

    Args:
        name: See the module.
        robot: The robot that it moves.
        jog: What the keys move; None where there is no terminal.
        speed: Relative motion at this factor, see `RelativeTeleoperator`; None takes positions as they are.
        seed: Seed of a scripted one.

    Raises:
        ConfigError: Unknown name or option, or what it needs is not installed or not there.
    """
    device = _named(name, robot, jog, seed)
    return device if speed is None else RelativeTeleoperator(device, speed)


def _named(name: str, robot: Robot, jog: KeyboardJog | None, seed: int) -> Teleoperator:
    kind, _, detail = name.partition(":")
    if name == "keyboard":
        if jog is None:
            raise ConfigError("keys need a terminal; run in one, or choose another teleoperator")
        return jog
    if name == "scripted":
        return ScriptedTeleoperator(robot, seed)
    if name == "spacemouse":
        from serfn.robot.teleoperators.spacemouse import SpaceMouseTeleoperator

        return SpaceMouseTeleoperator(robot.info)
    if kind == "zmq":
        from serfn.robot.teleoperators.stream import StreamTeleoperator

        return StreamTeleoperator(detail, robot.info.action.names)
    if kind == "lerobot":
        return LeRobotTeleoperator(_lerobot(detail), robot.info.action.names)
    return build_teleoperator(name, robot.info)


def _lerobot(text: str) -> Any:
    """Return the teleoperator of LeRobot that `NAME,key=value,…` means."""
    kind, *assignments = text.split(",")
    options: dict[str, str] = {}
    for item in assignments:
        name, _, value = item.partition("=")
        options[name] = value
    try:
        from lerobot.teleoperators import (  # pyright: ignore[reportMissingImports]
            TeleoperatorConfig,
            make_teleoperator_from_config,
        )
    except ImportError as error:
        raise ConfigError(
            f"'lerobot:{kind}' needs LeRobot, which cannot be imported ({error}); pip install lerobot"
        ) from error
    try:
        return make_teleoperator_from_config(TeleoperatorConfig.get_choice_class(kind)(**options))
    # Other people's code: whatever it raises, the name or its options are what can be corrected.
    except Exception as error:
        raise ConfigError(
            f"LeRobot makes no teleoperator '{kind}' of {options}: {type(error).__name__}: {error}"
        ) from error


class ScriptedTeleoperator:
    """The demonstrator of a simulated task in the place of a person: sees what a policy would see.

    Args:
        robot: Robot `simulated:TASK`.
        seed: Seed of the demonstrator's draws, episode by episode.

    Raises:
        ConfigError: The robot is no simulated task with a demonstrator.
    """

    def __init__(self, robot: Robot, seed: int = 0) -> None:
        kind, _, name = robot.info.name.partition(":")
        if kind != "simulated" or not name:
            raise ConfigError(
                f"there is no script for robot '{robot.info.name}'; only simulated tasks have demonstrators"
            )
        entry = task(name)
        self._make: Callable[[np.random.Generator], Any] = attribute(
            entry.demonstrator, f"the demonstrator of {name}"
        )
        self._robot, self._seed = robot, seed
        self._episode = 0
        self._connected = False

    @property
    def name(self) -> str:
        """Short name of the device."""
        return "scripted"

    @property
    def action_features(self) -> Mapping[str, Feature]:
        """All dimensions of the robot."""
        return dict.fromkeys(self._robot.info.action.names, float)

    @property
    def is_connected(self) -> bool:
        """Whether `connect` was called."""
        return self._connected

    def connect(self, calibrate: bool = True) -> None:
        """Be ready."""
        self._connected = True

    def get_action(self) -> Action:
        """Return what the demonstrator does at the robot's newest observation."""
        info = self._robot.info
        seen = read_vector(self._robot.get_observation(), info.state_keys).astype(np.float32)
        action = self._demonstrator.act(seen)
        return {name: float(value) for name, value in zip(info.action.names, action, strict=True)}

    def send_feedback(self, feedback: Mapping[str, float]) -> None:
        """Begin an episode: the demonstrator draws how it goes about the task."""
        self._demonstrator = self._make(generator(self._seed, "script", self._episode))
        self._episode += 1

    def disconnect(self) -> None:
        """Nothing to close."""
        self._connected = False
