"""Trying a robot out before anything learns on it: connect, read, move a little within the limits, measure.

Nothing here is recorded. The motion is a slow sine of one joint after the other around where it stands, a
small fraction of its range, through the safety supervisor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from serfn.core.errors import ConfigError
from serfn.robot.adapters.joint_map import JointRow
from serfn.robot.adapters.mapped import MappedRobot
from serfn.robot.clock import Clock
from serfn.robot.contract import Robot, SceneReset, read_vector
from serfn.robot.limits import SafetyLimits
from serfn.robot.safety import SafetySupervisor, Workspace
from serfn.robot.supervised import SupervisedRobot
from serfn.robot.timing import LoopTiming, Pace, TimingSummary
from serfn.sessions.fit import check_confirmation

HISTOGRAM_MS = np.array([0.0, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, np.inf])
"""Edges of the jitter's histogram in milliseconds."""

_DEADLINE = 0.75


@dataclass(frozen=True)
class CheckConfig:
    """How a robot is tried out.

    Attributes:
        seconds: How long each of reading and moving lasts.
        amplitude: Size of the motion, as a fraction of a joint's range; 0 does not move.
        period_s: Seconds of one swing.

    Raises:
        ConfigError: A number is out of range.
    """

    seconds: float = 5.0
    amplitude: float = 0.03
    period_s: float = 2.0

    def __post_init__(self) -> None:
        if not (0 < self.seconds < math.inf and 0 < self.period_s < math.inf):
            raise ConfigError(f"seconds is {self.seconds} and period_s {self.period_s}; both must be above 0")
        if not 0 <= self.amplitude <= 0.2:
            raise ConfigError(f"amplitude is {self.amplitude}; a check moves by 0 to 0.2 of a joint's range")


@dataclass(frozen=True)
class CheckReport:
    """What was found.

    Attributes:
        reading: Punctuality of reading alone.
        moving: Punctuality of reading and sending; None if nothing moved.
        histogram: Number of jitters between the edges `HISTOGRAM_MS`, of the motion or else of the reading.
        read_p50_ms: Median time that a reading takes.
        read_p99_ms: 99th percentile of the same.
        missed_reads: Readings that were not new or not sound.
        tracking: Largest distance between command and measured position while moving, in the robot's unit;
            None if positions are not measured.
        problems: What a person should look at, one sentence each.
    """

    reading: TimingSummary
    moving: TimingSummary | None
    histogram: tuple[int, ...]
    read_p50_ms: float
    read_p99_ms: float
    missed_reads: int
    tracking: float | None
    problems: tuple[str, ...]


def check_robot(
    robot: Robot,
    limits: SafetyLimits,
    clock: Clock,
    config: CheckConfig,
    *,
    calibrate: bool = False,
    announce: Callable[[str], None] = lambda text: None,
    workspace: Workspace | None = None,
    confirm: Callable[[], bool] = lambda: False,
) -> CheckReport:
    """Try a robot out, park it and close it.

    Args:
        robot: The robot, not connected.
        limits: Its limits.
        clock: Its clock.
        config: How long and how far.
        calibrate: Calibrate the robot if it is not; this may move it to the ends of its joints.
        announce: Called with the limits before anything moves, and with what is being tried.
        workspace: A task's own rule on positions.
        confirm: Asks a person, on hardware, whether it may move; called once the limits were shown.

    Raises:
        RobotError: It cannot be reached, is not calibrated, or cannot start.
        ConfigError: The limits do not fit, or nobody confirms them on hardware.
    """
    supervisor = SafetySupervisor(robot.info, limits, robot.info.control_hz, workspace)
    supervised = SupervisedRobot(robot, supervisor, clock, robot.info.control_hz, announce)
    if isinstance(robot, MappedRobot):
        announce(robot.joint_map.describe())
    supervised.show_limits()
    check_confirmation(robot, nobody=True, confirmed=robot.info.simulated or confirm())
    if calibrate:
        announce("connecting and calibrating")
        robot.connect(calibrate=True)
    with supervised:
        if isinstance(robot, SceneReset):
            robot.reset_scene(0)
        announce(f"reading for {config.seconds:g} s")
        supervised.start()
        reading, spent_s, missed = _read(supervised, config)
        moving, tracking = None, None
        histogram = reading.histogram(HISTOGRAM_MS)
        if config.amplitude and supervisor.cause is None:
            announce(f"moving joint after joint by {config.amplitude:.0%} of its range")
            moving, tracking = _move(supervised, config, announce)
            histogram = moving.histogram(HISTOGRAM_MS)
    read_ms = np.array(spent_s) * 1e3
    return CheckReport(
        reading=reading.summary(),
        moving=None if moving is None else moving.summary(),
        histogram=tuple(int(count) for count in histogram),
        read_p50_ms=float(np.percentile(read_ms, 50)),
        read_p99_ms=float(np.percentile(read_ms, 99)),
        missed_reads=missed,
        tracking=tracking,
        problems=tuple(_problems(supervisor, missed, len(read_ms), moving)),
    )


