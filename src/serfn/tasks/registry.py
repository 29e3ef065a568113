"""The tasks by name, and their registration with Gymnasium."""

from __future__ import annotations

from dataclasses import dataclass

from gymnasium.envs.registration import register, registry

from serfn.core.errors import ConfigError
from serfn.core.registry import Registry


@dataclass(frozen=True)
class Task:
    """An environment with a demonstrator, known by a name.

    Attributes:
        env_id: Gymnasium id.
        entry_point: environment class as `module:Class`, imported when first used.
        max_episode_steps: time limit in control steps.
        demonstrator: `module:function` that returns the scripted demonstrator of an episode from a generator.
        summary: one line for people.
        plants: variants of the simulated system that the environment takes as `plant`: demonstrations are
            recorded on the first, its default, and the policy is fine-tuned on the last; empty if it takes
            none.
        preset: `module:function` of environment and budget that returns the training configuration; None
            takes the sizes of the cube's.
        simulated: whether nothing real moves when the environment steps; see `RobotInfo.simulated`.
    """

    env_id: str
    entry_point: str
    max_episode_steps: int
    demonstrator: str
    summary: str
    plants: tuple[str, ...] = ()
    preset: str | None = None
    simulated: bool = False


CUBE = Task(
    env_id="serfn/OrcaCubeRotation-v0",
    entry_point="serfn.tasks.orca_hand.cube_rotation:OrcaCubeRotation",
    max_episode_steps=400,
    demonstrator="serfn.tasks.orca_hand.cube_demonstrator:make_demonstrator",
    summary="in-hand cube rotation with a palm-down grasp (ORCA hand)",
    plants=("nominal", "field"),
    preset="serfn.runs.presets:cube",
    simulated=True,
)
DIAGNOSTIC = Task(
    env_id="serfn/PointObstacle-v0",
    entry_point="serfn.tasks.point_obstacle:PointObstacle",
    max_episode_steps=80,
    demonstrator="serfn.tasks.point_obstacle:make_demonstrator",
    summary="a point around an obstacle on either side, in seconds (no physics engine)",
    plants=("nominal", "field"),
    preset="serfn.runs.presets:diagnostic",
    simulated=True,
)
SCISSORS = Task(
    env_id="serfn/OrcaScissorsTape-v0",
    entry_point="serfn.tasks.orca_hand.scissors.task:OrcaScissorsTape",
    max_episode_steps=360,
    demonstrator="serfn.tasks.orca_hand.scissors.demonstrator:make_demonstrator",
    summary="take scissors out of a case and cut a tape (ORCA hand on a wrist)",
    plants=("nominal", "field"),
    preset="serfn.runs.presets:scissors",
    simulated=True,
)
VALVE = Task(
    env_id="serfn/OrcaValve-v0",
    entry_point="serfn.tasks.orca_hand.valve:OrcaValve",
    max_episode_steps=400,
    demonstrator="serfn.tasks.orca_hand.valve:make_demonstrator",
    summary="turn a valve with the palm-down hand (the example of a new task)",
    plants=("nominal", "field"),
    preset="serfn.runs.presets:valve",
    simulated=True,
)

_OURS = {"cube": CUBE, "diagnostic": DIAGNOSTIC, "scissors": SCISSORS, "valve": VALVE}

tasks: Registry[Task] = Registry(
    "tasks",
    {name: f"{__name__}:{name.upper()}" for name in _OURS},
    check=lambda part: None if isinstance(part, Task) else "is no serfn.tasks.registry.Task",
)
"""The tasks by name; other packages add theirs by entry points of the group `serfn.tasks`."""


def task(name: str) -> Task:
    """Return a task by its name, or by `package.module:TASK`.

    Raises:
        ConfigError: unknown name, with the known ones; or the task of another package does not work.
    """
    return tasks.find(name)


def env_of_task(name: str) -> str:
    """Return what a configuration calls the environment of a task.

    It is its Gymnasium id; a task that is named `package.module:TASK` keeps that name, by which every later
    process finds it.

    Raises:
        ConfigError: see `task`.
    """
    return name if ":" in name else task(name).env_id


def task_of_env(env: str | None) -> Task | None:
    """Return the task behind a Gymnasium id or a `package.module:TASK`; None for any other environment."""
    if env is None:
        return None
    for name, entry in _OURS.items():
        if entry.env_id == env:
            return tasks.find(name)
    # Gymnasium's `package:Id` looks alike; a name that is no task is an environment's.
    names = [env] if ":" in env else tasks.names()
    for name in names:
        try:
            entry = tasks.find(name)
        except ConfigError:
            # A package that does not work says so when it is asked for, and is in nobody's way before.
            continue
        if env in (entry.env_id, name):
            return entry
    return None


def register_envs() -> None:
    """Register our tasks with Gymnasium; calling it again does nothing."""
    for entry in _OURS.values():
        register_env(entry)


def register_env(entry: Task) -> None:
    """Register the environment of one task with Gymnasium, unless it is."""
    if entry.env_id not in registry:
        register(entry.env_id, entry.entry_point, max_episode_steps=entry.max_episode_steps)
