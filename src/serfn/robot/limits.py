"""The limits of a robot: a TOML file that is validated against the robot and shown before anything moves.

```toml
robot = "orca"
unit = "rad"
max_current_ma = 450.0        # leave out where currents are not measured
max_temperature_c = 65.0

[joints."index_mcp.pos"]
low = -0.4
high = 1.7
max_speed = 3.0               # per second
max_acceleration = 60.0       # per second squared

[observation_watchdog]
warn_s = 0.08
hold_s = 0.15
stop_s = 1.0
```
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from serfn.core.config import load_config, to_dict
from serfn.core.errors import ConfigError
from serfn.core.words import did_you_mean
from serfn.robot.contract import PositionUnit, RobotInfo
from serfn.robot.watchdog import WatchdogConfig

_ROUND_OFF = 1e-6
_MAX_TEMPERATURE_C = 65.0


@dataclass(frozen=True)
class JointLimits:
    """Limits of one commanded dimension, in the robot's unit.

    Attributes:
        low: Lowest command.
        high: Highest command.
        max_speed: Largest change of the command per second.
        max_acceleration: Largest change of that speed per second.

    Raises:
        ConfigError: Bounds are not ordered, or a rate is not positive.
    """

    low: float
    high: float
    max_speed: float
    max_acceleration: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"position limits are [{self.low}, {self.high}]; give low < high")
        for name in ("max_speed", "max_acceleration"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive and finite")


@dataclass(frozen=True)
class StallLimits:
    """When a joint counts as stalled: far from its command, and not moving, for a while.

    A hand that grasps presses its fingers into the object; the error allowed must be larger than that.

    Attributes:
        error: Distance between the command and the measured position, in the robot's unit.
        speed: Measured speed below which the joint does not move, per second.
        seconds: How long both must last.

    Raises:
        ConfigError: A value is not positive.
    """

    error: float
    speed: float = 0.05
    seconds: float = 1.0

    def __post_init__(self) -> None:
        for name in ("error", "speed", "seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"stall {name} is {getattr(self, name)}; it must be positive and finite")


@dataclass(frozen=True)
class SafetyLimits:
    """Everything the safety supervisor enforces.

    Attributes:
        robot: Name of the robot that the limits were made for.
        joints: Limits by action name.
        unit: Unit of positions.
        max_current_ma: Motor current that stops the robot when it lasts `over_current_s`; None does not
            watch it.
        over_current_s: How long a current may exceed the limit.
        max_temperature_c: Motor temperature that stops the robot; None does not watch it.
        stall: When a joint counts as stalled; None does not watch it.
        start_tolerance: How far outside `[low, high]` a joint may be when motion starts; the first commands
            bring it in.
        frozen_s: How long measured positions may repeat bit for bit while the command moves, before the
            sensor counts as frozen.
        frozen_distance: How far the command must have moved in that time, in the robot's unit.
        observation_watchdog: Ages of the newest good measurement.
        policy_watchdog: Ages of the last action to execute.

    Raises:
        ConfigError: There are no joints or a limit is not positive.
    """

    robot: str
    joints: Mapping[str, JointLimits]
    unit: PositionUnit = "rad"
    max_current_ma: float | None = None
    over_current_s: float = 0.2
    max_temperature_c: float | None = None
    stall: StallLimits | None = None
    start_tolerance: float = 0.1
    frozen_s: float = 0.3
    frozen_distance: float = 0.05
    observation_watchdog: WatchdogConfig = field(default_factory=lambda: WatchdogConfig(0.08, 0.15, 1.0))
    policy_watchdog: WatchdogConfig = field(default_factory=lambda: WatchdogConfig(0.08, 0.15, 2.0))

    def __post_init__(self) -> None:
        if not self.joints:
            raise ConfigError(
                f"the limits of '{self.robot}' name no joints; add one [joints.<name>] for each"
            )
        for name in (
            "max_current_ma",
            "over_current_s",
            "max_temperature_c",
            "start_tolerance",
            "frozen_s",
            "frozen_distance",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}; it must be positive and finite")

    def check(self, info: RobotInfo) -> None:
        """Raise unless the limits fit the robot.

        Raises:
            ConfigError: Another robot or unit, a joint is missing or unknown, a limit is wider than the
                robot's own bounds, a watched sensor does not exist, or the rest pose lies outside.
        """
        if (self.robot, self.unit) != (info.name, info.unit):
            raise ConfigError(
                f"the limits are for '{self.robot}' in {self.unit}, the robot is '{info.name}' in "
                f"{info.unit}; use the file of this robot"
            )
        names = info.action.names
        for name in self.joints:
            if name not in names:
                raise ConfigError(
                    f"limits for unknown joint '{name}'{did_you_mean(name, names)}; remove them"
                )
        bounds = zip(names, info.action.low, info.action.high, info.rest or (None,) * len(names), strict=True)
        for name, low, high, rest in bounds:
            if name not in self.joints:
                raise ConfigError(f"joint '{name}' has no limits; add [joints.{_toml_key(name)}]")
            limits, slack = self.joints[name], _ROUND_OFF * (high - low)
            if limits.low < low - slack or limits.high > high + slack:
                raise ConfigError(
                    f"joint '{name}' is limited to [{limits.low:g}, {limits.high:g}], wider than the robot's "
                    f"[{low:g}, {high:g}]; narrow it"
                )
            if rest is not None and not limits.low <= rest <= limits.high:
                raise ConfigError(
                    f"the rest position {rest:g} of '{name}' lies outside its limits [{limits.low:g}, "
                    f"{limits.high:g}]; widen them or move the rest pose"
                )
        for limit, keys, sensor in (
            (self.max_current_ma, info.current_keys, "current"),
            (self.max_temperature_c, info.temperature_keys, "temperature"),
            (self.stall, info.position_keys, "position"),
        ):
            if limit is not None and not keys:
                raise ConfigError(f"robot '{info.name}' measures no {sensor}; remove the limit on it")

    def column(self, name: str, info: RobotInfo) -> np.ndarray:
        """Return one field of `JointLimits` as `[action]` float64, in the order of the robot's commands."""
        return np.array([getattr(self.joints[joint], name) for joint in info.action.names], np.float64)


