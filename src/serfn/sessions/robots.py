"""Robots by name, as they are written on the command line.

- `simulated:TASK`: one of our tasks in real time, with options `plant`, `impairments` and those of the
  environment;
- `gymnasium:ID`: any Gymnasium environment that steps with the commands. It counts as hardware, unless it
  is one of our tasks or the option `simulated` is true;
- `orca`: the ORCA hand by its driver, with options `mock`, `config_path`, `calibration_path`, `model_name`;
  `joint_map` presents it in a policy's terms (`orca_sim`, a file, or `none`), and `held` says instead of the
  map at which angles (rad, by joint) the joints stay that the policy does not command;
- `fake`: a few joints that follow, for trying things out.

A LeRobot robot is an object, not a name: wrap it in `serfn.robot.adapters.lerobot.LeRobotRobot` in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import ConfigError
from serfn.core.seeding import generator
from serfn.robot.adapters.impairments import Impairments
from serfn.robot.adapters.joint_map import JointMap, load_joint_map
from serfn.robot.adapters.mapped import MappedRobot
from serfn.robot.clock import Clock
from serfn.robot.contract import Robot

KINDS = ("simulated:TASK", "gymnasium:ID", "orca", "fake")


def make_robot(name: str, options: Mapping[str, Any], clock: Clock, *, seed: int = 0) -> Robot:
    """Return a robot by name, not connected.

    Args:
        name: See the module.
        options: Options of its adapter; an unknown one is refused by whatever it is passed to.
        clock: Clock of the control loop.
        seed: Seed of the adapter's own draws, such as jitter.

    Raises:
        ConfigError: Unknown name or option, or the driver is not installed.
    """
    kind, _, detail = name.partition(":")
    match kind:
        case "simulated" if detail:
            return _simulated(name, detail, dict(options), clock, seed)
        case "gymnasium" if detail:
            return _gymnasium(name, detail, dict(options), clock)
        case "orca":
            return _orca(dict(options), clock)
        case "fake":
            return _fake(dict(options), clock, seed)
        case _:
            raise ConfigError(f"unknown robot '{name}'; choose one of {', '.join(KINDS)}")


def _simulated(name: str, task: str, options: dict[str, Any], clock: Clock, seed: int) -> Robot:
    from serfn.robot.adapters.simulated import SimulatedRobot
    from serfn.rollout.environments import make_env
    from serfn.tasks.registry import env_of_task
    from serfn.tasks.registry import task as find_task

    impairments = from_dict(Impairments, options.pop("impairments", {}), "impairments")
    rest = options.pop("rest", None)
    entry = find_task(task)
    if not entry.simulated:
        raise ConfigError(
            f"task '{task}' does not say that its environment is a simulation (Task.simulated); run it as "
            f"gymnasium:{entry.env_id}, which counts as hardware"
        )
    plant = {"plant": entry.plants[-1]} if entry.plants else {}
    env = make_env(env_of_task(task), **plant | options)
    draws = generator(seed, "robot", name)
    return SimulatedRobot(env, clock, name, impairments=impairments, generator=draws, rest=rest)


def _gymnasium(name: str, env_id: str, options: dict[str, Any], clock: Clock) -> Robot:
    from serfn.robot.adapters.gymnasium import GymnasiumRobot
    from serfn.rollout.environments import make_env
    from serfn.tasks.registry import task_of_env

    entry = task_of_env(env_id)
    simulated = options.pop("simulated", entry is not None and entry.simulated)
    if not isinstance(simulated, bool):
        raise ConfigError(f"robot_options.simulated is {simulated!r}; say true or false")
    return GymnasiumRobot(make_env(env_id, **options), clock, name, unit_rad=False, simulated=simulated)


def _orca(options: dict[str, Any], clock: Clock) -> Robot:
    from serfn.robot.adapters.orca import OrcaRobot, load_orca_hand

    control_hz = options.pop("control_hz", 20.0)
    joints = _joint_map(options.pop("joint_map", "none"), options.pop("held", None))
    try:
        hand = load_orca_hand(**options)
        robot = OrcaRobot(hand, clock, control_hz, simulated=options.get("mock") is True)
    except TypeError as error:
        raise ConfigError(f"the orca robot refuses the options {options}: {error}; correct them") from error
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


def _fake(options: dict[str, Any], clock: Clock, seed: int) -> Robot:
    from serfn.robot.adapters.fake import FakeRobot

    impairments = from_dict(Impairments, options.pop("impairments", {}), "impairments")
    try:
        return FakeRobot(
            clock, impairments=impairments, generator=generator(seed, "robot", "fake"), **options
        )
    except TypeError as error:
        raise ConfigError(f"the fake robot refuses the options {options}: {error}; correct them") from error