def _read(robot: SupervisedRobot, config: CheckConfig) -> tuple[LoopTiming, list[float], int]:
    """Read and hold at the control rate."""
    period_s = 1.0 / robot.control_hz
    timing, pace = LoopTiming(period_s, _DEADLINE * period_s), Pace(robot.clock, period_s)
    spent_s, missed = [], 0
    for _ in range(max(2, round(config.seconds * robot.control_hz))):
        scheduled_s, now_s = pace.wait()
        missed += not robot.read(now_s)
        spent_s.append(robot.clock.now() - now_s)
        robot.hold(robot.clock.now())
        timing.add(scheduled_s, now_s, robot.clock.now())
    return timing, spent_s, missed


def _move(
    robot: SupervisedRobot, config: CheckConfig, announce: Callable[[str], None]
) -> tuple[LoopTiming, float | None]:
    """Swing each joint in turn; stop early if the supervisor latches."""
    info, supervisor = robot.robot.info, robot.supervisor
    period_s = 1.0 / robot.control_hz
    timing, pace = LoopTiming(period_s, _DEADLINE * period_s), Pace(robot.clock, period_s)
    home = supervisor.position
    low, high = supervisor.limits.column("low", info), supervisor.limits.column("high", info)
    swing = config.amplitude * (high - low)
    # Away from the nearer end of the range.
    swing = np.where(home - low < high - home, swing, -swing)
    steps = max(2, round(config.seconds * robot.control_hz))
    tracking: float | None = None
    named = -1
    for step in range(steps):
        scheduled_s, now_s = pace.wait()
        robot.read(now_s)
        joint = step * info.action.dim // steps
        if isinstance(robot.robot, MappedRobot) and joint != named:
            named = joint
            announce(_what_to_see(robot.robot.row(info.action.names[joint]), swing[joint] > 0))
        wanted = home.copy()
        phase = 2 * math.pi * (step * period_s / config.period_s)
        wanted[joint] += swing[joint] * 0.5 * (1 - math.cos(phase))
        sent, _ = robot.send(wanted, robot.clock.now())
        timing.add(scheduled_s, now_s, robot.clock.now())
        if info.position_keys and robot.measured:
            error = float(np.abs(read_vector(robot.measured, info.position_keys) - sent).max())
            tracking = error if tracking is None else max(tracking, error)
        if supervisor.cause is not None:
            break
    return timing, tracking


def _what_to_see(row: JointRow, rises: bool) -> str:
    """Return what a person compares the motion of a mapped joint with."""
    there = "the opposite of this" if not rises else "this"
    seen = f"; you should see {there}, and back: {row.positive}" if row.positive else ""
    return f"  {row.policy} -> {row.robot}{seen}"


def _problems(supervisor: SafetySupervisor, missed: int, reads: int, moving: LoopTiming | None) -> list[str]:
    problems = []
    if supervisor.cause is not None:
        problems.append(f"the supervisor stopped the robot: {supervisor.cause.detail}")
    if missed > 0.02 * reads:
        problems.append(f"{missed} of {reads} readings were old or not sound; look at cables and sensors")
    if moving is not None and moving.summary().miss_rate > 0.005:
        problems.append(
            f"{moving.summary().miss_rate:.1%} of commands missed their deadline; free the machine of other "
            "work"
        )
    return problems
