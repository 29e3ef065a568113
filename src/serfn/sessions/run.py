"""A session from Python in one call, with a robot of one's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from serfn.robot.contract import Robot
from serfn.sessions.actor import RobotActor
from serfn.sessions.actor_learner import run_session
from serfn.sessions.config import RobotRunConfig
from serfn.sessions.folder import RobotFolder, create


def run_robot(
    robot: Robot,
    policy: str | Path,
    folder: str | Path,
    *,
    config: RobotRunConfig | None = None,
    episodes: int | None = None,
    confirmed: bool = False,
    **people: Any,
) -> str:
    """Run episodes of a policy on a robot, fine-tune it meanwhile, and return why the session ended.

    The robot stays in this process; a learner in a second process is started and ended here. A folder that
    holds the session already is gone on with, under its own configuration.

    Args:
        robot: The robot, not connected.
        policy: Folder of a training run; where nothing is learnt also a checkpoint or a policy bundle.
        folder: Folder of the session.
        config: Configuration, such as the limits file, the budget and where the learner runs; the robot's
            name in it is only recorded.
        episodes: End after this many; None leaves that to the budget and to people.
        confirmed: Whether a person has read and confirmed the limits; hardware does not start otherwise,
            unless a `person` confirms by a key.
        **people: Further arguments of `RobotActor`: clock, person, teleoperator, referee, workspace, watcher.

    Raises:
        SerfnError: Policy, robot and limits do not fit, or hardware is not confirmed.
        RobotError: The robot cannot start.
    """
    session = RobotFolder(Path(folder))
    if not session.exists:
        settings = dataclasses.replace(config or RobotRunConfig(), robot=robot.name)
        session = create(session.path, Path(policy), settings)
    with RobotActor(session, robot=robot, confirmed=confirmed, **people) as actor:
        return run_session(actor, episodes=episodes)
