"""The joints that a policy commands, as those of a robot: names, signs, zeros and ranges.

A simulated hand and a driver may describe one mechanism differently. For every joint, in rad,

    robot_angle = sign * policy_angle + offset_rad.

`MappedRobot` presents a robot in the policy's terms. The table of the ORCA hand, `orca_sim.toml` beside this
module, says where each of its rows comes from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from serfn.core.config import load_config
from serfn.core.errors import ConfigError
from serfn.core.words import did_you_mean

Basis = Literal["frames", "closest", "assumed", "seen"]
"""Where a row comes from: `frames`, sign and zero follow from the descriptions of both hands; `closest`, the
sign does, and the zero is where the links, mounted differently, come closest; `assumed`, sign or zero is a
guess; `seen`, a person saw the joint move rightly and stand rightly."""

MAPS = {"orca_sim": Path(__file__).with_name("orca_sim.toml")}
"""Tables that come with the package, by name."""

_RANGE_TOLERANCE_RAD = 2e-3
_MIN_OVERLAP = 0.5


@dataclass(frozen=True)
class JointRow:
    """One joint, as the policy knows it and as the robot has it.

    Attributes:
        policy: Name of the joint to the policy.
        robot: Name of the joint to the robot's driver.
        sign: 1 if both angles rise together, else -1.
        offset_rad: Angle of the robot where that of the policy is 0.
        policy_range_rad: Range of the joint where the policy was trained, in the policy's angle.
        robot_range_rad: Range of motion that the driver is configured with, in the robot's angle.
        basis: How far the row can be trusted, see `Basis`.
        positive: What a person sees when the policy's angle rises.

    Raises:
        ConfigError: A name is missing, the sign is not 1 or -1, a number is not finite, a range is not
            ordered, or the ranges overlap by less than half of the smaller, as with a wrong sign or zero.
    """

    policy: str
    robot: str
    sign: int
    offset_rad: float
    policy_range_rad: tuple[float, float]
    robot_range_rad: tuple[float, float]
    basis: Basis = "assumed"
    positive: str = ""

    def __post_init__(self) -> None:
        if not (self.policy and self.robot):
            raise ConfigError(f"a joint is named '{self.policy}' and '{self.robot}'; give both names")
        if self.sign not in (1, -1):
            raise ConfigError(f"the sign of joint '{self.policy}' is {self.sign}; it must be 1 or -1")
        if not math.isfinite(self.offset_rad):
            raise ConfigError(
                f"offset_rad of joint '{self.policy}' is {self.offset_rad}; give a finite angle"
            )
        for name in ("policy_range_rad", "robot_range_rad"):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ConfigError(
                    f"{name} of joint '{self.policy}' is [{low}, {high}]; give finite low < high"
                )
        low, high = self.bounds_rad
        shared = min(high, self.policy_range_rad[1]) - max(low, self.policy_range_rad[0])
        smaller = min(high - low, self.policy_range_rad[1] - self.policy_range_rad[0])
        if shared < _MIN_OVERLAP * smaller:
            raise ConfigError(
                f"the ranges of joint '{self.policy}' hardly meet: the robot reaches [{low:.3f}, {high:.3f}] "
                f"in the policy's angle, which has [{self.policy_range_rad[0]:.3f}, "
                f"{self.policy_range_rad[1]:.3f}]; correct sign or offset_rad"
            )

    @property
    def bounds_rad(self) -> tuple[float, float]:
        """Range of motion of the robot in the policy's angle."""
        low, high = sorted(self.sign * (end - self.offset_rad) for end in self.robot_range_rad)
        return low, high