def default_limits(
    info: RobotInfo, *, max_speed: float = 3.0, max_acceleration: float = 120.0, margin: float = 0.0
) -> SafetyLimits:
    """Limits as wide as the robot's own bounds, for a start.

    Temperatures are watched where they are measured. What current and what stall are too much depends on
    motors and task; they are not watched before somebody says so.

    Args:
        info: The robot.
        max_speed: Per second, for every joint.
        max_acceleration: Per second squared, for every joint. At 20 Hz, 120 rad/s² lets a command turn from
            full speed to full speed the other way within one step.
        margin: Distance kept from each of the robot's bounds, as a fraction of the range; the rest pose may
            lie inside it.
    """
    joints = {}
    rest = info.rest or (None,) * info.action.dim
    for name, low, high, parked in zip(
        info.action.names, info.action.low, info.action.high, rest, strict=True
    ):
        inner_low, inner_high = low + margin * (high - low), high - margin * (high - low)
        if parked is not None:
            inner_low, inner_high = min(inner_low, parked), max(inner_high, parked)
        joints[name] = JointLimits(inner_low, inner_high, max_speed, max_acceleration)
    return SafetyLimits(
        robot=info.name,
        joints=joints,
        unit=info.unit,
        max_temperature_c=_MAX_TEMPERATURE_C if info.temperature_keys else None,
    )


def load_limits(path: str | Path, info: RobotInfo) -> SafetyLimits:
    """Read a limits file and check it against the robot.

    Raises:
        ConfigError: The file cannot be read or does not fit; the message names the key.
    """
    limits = load_config(SafetyLimits, path)
    try:
        limits.check(info)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return limits


def limits_toml(limits: SafetyLimits) -> str:
    """Return the text of a limits file that `load_limits` reads back unchanged."""
    return "\n".join(_toml_lines(to_dict(limits), ())) + "\n"


def describe_limits(limits: SafetyLimits) -> str:
    """Return what a person reads before the robot moves: one line per joint, then the other limits."""
    unit = limits.unit
    width = max(len(name) for name in limits.joints)
    lines = [f"Limits of {limits.robot}: position in {unit}, speed per s, acceleration per s²"]
    lines += [
        f"  {name:<{width}}  [{joint.low:+.3f}, {joint.high:+.3f}]  "
        f"{joint.max_speed:g}/s  {joint.max_acceleration:g}/s²"
        for name, joint in limits.joints.items()
    ]
    stall = limits.stall
    lines += [
        f"  current      {_limit(limits.max_current_ma, 'mA', limits.over_current_s)}",
        f"  temperature  {_limit(limits.max_temperature_c, '°C')}",
        f"  stall        {_limit(stall and stall.error, unit, stall.seconds if stall else None)}",
    ]
    for name, dog in (("observation", limits.observation_watchdog), ("policy", limits.policy_watchdog)):
        lines.append(f"  {name:<11}  warn {dog.warn_s:g} s, hold {dog.hold_s:g} s, stop {dog.stop_s:g} s")
    return "\n".join(lines)


def _limit(value: float | None, unit: str, seconds: float | None = None) -> str:
    if value is None:
        return "not watched"
    return f"{value:g} {unit}" + ("" if seconds is None else f" for {seconds:g} s")


def _toml_lines(table: Mapping[str, object], path: tuple[str, ...]) -> list[str]:
    """Lines of a nested table of strings, numbers and tables; absent values are left out."""
    lines = [
        f"{_toml_key(key)} = {json.dumps(value)}"
        for key, value in table.items()
        if value is not None and not isinstance(value, Mapping)
    ]
    if path and lines:
        lines.insert(0, f"\n[{'.'.join(_toml_key(part) for part in path)}]")
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += _toml_lines(value, (*path, key))
    return lines


def _toml_key(key: str) -> str:
    # A JSON string is a TOML basic string.
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
