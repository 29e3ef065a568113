"""The tasks by name, and their registration with Gymnasium."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium

from serfn.core.errors import ConfigError


@dataclass(frozen=True)
class Task:
    """One of our tasks.

    Attributes:
        name: short name on the command line.
        env_id: Gymnasium id.
        entry_point: environment class, imported when first used.
        max_episode_steps: time limit in control steps.
        demonstrator: `module:function` that returns the scripted demonstrator of an episode from a generator.
        summary: one line for people.
    """

    name: str
    env_id: str
    entry_point: str
    max_episode_steps: int
    demonstrator: str
    summary: str


TASKS: dict[str, Task] = {
    "cube": Task(
        name="cube",
        env_id="serfn/OrcaCubeRotation-v0",
        entry_point="serfn.tasks.orca_hand.cube_rotation:OrcaCubeRotation",
        max_episode_steps=400,
        demonstrator="serfn.tasks.orca_hand.cube_demonstrator:make_demonstrator",
        summary="in-hand cube rotation with a palm-down grasp (ORCA hand)",
    ),
    "diagnostic": Task(
        name="diagnostic",
        env_id="serfn/PointObstacle-v0",
        entry_point="serfn.tasks.point_obstacle:PointObstacle",
        max_episode_steps=80,
        demonstrator="serfn.tasks.point_obstacle:make_demonstrator",
        summary="a point around an obstacle on either side, in seconds (no physics engine)",
    ),
    "scissors": Task(
        name="scissors",
        env_id="serfn/OrcaScissorsTape-v0",
        entry_point="serfn.tasks.orca_hand.scissors:OrcaScissorsTape",
        max_episode_steps=360,
        demonstrator="serfn.tasks.orca_hand.scissors_demonstrator:make_demonstrator",
        summary="take scissors out of a case and cut a tape (ORCA hand on a wrist)",
    ),
    "valve": Task(
        name="valve",
        env_id="serfn/OrcaValve-v0",
        entry_point="serfn.tasks.orca_hand.valve:OrcaValve",
        max_episode_steps=400,
        demonstrator="serfn.tasks.orca_hand.valve:make_demonstrator",
        summary="turn a valve with the palm-down hand (the example of a new task)",
    ),
}


def task(name: str) -> Task:
    """Return a task by its short name.

    Raises:
        ConfigError: unknown name; the message lists the known ones.
    """
    if name not in TASKS:
        raise ConfigError(
            f"unknown task {name!r}; choose one of {', '.join(TASKS)}, or give any environment by its id"
        )
    return TASKS[name]


def task_of_env(env_id: str) -> Task | None:
    """Return our task behind a Gymnasium id, or None for any other environment."""
    return next((entry for entry in TASKS.values() if entry.env_id == env_id), None)


def register_envs() -> None:
    """Register every task with Gymnasium; calling it again does nothing."""
    for entry in TASKS.values():
        if entry.env_id not in gymnasium.registry:
            gymnasium.register(entry.env_id, entry.entry_point, max_episode_steps=entry.max_episode_steps)
