"""`serfn robot run` and `learn`: a policy on a robot, and the learner beside it."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from serfn.cli.options import optional, refuse_on_resume
from serfn.cli.overrides import override
from serfn.cli.progress import make_progress
from serfn.cli.robot.terminal import SWITCH_S, at_terminal, person_at_keys, session_watcher
from serfn.cli.train import Assignments
from serfn.core.config import load_config
from serfn.core.errors import ConfigError

if TYPE_CHECKING:
    from serfn.robot.contract import Robot, Teleoperator
    from serfn.robot.keyboard import KeyboardOperator
    from serfn.sessions.config import RobotRunConfig
    from serfn.sessions.folder import RobotFolder

Positional = tyro.conf.Positional
Learn = Literal["none", "inline", "process", "elsewhere"]
Reset = Literal["scene", "person", "none"]


def run(
    *,
    policy: Annotated[Path | None, optional("FOLDER", "needed unless --resume")] = None,
    robot: Annotated[str | None, optional("NAME", "simulated:cube")] = None,
    out: Annotated[Path | None, optional("FOLDER", "a new one below runs/")] = None,
    limits: Annotated[Path | None, optional("FILE", "a simulation's own bounds")] = None,
    learn: Annotated[Learn | None, optional("{none,inline,process,elsewhere}", "process")] = None,
    episodes: Annotated[int | None, optional("INT", "no limit")] = None,
    minutes: Annotated[float | None, optional("FLOAT", "no limit")] = None,
    reset: Annotated[Reset | None, optional("{scene,person,none}", "scene")] = None,
    reward: Annotated[str | None, optional("NAME", "the robot's own, or people")] = None,
    workspace: Annotated[str | None, optional("MODULE:FUNCTION", "the limits alone")] = None,
    teleop: str = "keyboard",
    replay: Annotated[Path | None, optional("FILE", "taking over jogs by keys")] = None,
    config: Annotated[Path | None, optional("FILE", "none")] = None,
    confirm_limits: bool = False,
    resume: bool = False,
    assignments: Assignments = (),
) -> None:
    """Run episodes of a policy on a robot, and fine-tune it meanwhile.

    In a terminal, single keys start, stop, label and take over; they are shown on the screen.

    Args:
        policy: Folder of a training run; for --learn none also a checkpoint or a policy bundle.
        robot: Which robot: simulated:TASK, gymnasium:ID, orca, fake, or package.module:Class.
        out: Folder of the session to make, or to go on with.
        limits: Limits file of the robot, see 'serfn robot limits'; needed for whatever is not a simulation.
        learn: Where the learner runs: nowhere, in turns with the robot, in a second process beside it, or
            elsewhere (see 'serfn robot learn').
        episodes: Budget of episodes of the whole session; with --resume, the new one.
        minutes: Budget of robot time of the whole session, in minutes; with --resume, the new one.
        reset: Who puts the scene back between episodes.
        reward: Judge of each step: a registered one, or package.module:Class or function.
        workspace: package.module:function that brings wanted positions into the task's workspace.
        teleop: How a person who takes over moves the robot: keyboard, spacemouse, zmq:ADDRESS,
            lerobot:NAME,key=value, or package.module:Class.
        replay: NPZ file of demonstrations whose first episode is replayed when a person takes over.
        config: TOML or JSON file with the session's configuration, instead of the options above.
        confirm_limits: The limits have been read: hardware may move although nobody is at the keys.
        resume: Go on with the session in --out; its own configuration counts.
        assignments: Change one option of the session, such as --set learning.updates_per_episode=400.
    """
    # Two processes share the cores; networks of this size gain nothing from more threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The screen and the recorder share the interpreter with the control loop: they must let it in soon.
    sys.setswitchinterval(SWITCH_S)
    from serfn.sessions.actor import RobotActor
    from serfn.sessions.actor_learner import run_session

    given = {
        "robot": robot,
        "limits": limits,
        "reset": reset,
        "reward": reward,
        "workspace": workspace,
    }
    chosen = (learn, episodes, minutes)
    folder, device = _session(out, policy, config, resume, confirm_limits, given, chosen, assignments)
    console = Console(stderr=True)
    with ExitStack() as stack:
        person = person_at_keys(device, stack)
        mover = None if person is None else _teleoperator(device, person, teleop, replay)
        watcher = stack.enter_context(session_watcher(console, folder.path / "status.json", person))
        actor = RobotActor(
            folder,
            robot=device,
            person=person,
            teleoperator=mover,
            watcher=watcher,
            confirmed=confirm_limits,
        )
        watcher.attach(actor.session)
        stack.enter_context(actor)
        try:
            reason = run_session(actor)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"the robot was brought to rest; go on with: serfn robot run --out {folder.path} --resume"
            ) from None
        finally:
            watcher.phase("over", "the robot parks")
    _print_end(folder, actor, reason)


def learn(session: Annotated[Path, Positional]) -> None:
    """Run the learner of a session, such as on another terminal; the robot runs with --learn elsewhere.

    Args:
        session: Folder of the session.
    """
    from serfn.runs.interrupt import deferred_interrupt
    from serfn.sessions.learner_process import learn as run_learner

    with make_progress() as progress, deferred_interrupt() as stop:
        run_learner(session, should_stop=stop, progress=progress)


def _session(
    out: Path | None,
    policy: Path | None,
    config: Path | None,
    resume: bool,
    confirmed: bool,
    given: dict[str, Any],
    amounts: tuple[Learn | None, int | None, float | None],
    assignments: tuple[str, ...],
) -> tuple[RobotFolder, Robot]:
    """Return the session's folder, set up if it is new, and its robot, not connected."""
    from serfn.sessions.config import RobotRunConfig
    from serfn.sessions.folder import RobotFolder, create

    if resume:
        if out is None:
            raise ConfigError("--resume needs the session; name its folder with --out")
        place, episodes, minutes = amounts
        ignored = {**given, "policy": policy, "config": config, "learn": place, "set": assignments}
        refuse_on_resume(f"session '{out}'", ignored)
        folder = RobotFolder(out)
        folder.task()
        folder.extend(episodes=episodes, minutes=minutes)
        return folder, _robot(folder.robot_config(), confirmed)
    if policy is None:
        raise ConfigError("what shall act? name the folder of a training run with --policy")
    settings = _chosen(given, amounts) if config is None else load_config(RobotRunConfig, config)
    settings = override(settings, assignments)
    # A robot, options or limits that make no sense are refused before a folder is written.
    device = _robot(settings, confirmed)
    name = settings.robot.replace(":", "-").replace("/", "-")
    path = out or Path("runs") / f"robot-{name}-{datetime.now():%Y%m%d-%H%M%S}"
    return create(path, policy, settings), device