@dataclass(frozen=True)
class JointMap:
    """All joints of a robot in the policy's order.

    Attributes:
        name: Short name of the table; part of the mapped robot's name.
        joints: One row for every joint of the robot.
        held_rad: Angles (the policy's) of the joints that the policy does not command.

    Raises:
        ConfigError: No name or rows, a name is repeated, all joints are held, or a held joint is unknown or
            to be held beyond what the robot reaches.
    """

    name: str
    joints: tuple[JointRow, ...]
    held_rad: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.name or not self.joints:
            raise ConfigError(f"joint map '{self.name}' has {len(self.joints)} joints; give a name and rows")
        rows = {row.policy: row for row in self.joints}
        for names in ([row.policy for row in self.joints], [row.robot for row in self.joints]):
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise ConfigError(f"joint map '{self.name}' has joint '{repeated[0]}' twice; give it one row")
        for joint, angle in self.held_rad.items():
            if joint not in rows:
                raise ConfigError(
                    f"held joint '{joint}' is no joint of map '{self.name}'{did_you_mean(joint, rows)}"
                )
            low, high = rows[joint].bounds_rad
            if not low <= angle <= high:
                raise ConfigError(
                    f"joint '{joint}' is to be held at {angle} rad, outside [{low:.3f}, {high:.3f}]; move it"
                )
        if len(self.held_rad) == len(rows):
            raise ConfigError(f"joint map '{self.name}' holds all joints; leave some to the policy")

    @property
    def commanded(self) -> tuple[JointRow, ...]:
        """Rows of the joints that the policy commands, in its order."""
        return tuple(row for row in self.joints if row.policy not in self.held_rad)

    def to_robot(self, policy_rad: np.ndarray) -> np.ndarray:
        """Return the robot's angles `[..., joint]` for the policy's, all joints in the map's order."""
        return self._signs * np.asarray(policy_rad, np.float64) + self._offsets_rad

    def to_policy(self, robot_rad: np.ndarray) -> np.ndarray:
        """Inverse of `to_robot`."""
        return self._signs * (np.asarray(robot_rad, np.float64) - self._offsets_rad)

    def check(self, ranges_rad: Mapping[str, tuple[float, float]]) -> None:
        """Raise unless the table describes the robot whose joints have these ranges of motion.

        Zeros of a hand that is calibrated at its stops move with its ranges: those must be the table's.

        Raises:
            ConfigError: A joint is missing on one side, or its range is another.
        """
        rows = {row.robot: row for row in self.joints}
        for name in sorted(set(rows) ^ set(ranges_rad)):
            where = "the robot" if name in ranges_rad else "the table"
            raise ConfigError(
                f"joint map '{self.name}' does not fit: only {where} has joint '{name}'; was it made for "
                "another model of the hand? Give the file of your own table"
            )
        for name, (low, high) in ranges_rad.items():
            row = rows[name].robot_range_rad
            if max(abs(row[0] - low), abs(row[1] - high)) > _RANGE_TOLERANCE_RAD:
                raise ConfigError(
                    f"joint map '{self.name}' was made for '{name}' in [{row[0]:.3f}, {row[1]:.3f}] rad, "
                    f"this robot has [{low:.3f}, {high:.3f}]; check zero and range in a table of your own"
                )

    def describe(self) -> str:
        """Return what a person reads before the robot moves: one line per joint."""
        width = max(len(row.policy) for row in self.joints)
        lines = [f"Joint map {self.name}: policy's joint, robot's joint, angles in rad"]
        for row in self.joints:
            low, high = row.bounds_rad
            held = f", held at {self.held_rad[row.policy]:+.3f}" if row.policy in self.held_rad else ""
            sign = "-" if row.sign < 0 else "+"
            lines.append(
                f"  {row.policy:<{width}}  {row.robot:<{width}}  robot = {sign}policy "
                f"{row.offset_rad:+.3f}  trained in [{row.policy_range_rad[0]:+.3f}, "
                f"{row.policy_range_rad[1]:+.3f}]  reaches [{low:+.3f}, {high:+.3f}]  {row.basis}{held}"
            )
        unseen = sum(row.basis != "seen" for row in self.joints)
        lines.append(
            f"  {unseen} of {len(self.joints)} joints were not seen to move rightly; watch each of them"
        )
        return "\n".join(lines)

    @property
    def _signs(self) -> np.ndarray:
        return np.array([row.sign for row in self.joints], np.float64)

    @property
    def _offsets_rad(self) -> np.ndarray:
        return np.array([row.offset_rad for row in self.joints], np.float64)


def load_joint_map(name: str | Path) -> JointMap:
    """Return a table that comes with the package, or read one from a TOML or JSON file.

    Raises:
        ConfigError: There is no such table or file, or it is not valid; the message names the key.
    """
    if str(name) not in MAPS and not Path(name).suffix:
        raise ConfigError(
            f"unknown joint map '{name}'{did_you_mean(str(name), MAPS)}; name {', '.join(MAPS)} or a file"
        )
    return load_config(JointMap, MAPS.get(str(name), Path(name)))
