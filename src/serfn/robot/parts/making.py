"""How our own adapters are made from the options of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import ConfigError
from serfn.core.seeding import generator
from serfn.robot.adapters import orca as hand
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.adapters.impairments import Impairments
from serfn.robot.adapters.joint_map import JointMap, load_joint_map
from serfn.robot.adapters.mapped import MappedRobot
from serfn.robot.clock import Clock
from serfn.robot.contract import Robot


def fake(clock: Clock, seed: int, *, impairments: Mapping[str, Any] | None = None, **options: Any) -> Robot:
    """Return a few joints that follow; see `FakeRobot` for the options.

    Raises:
        ConfigError: An impairment is unknown.
    """
    spoilt = from_dict(Impairments, impairments or {}, "impairments")
    return FakeRobot(clock, impairments=spoilt, generator=generator(seed, "robot", "fake"), **options)


def orca(
    clock: Clock,
    *,
    control_hz: float = 20.0,
    joint_map: Any = "none",
    held: Any = None,
    mock: bool = False,
    **options: Any,
) -> Robot:
    """Return the ORCA hand by its driver; see `load_orca_hand` for further options.

    Args:
        clock: Clock of the loop.
        control_hz: Commands per second.
        joint_map: Presents it in a policy's terms: `orca_sim`, a file, or `none`.
        held: Instead of the map: at which angles (rad, by joint) the joints stay that are not commanded.
        mock: The driver's mock, without hardware.
        options: Options of the driver.

    Raises:
        ConfigError: The driver is not installed or refuses the options, or the map does not fit.
    """
    joints = _joint_map(joint_map, held)
    robot = hand.OrcaRobot(
        hand.load_orca_hand(mock=mock, **options), clock, control_hz, simulated=mock is True
    )
    return robot if joints is None else MappedRobot(robot, joints)


def _joint_map(name: Any, held: Any) -> JointMap | None:
    """Return the table that the options name, with the joints that they hold; None without one."""
    if name in (None, "none"):
        if held is not None:
            raise ConfigError(f"held is {held} without a joint map; name one with robot_options.joint_map")
        return None
    if not isinstance(name, str):
        raise ConfigError(f"joint_map is {name!r}; name a table, a file, or 'none'")
    joints = load_joint_map(name)
    if held is None:
        return joints
    return from_dict(JointMap, {**to_dict(joints), "held_rad": held}, "robot_options")