def _chosen(given: dict[str, Any], amounts: tuple[Learn | None, int | None, float | None]) -> RobotRunConfig:
    from serfn.robot.budget import InteractionBudget
    from serfn.sessions.config import LearningConfig, RobotRunConfig

    place, episodes, minutes = amounts
    budget = InteractionBudget(episodes=episodes, minutes=minutes)
    told = {name: value for name, value in given.items() if value is not None}
    return RobotRunConfig(**told, learning=LearningConfig(place=place or "process"), budget=budget)


def _robot(settings: RobotRunConfig, confirmed: bool) -> Robot:
    from serfn.robot.clock import MonotonicClock
    from serfn.sessions.fit import (
        check_confirmation,
        session_limits,
        session_referee,
        session_workspace,
    )
    from serfn.sessions.robots import make_robot

    robot = make_robot(settings.robot, settings.robot_options, MonotonicClock(), seed=settings.seed)
    session_limits(settings, robot)
    session_referee(settings, robot)
    session_workspace(settings)
    check_confirmation(robot, nobody=not at_terminal(), confirmed=confirmed)
    return robot


def _teleoperator(
    robot: Robot, person: KeyboardOperator, name: str, replay: Path | None
) -> Teleoperator | None:
    from serfn.data.datasets import load_demonstrations
    from serfn.robot.teleoperation import RecordedTeleoperator
    from serfn.sessions.teleoperators import make_teleoperator

    if replay is None:
        return make_teleoperator(name, robot, jog=person.jog)
    actions = load_demonstrations(replay, robot.info.action).episodes[0].actions
    return RecordedTeleoperator(actions, robot.info.action.names)


def _print_end(folder: RobotFolder, actor: Any, reason: str) -> None:
    from serfn.cli.robot.screen import timing_line

    console = Console(highlight=False, soft_wrap=True)
    used = actor.session.use
    console.print(
        f"{reason}: {used.episodes} episodes, {used.minutes:.1f} minutes of robot time", markup=False
    )
    console.print(timing_line(actor.session), markup=False)
    console.print(f"session: {folder.path}", markup=False)
