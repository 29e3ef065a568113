"""`serfn robot`: run, fine-tune and look after a policy on a robot."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from serfn.cli.options import optional
from serfn.cli.overrides import override
from serfn.cli.parsing import Group
from serfn.cli.progress import make_progress
from serfn.cli.relabel import relabel
from serfn.cli.robot_recover import recover
from serfn.cli.train import Assignments
from serfn.core.config import load_config
from serfn.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from serfn.robot.contract import Robot, Teleoperator
    from serfn.robot.keyboard import KeyboardOperator
    from serfn.sessions.config import RobotRunConfig
    from serfn.sessions.folder import RobotFolder

_SWITCH_S = 5e-4

Positional = tyro.conf.Positional
Learn = Literal["none", "inline", "process", "elsewhere"]


def run(
    *,
    policy: Annotated[Path | None, optional("FOLDER", "needed unless --resume")] = None,
    robot: str = "simulated:cube",
    out: Annotated[Path | None, optional("FOLDER", "a new one below runs/")] = None,
    limits: Annotated[Path | None, optional("FILE", "a simulation's own bounds")] = None,
    learn: Learn = "process",
    episodes: Annotated[int | None, optional("INT", "no limit")] = None,
    minutes: Annotated[float | None, optional("FLOAT", "no limit")] = None,
    reset: Literal["scene", "person", "none"] = "scene",
    reward: Annotated[str | None, optional("NAME", "the robot's own, or people")] = None,
    workspace: Annotated[str | None, optional("MODULE:FUNCTION", "the limits alone")] = None,
    teleoperator: str = "keyboard",
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
        episodes: Budget of episodes of the whole session.
        minutes: Budget of robot time of the whole session, in minutes.
        reset: Who puts the scene back between episodes.
        reward: Judge of each step: a registered one, or package.module:Class or function.
        workspace: package.module:function that brings wanted positions into the task's workspace.
        teleoperator: How a person who takes over moves the robot: keyboard, or package.module:Class.
        replay: NPZ file of demonstrations whose first episode is replayed when a person takes over.
        config: TOML or JSON file with the session's configuration, instead of the options above.
        confirm_limits: The limits have been read: hardware may move although nobody is at the keys.
        resume: Go on with the session in --out; its own configuration counts.
        assignments: Change one option of the session, such as --set learning.updates_per_episode=400.
    """
    # Two processes share the cores; networks of this size gain nothing from more threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The screen and the recorder share the interpreter with the control loop: they must let it in soon.
    sys.setswitchinterval(_SWITCH_S)
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
        person = _person(device, stack)
        mover = None if person is None else _teleoperator(device, person, teleoperator, replay)
        watcher = stack.enter_context(_watcher(console, folder, person))
        actor = RobotActor(
            folder,
            robot=device,
            person=person,
            teleoperator=mover,
            watcher=watcher,
            confirmed=confirm_limits,
        )
        getattr(watcher, "attach", lambda actor: None)(actor)
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


def check(
    *,
    robot: str = "simulated:cube",
    limits: Annotated[Path | None, optional("FILE", "a simulation's own bounds")] = None,
    seconds: float = 5.0,
    amplitude: float = 0.03,
    calibrate: bool = False,
    confirm_limits: bool = False,
    assignments: Assignments = (),
) -> None:
    """Try a robot out: connect, read, move each joint a little within the limits, measure the timing.

    Args:
        robot: Which robot: simulated:TASK, gymnasium:ID, orca, fake, or package.module:Class.
        limits: Limits file; needed for whatever is not a simulation.
        seconds: How long reading lasts, and moving.
        amplitude: Size of the motion, as a fraction of each joint's range; 0 does not move.
        calibrate: Calibrate the robot if it is not; this drives joints to their ends.
        confirm_limits: The limits have been read: hardware may move without a key press.
        assignments: Change one option, such as --set robot_options.mock=true.
    """
    from serfn.robot.clock import MonotonicClock
    from serfn.sessions.check import HISTOGRAM_MS, CheckConfig, check_robot
    from serfn.sessions.config import RobotRunConfig
    from serfn.sessions.fit import session_limits, session_workspace
    from serfn.sessions.robots import make_robot

    settings = override(RobotRunConfig(robot=robot, limits=limits), assignments)
    console = Console(highlight=False)
    clock = MonotonicClock()
    device = make_robot(settings.robot, settings.robot_options, clock, seed=settings.seed)
    report = check_robot(
        device,
        session_limits(settings, device),
        clock,
        CheckConfig(seconds=seconds, amplitude=amplitude),
        calibrate=calibrate,
        announce=lambda text: console.print(text, markup=False, soft_wrap=True),
        workspace=session_workspace(settings),
        confirm=lambda: confirm_limits or _pressed_enter(console),
    )
    timing = report.moving or report.reading
    console.print(
        f"reading: p50 {report.read_p50_ms:.2f} ms, p99 {report.read_p99_ms:.2f} ms, "
        f"{report.missed_reads} of {report.reading.steps} not new or not sound"
    )
    console.print(
        f"commands: {timing.steps}, {timing.missed} deadlines missed, jitter p50 "
        f"{timing.jitter_p50_ms:.2f} ms, p99 {timing.jitter_p99_ms:.2f} ms, largest "
        f"{timing.jitter_max_ms:.2f} ms"
    )
    if report.tracking is not None:
        console.print(f"largest distance between command and position: {report.tracking:.3f}")
    table = Table("jitter", "commands")
    for low, high, count in zip(HISTOGRAM_MS, HISTOGRAM_MS[1:], report.histogram, strict=False):
        table.add_row(f"{low:g} to {high:g} ms" if high < float("inf") else f"above {low:g} ms", str(count))
    console.print(table)
    if report.problems:
        raise DataError("; ".join(report.problems))
    console.print("the robot is fit to run")


