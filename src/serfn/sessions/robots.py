"""Robots by name, as they are written on the command line.

- `simulated:TASK`: one of our tasks in real time, with options `plant`, `impairments` and those of the
  environment;
- `gymnasium:ID`: any Gymnasium environment that steps with the commands. It counts as hardware, unless it
  is one of our tasks or the option `simulated` is true;
- `orca`: the ORCA hand by its driver, with options `mock`, `config_path`, `calibration_path`, `model_name`;
  `joint_map` presents it in a policy's terms (`orca_sim`, a file, or `none`), and `held` says instead of the
  map at which angles (rad, by joint) the joints stay that the policy does not command;
- `fake`: a few joints that follow, for trying things out;
- `package.module:Class`, or the name of an entry point `serfn.robots`: a robot of another package, made with
  the options as keyword arguments, see `serfn.robot.parts.registry`.

A LeRobot robot is an object, not a name: wrap it in `serfn.robot.adapters.lerobot.LeRobotRobot` in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serfn.core.config import from_dict
from serfn.core.errors import ConfigError
from serfn.core.seeding import generator
from serfn.core.words import did_you_mean
from serfn.robot.adapters.impairments import Impairments
from serfn.robot.clock import Clock
from serfn.robot.contract import Robot
from serfn.robot.parts.registry import build_robot, robots


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
    if kind == "simulated" and detail:
        return _simulated(name, detail, dict(options), clock, seed)
    if kind == "gymnasium" and detail:
        return _gymnasium(name, detail, dict(options), clock)
    if not detail and name not in (known := robots.names()):
        choices = ", ".join(("simulated:TASK", "gymnasium:ID", *known))
        raise ConfigError(
            f"unknown robot '{name}'{did_you_mean(name, known)}; choose one of {choices}, or name your own "
            "as package.module:Class"
        )
    return build_robot(name, options, clock, seed)


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
