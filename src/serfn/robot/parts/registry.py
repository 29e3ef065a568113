"""Robots, teleoperators and referees of other packages: found by name, made, and checked.

Each is a class or a function. It is called with the options that were given, as keyword arguments, and with
what its signature asks for by name: the loop's `clock` and a `seed` (robots), the robot's `info` and `action`
(teleoperators and referees).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from serfn.core.errors import ConfigError, SerfnError
from serfn.core.registry import Registry, attribute
from serfn.robot.clock import Clock
from serfn.robot.contract import Observation, Referee, Robot, RobotInfo, Teleoperator, Verdict
from serfn.robot.safety import Workspace


def _no_maker(part: object) -> str | None:
    return None if callable(part) else "is neither a class nor a function"


robots: Registry[Any] = Registry(
    "robots",
    {"fake": "serfn.robot.parts.making:fake", "orca": "serfn.robot.parts.making:orca"},
    check=_no_maker,
)
"""What makes a robot, by name."""

teleoperators: Registry[Any] = Registry(
    "teleoperators", {"keyboard": "serfn.robot.teleoperation:KeyboardJog"}, check=_no_maker
)
"""What makes a teleoperator, by name."""

rewards: Registry[Any] = Registry("rewards", {}, check=_no_maker)
"""Classes of referees, and functions from an observation to a `Verdict` or a reward, by name."""


def build_robot(name: str, options: Mapping[str, Any], clock: Clock, seed: int) -> Robot:
    """Return a registered robot, or one that is named `package.module:Class`; it is not connected.

    Raises:
        ConfigError: Unknown name or option, it cannot be made, or it lacks a part of the contract.
    """
    robot = _make(robots.find(name), f"robot '{name}'", options, {"clock": clock, "seed": seed})
    _require(robot, Robot, f"robot '{name}'")
    if not isinstance(robot.info, RobotInfo):
        raise ConfigError(f"robot '{name}': info is {robot.info!r}; return a serfn.robot.contract.RobotInfo")
    return robot


def build_teleoperator(name: str, info: RobotInfo) -> Teleoperator:
    """Return a registered teleoperator, or one that is named `package.module:Class`; it is not connected.

    Raises:
        ConfigError: Unknown name, it cannot be made, or it lacks a part of the contract.
    """
    device = _make(
        teleoperators.find(name), f"teleoperator '{name}'", {}, {"info": info, "action": info.action}
    )
    _require(device, Teleoperator, f"teleoperator '{name}'")
    return device


def build_referee(name: str, info: RobotInfo) -> Referee:
    """Return the judge of each step: an object of a class with `judge`, or a function in its place.

    Raises:
        ConfigError: Unknown name, it cannot be made, or it lacks `judge`.
    """
    part = rewards.find(name)
    if not isinstance(part, type):
        return FunctionReferee(part)
    referee = _make(part, f"reward '{name}'", {}, {"info": info})
    _require(referee, Referee, f"reward '{name}'")
    return referee


def find_workspace(name: str) -> Workspace:
    """Return the function `package.module:function` that brings wanted positions into a task's workspace.

    Raises:
        ConfigError: It cannot be imported, or is no function.
    """
    part: Any = attribute(name, f"workspace '{name}'")
    if _no_maker(part) is not None:
        raise ConfigError(f"workspace '{name}' is {part!r}; name a function of positions and observation")
    return part


class FunctionReferee:
    """A referee that asks a function.

    Args:
        function: Takes the newest observation; returns a `Verdict`, or the reward alone.
    """

    def __init__(self, function: Any) -> None:
        self._function = function

    def judge(self, observation: Observation) -> Verdict:
        """See `Referee`."""
        said = self._function(observation)
        return said if isinstance(said, Verdict) else Verdict(reward=float(said))


def _make(part: Any, what: str, options: Mapping[str, Any], offered: Mapping[str, Any]) -> Any:
    try:
        signature = inspect.signature(part)
    except (TypeError, ValueError):
        signature = inspect.Signature()
    given = {name: value for name, value in offered.items() if name in signature.parameters}
    try:
        signature.bind(**given, **options)
    except TypeError as error:
        raise ConfigError(
            f"{what} refuses the options {dict(options)}: {error}; it takes {signature}"
        ) from error
    try:
        return part(**given, **options)
    except SerfnError:
        raise
    # Other people's code: whatever it raises while it is made, it is that part which does not work.
    except Exception as error:
        raise ConfigError(
            f"{what} cannot be made with {dict(options)}: {type(error).__name__}: {error}; correct them"
        ) from error


def _require(part: Any, contract: Any, what: str) -> None:
    members = [name for name in vars(contract) if not name.startswith("_")]
    missing = [name for name in members if not hasattr(type(part), name) and not hasattr(part, name)]
    if missing:
        raise ConfigError(
            f"{what} is no {contract.__name__}: {type(part).__name__} has no {', '.join(missing)}; see "
            "serfn.robot.contract"
        )
