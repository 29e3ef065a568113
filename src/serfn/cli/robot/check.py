"""`serfn robot check` and `limits`: look at a robot before anything is run on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table

from serfn.cli.options import optional
from serfn.cli.overrides import override
from serfn.cli.robot.terminal import pressed_enter
from serfn.cli.train import Assignments
from serfn.core.errors import ConfigError, DataError


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
        confirm=lambda: confirm_limits or pressed_enter(console),
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