def limits(
    *,
    robot: str = "simulated:cube",
    out: Annotated[Path | None, optional("FILE", "print it")] = None,
    file: Annotated[Path | None, optional("FILE", "the robot's own bounds")] = None,
    max_speed: float = 3.0,
    max_acceleration: float = 120.0,
    margin: float = 0.0,
    assignments: Assignments = (),
) -> None:
    """Write a limits file to begin with, or check and show one; nothing is connected.

    Args:
        robot: Which robot: simulated:TASK, gymnasium:ID, orca, fake, or package.module:Class.
        out: File to write.
        file: Limits file to check against the robot and show.
        max_speed: Largest speed of every joint, per second.
        max_acceleration: Largest acceleration of every joint, per second squared.
        margin: Distance kept from each of the robot's bounds, as a fraction of the range.
        assignments: Change one option, such as --set robot_options.mock=true.
    """
    from serfn.core.files import write_atomically
    from serfn.robot.clock import MonotonicClock
    from serfn.robot.limits import default_limits, describe_limits, limits_toml, load_limits
    from serfn.sessions.config import RobotRunConfig
    from serfn.sessions.robots import make_robot

    settings = override(RobotRunConfig(robot=robot), assignments)
    info = make_robot(settings.robot, settings.robot_options, MonotonicClock()).info
    console = Console(highlight=False, soft_wrap=True)
    if file is not None:
        console.print(describe_limits(load_limits(file, info)), markup=False)
        return
    chosen = default_limits(info, max_speed=max_speed, max_acceleration=max_acceleration, margin=margin)
    if out is None:
        console.print(limits_toml(chosen), markup=False, end="")
        return
    if out.exists():
        raise ConfigError(f"'{out}' exists; choose another file, so that no limits are lost")
    write_atomically(out, limits_toml(chosen))
    console.print(describe_limits(chosen), markup=False)
    console.print(f"wrote {out}; narrow it before the robot moves", markup=False)


ROBOT = Group(
    "Run and fine-tune a policy on a robot, real or simulated; check the robot, its limits and its labels.",
    {
        "run": run,
        "learn": learn,
        "check": check,
        "limits": limits,
        "recover": recover,
        "relabel": relabel,
    },
)


def _session(
    out: Path | None,
    policy: Path | None,
    config: Path | None,
    resume: bool,
    confirmed: bool,
    given: dict[str, Any],
    amounts: tuple[Learn, int | None, float | None],
    assignments: tuple[str, ...],
) -> tuple[RobotFolder, Robot]:
    """Return the session's folder, set up if it is new, and its robot, not connected."""
    from serfn.sessions.config import RobotRunConfig
    from serfn.sessions.folder import RobotFolder, create

    if resume:
        if out is None:
            raise ConfigError("--resume needs the session; name its folder with --out")
        folder = RobotFolder(out)
        folder.task()
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


def _chosen(given: dict[str, Any], amounts: tuple[Learn, int | None, float | None]) -> RobotRunConfig:
    from serfn.robot.budget import InteractionBudget
    from serfn.sessions.config import LearningConfig, RobotRunConfig

    place, episodes, minutes = amounts
    budget = InteractionBudget(episodes=episodes, minutes=minutes)
    return RobotRunConfig(**given, learning=LearningConfig(place=place), budget=budget)


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
    check_confirmation(robot, nobody=not _at_terminal(), confirmed=confirmed)
    return robot


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _pressed_enter(console: Console) -> bool:
    """Ask the person at this terminal; without one, nobody says yes."""
    if not _at_terminal():
        return False
    console.print("read the limits, then press enter to let it move; Ctrl-C ends")
    return bool(sys.stdin.readline())


def _person(robot: Robot, stack: ExitStack) -> KeyboardOperator | None:
    """Return the person at this terminal; None without one."""
    if not _at_terminal():
        return None
    from serfn.cli.robot_screen import KeyReader
    from serfn.robot.keyboard import KeyboardOperator
    from serfn.robot.teleoperation import KeyboardJog

    person = KeyboardOperator(KeyboardJog(robot.info.action))
    stack.enter_context(KeyReader(person.press))
    return person


def _teleoperator(
    robot: Robot, person: KeyboardOperator, name: str, replay: Path | None
) -> Teleoperator | None:
    from serfn.data.datasets import load_demonstrations
    from serfn.robot.parts.registry import build_teleoperator
    from serfn.robot.teleoperation import RecordedTeleoperator

    if replay is None:
        return person.jog if name == "keyboard" else build_teleoperator(name, robot.info)
    actions = load_demonstrations(replay, robot.info.action).episodes[0].actions
    return RecordedTeleoperator(actions, robot.info.action.names)


@contextmanager
def _watcher(console: Console, folder: RobotFolder, person: KeyboardOperator | None) -> Iterator[Any]:
    from serfn.cli.robot_screen import RobotLog, RobotScreen

    if person is None:
        yield RobotLog(console)
        return
    with RobotScreen(console, folder.path / "status.json") as screen:
        yield screen


def _print_end(folder: RobotFolder, actor: Any, reason: str) -> None:
    from serfn.cli.robot_screen import timing_line

    console = Console(highlight=False, soft_wrap=True)
    used = actor.session.use
    console.print(
        f"{reason}: {used.episodes} episodes, {used.minutes:.1f} minutes of robot time", markup=False
    )
    console.print(timing_line(actor), markup=False)
    console.print(f"session: {folder.path}", markup=False)
