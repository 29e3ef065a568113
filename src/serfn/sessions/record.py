"""Recording demonstrations on a robot: a person moves it, and every step is on file as it is executed.

The folder is a durable store (`serfn.data.store`), beside which `interaction.json` keeps what was used of the
budget. Recording again into the same folder goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from serfn.core.errors import ConfigError
from serfn.core.spec import TaskSpec
from serfn.data.store.store import EpisodeStore
from serfn.robot.clock import Clock
from serfn.robot.contract import Robot, Teleoperator
from serfn.sessions.config import RobotRunConfig
from serfn.sessions.session import Outcome, Person, RobotSession, SessionWatcher

EPISODE_S = 60.0
"""Time limit of a recorded episode where none is asked for."""

_USE_FILE = "interaction.json"


def recording_session(
    robot: Robot,
    teleoperator: Teleoperator,
    folder: str | Path,
    config: RobotRunConfig,
    *,
    clock: Clock,
    person: Person | None = None,
    watcher: SessionWatcher | None = None,
    confirmed: bool = False,
) -> RobotSession:
    """Return a session in which the teleoperator moves the robot, from the first step of every episode.

    Args:
        robot: The robot, not connected.
        teleoperator: How a person moves it.
        folder: Folder of the recording, new or gone on with.
        config: Rate, limits, time limit, reset, budget and judge.
        clock: Clock of loop and robot.
        person: Who starts, stops and labels; None if nobody is at the keys.
        watcher: Is told what happens.
        confirmed: Whether a person has read and confirmed the limits.

    Raises:
        ConfigError: The device moves nothing of the robot, or hardware has no limits or nobody to confirm.
        DataError: The folder holds something else, or the recording of another robot or rate.
    """
    moved, joints = teleoperator.action_features, robot.info.action.names
    if not set(moved) & set(joints):
        raise ConfigError(
            f"teleoperator '{teleoperator.name}' moves {', '.join(moved) or 'nothing'}, robot "
            f"'{robot.info.name}' has {', '.join(joints)}; they have no joint in common"
        )
    info = robot.info
    control_hz = config.control_hz or info.control_hz
    task = TaskSpec(
        id=config.task or info.name,
        observation=info.observation,
        action=info.action,
        control_hz=control_hz,
        max_episode_steps=max(1, round((config.episode_s or EPISODE_S) * control_hz)),
    )
    path = Path(folder)
    return RobotSession(
        config,
        task,
        robot,
        None,
        path,
        path / _USE_FILE,
        clock=clock,
        person=person,
        teleoperator=teleoperator,
        watcher=watcher,
        confirmed=confirmed,
    )


def record(
    session: RobotSession,
    episodes: int | None,
    *,
    after_episode: Callable[[Outcome], None] = lambda outcome: None,
) -> str:
    """Record until the folder holds `episodes` that were not discarded, and return why it ended.

    Args:
        session: From `recording_session`, opened.
        episodes: Episodes that the folder shall hold; None leaves the end to people and the budget.
        after_episode: Called with each outcome.

    Raises:
        RobotError: The robot cannot start.
    """
    while episodes is None or (kept := kept_episodes(session.recorder.path)) < episodes:
        outcome = session.run_episode()
        if outcome is None:
            return session.ended or "the robot is stopped"
        after_episode(outcome)
    return f"{kept} episodes are recorded"


def kept_episodes(folder: Path) -> int:
    """Return how many episodes of a recording are whole and were not discarded."""
    store = EpisodeStore(folder)
    rows = [store.summary(number) for number in store.numbers]
    return sum(not row.discard and not row.interrupted for row in rows)
