from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serfn.core.errors import ConfigError
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.clock import ManualClock
from serfn.robot.contract import Observation, RobotError
from serfn.robot.limits import SafetyLimits, StallLimits, default_limits
from serfn.robot.safety import Intervention, SafetySupervisor, Workspace

HZ, PERIOD_S, JOINTS = 20.0, 0.05, 3
INFO = FakeRobot(ManualClock(), JOINTS).info
LIMITS = dataclasses.replace(
    default_limits(INFO, max_speed=3.0, max_acceleration=60.0), max_current_ma=800.0, max_temperature_c=60.0
)


def observation(time_s: float, position: float = 0.0, **values: float) -> Observation:
    keys = (*INFO.state_keys, *INFO.target_keys, *INFO.current_keys, *INFO.temperature_keys)
    measured: Observation = dict.fromkeys(keys, 0.0) | dict.fromkeys(INFO.position_keys, position)
    measured["time_s"] = time_s
    return measured | values


class Walk:
    """A supervisor that is stepped at the control rate; keeps all commands."""

    def __init__(self, limits: SafetyLimits = LIMITS, workspace: Workspace | None = None) -> None:
        self.supervisor = SafetySupervisor(INFO, limits, HZ, workspace)
        self.now_s = 10.0
        self.supervisor.start(observation(self.now_s), self.now_s)
        self.commands: list[np.ndarray] = []

    def step(self, wanted: Any, position: float | None = None, **values: float) -> Intervention:
        self.now_s += PERIOD_S
        # A little noise: identical readings while the command moves would be a frozen sensor.
        measured = 1e-6 * len(self.commands) if position is None else position
        self.supervisor.observe(observation(self.now_s, measured, **values), self.now_s)
        return self.blind_step(wanted)

    def blind_step(self, wanted: Any) -> Intervention:
        wanted = None if wanted is None else np.broadcast_to(np.asarray(wanted, float), (JOINTS,))
        command, bits = self.supervisor.command(wanted, self.now_s)
        self.commands.append(command)
        return bits


anything = st.one_of(
    st.none(),
    st.lists(st.floats(width=64), min_size=JOINTS, max_size=JOINTS),
    st.lists(st.floats(-1.1, 1.1), min_size=JOINTS, max_size=JOINTS),
    st.sampled_from([[math.nan] * JOINTS, [math.inf] * JOINTS, [1e308] * JOINTS, [-1.0] * JOINTS]),
    st.just([0.0] * (JOINTS + 1)),
)
happenings = st.sampled_from(
    ["follow"] * 8 + ["blind", "nan", "hold", "park", "overload", "stop", "release", "hot", "jump"]
)


@settings(max_examples=60)
@given(
    speed=st.floats(0.1, 30),
    acceleration=st.floats(1, 2000),
    script=st.lists(st.tuples(happenings, anything), max_size=80),
)
def test_no_command_ever_leaves_the_envelope(
    speed: float, acceleration: float, script: list[tuple[str, list[float] | None]]
) -> None:
    limits = default_limits(INFO, max_speed=speed, max_acceleration=acceleration)
    limits = dataclasses.replace(limits, max_current_ma=800.0, max_temperature_c=60.0)
    supervisor = SafetySupervisor(INFO, limits, HZ, workspace=lambda wanted, _: -wanted)
    now_s = 0.0
    commands = [supervisor.start(observation(now_s, 0.2, **{"joint0.target": 0.2}), now_s)] * 2
    for index, (what, wanted) in enumerate(script):
        now_s += PERIOD_S
        measured = observation(now_s, 5.0 if what == "jump" else 1e-6 * index)
        measured["joint1.current"] = 1e4 if what == "overload" else 0.0
        measured["joint1.temperature"] = 99.0 if what == "hot" else 20.0
        measured["joint0.pos"] = math.nan if what == "nan" else measured["joint0.pos"]
        supervisor.observe(None if what == "blind" else measured, now_s)
        if what == "stop":
            supervisor.stop("operator", "stop", now_s)
        if what == "release":
            supervisor.release()
        if what == "hold":
            command = supervisor.hold(now_s)[0]
        elif what == "park":
            command = supervisor.approach(np.array([0.9, -0.9, 0.0]), now_s)
        else:
            command = supervisor.command(None if wanted is None else np.array(wanted), now_s)[0]
        commands.append(command)
    positions = np.array(commands)
    assert np.isfinite(positions).all()
    assert (np.abs(positions) <= 1.0).all()
    steps = np.diff(positions, axis=0)
    assert (np.abs(steps) <= speed * PERIOD_S * (1 + 1e-9) + 1e-12).all()
    assert (np.abs(np.diff(steps, axis=0)) <= acceleration * PERIOD_S**2 * (1 + 1e-9) + 1e-11).all()


def test_a_proposal_inside_the_limits_passes_untouched() -> None:
    walk = Walk()
    assert walk.step(0.05) == 0
    assert walk.commands[0] == pytest.approx(0.05)
    assert not walk.supervisor.counts


@pytest.mark.parametrize(
    ("wanted", "bits"),
    [
        (1.01, Intervention.POSITION | Intervention.SPEED),
        (0.9, Intervention.SPEED),
        ([0.149, 0, 0], Intervention(0)),
        (None, Intervention.NO_PROPOSAL | Intervention.HELD),
        ([math.nan, 0, 0], Intervention.NOT_FINITE | Intervention.HELD),
    ],
)
def test_what_was_changed_is_said_and_counted(wanted: Any, bits: Intervention) -> None:
    walk = Walk()
    assert walk.step(wanted) == bits
    assert walk.supervisor.counts == Counter(str(flag.name).lower() for flag in bits)
    assert len(walk.supervisor.events) == (1 if bits else 0)


def test_a_change_of_direction_beyond_the_acceleration_is_said() -> None:
    walk = Walk(default_limits(INFO, max_speed=3.0, max_acceleration=30.0))
    walk.step(0.075)
    walk.step(0.2)
    assert walk.step(0.1) == Intervention.ACCELERATION


def test_the_log_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serfn.robot.safety._LOG_ENTRIES", 10)
    walk = Walk()
    for _ in range(30):
        walk.step(0.0)
        walk.step(None)
    assert len(walk.supervisor.events) == 10
    assert walk.supervisor.counts["held"] == 30


def test_the_workspace_projects_what_is_wanted_and_holds_when_it_fails() -> None:
    walk = Walk(workspace=lambda wanted, _: np.minimum(wanted, 0.02))
    assert walk.step(0.05) == Intervention.WORKSPACE
    assert walk.commands[-1] == pytest.approx(0.02)
    walk = Walk(workspace=lambda wanted, _: np.full_like(wanted, np.nan))
    assert walk.step(0.05) == Intervention.WORKSPACE | Intervention.HELD


def test_missing_measurements_warn_then_hold_then_stop_for_good() -> None:
    walk = Walk()
    tiers = []
    for _ in range(25):
        walk.now_s += PERIOD_S
        walk.supervisor.observe(None, walk.now_s)
        tiers.append(walk.blind_step(0.01))
    assert tiers[0] == 0
    assert tiers[1] == Intervention.STALE_OBSERVATION
    assert Intervention.HELD in tiers[3]
    assert Intervention.STOPPED not in tiers[17]
    assert Intervention.STOPPED in tiers[20]
    assert walk.supervisor.cause is not None
    assert walk.supervisor.cause.kind == "stale_observation"
    assert Intervention.STOPPED in walk.step(0.0), "fresh measurements do not release a latch"
    walk.supervisor.release()
    assert walk.step(0.0) == 0


def test_a_measurement_of_the_past_is_not_new() -> None:
    supervisor = Walk().supervisor
    assert supervisor.observe(observation(10.05), 10.05)
    assert not supervisor.observe(observation(10.05), 10.10)
    assert not supervisor.observe(observation(10.0), 10.15)
    assert not supervisor.observe(observation(10.2) | {"joint1.vel": math.inf}, 10.2)
    assert supervisor.observe(observation(10.25), 10.25)


def test_readings_that_repeat_while_the_command_moves_are_a_frozen_sensor() -> None:
    walk = Walk()
    held = [Intervention.HELD in walk.step(min(0.05 * k, 0.5), position=0.0) for k in range(16)]
    assert not any(held[:7])
    assert held[-1]
    walk = Walk()
    assert not any(Intervention.HELD in walk.step(0.0, position=0.0) for k in range(40)), "at rest it may"


def test_an_over_current_must_last() -> None:
    walk = Walk()
    for _ in range(3):
        for _ in range(4):
            walk.step(0.0, **{"joint1.current": -900.0})
        walk.step(0.0)
    assert walk.supervisor.cause is None
    for _ in range(5):
        walk.step(0.0, **{"joint1.current": -900.0})
    assert walk.supervisor.cause is not None
    assert walk.supervisor.cause.kind == "over_current"
    assert "joint1.current is 900 mA, limit 800" in walk.supervisor.cause.detail


def test_an_over_temperature_stops_at_once() -> None:
    walk = Walk()
    walk.step(0.0, **{"joint2.temperature": 61.0})
    assert walk.supervisor.cause is not None
    assert walk.supervisor.cause.kind == "over_temperature"


def test_an_overload_yields_to_where_the_joints_are() -> None:
    walk = Walk()
    for k in range(20):
        walk.step(0.04 * k)
    for _ in range(30):
        walk.step(0.8, position=0.3, **{"joint0.temperature": 61.0})
    assert walk.commands[-1] == pytest.approx(0.3, abs=1e-9)


def test_a_joint_far_from_its_command_that_does_not_move_is_a_stall() -> None:
    limits = dataclasses.replace(LIMITS, stall=StallLimits(error=0.2, speed=0.05, seconds=0.5))
    walk = Walk(limits)
    for k in range(30):
        walk.step(min(0.05 * k, 0.5), position=0.01, **{"joint0.pos": min(0.05 * k, 0.5)})
    assert walk.supervisor.cause is not None
    assert walk.supervisor.cause.kind == "stall"
    assert "joint1.pos" in walk.supervisor.cause.detail
    slow = Walk(limits)
    for k in range(30):
        slow.step(min(0.05 * k, 0.5), position=0.008 * k)
    assert slow.supervisor.cause is None, "a joint that moves is not stalled"


def test_motion_starts_where_the_motors_are_driven_to() -> None:
    supervisor = SafetySupervisor(INFO, LIMITS, HZ)
    targets = {"joint0.target": 0.3, "joint1.target": -0.2, "joint2.target": 1.05}
    start = supervisor.start(observation(0.0, 0.1, **targets), 0.0)
    assert start == pytest.approx([0.3, -0.2, 1.0])


@pytest.mark.parametrize("position", [1.2, -1.2, math.nan])
def test_motion_does_not_start_outside_the_limits(position: float) -> None:
    supervisor = SafetySupervisor(INFO, LIMITS, HZ)
    with pytest.raises(RobotError, match=r"'joint1.pos' starts at .*outside"):
        supervisor.start(observation(0.0, 0.0, **{"joint1.pos": position}), 0.0)


def test_motion_does_not_start_while_stopped() -> None:
    supervisor = Walk().supervisor
    supervisor.stop("operator", "the operator stopped the robot", 10.0)
    supervisor.stop("stall", "later", 11.0)
    assert supervisor.cause is not None
    assert supervisor.cause.kind == "operator", "the first cause stays"
    with pytest.raises(RobotError, match="the operator stopped the robot"):
        supervisor.start(observation(12.0), 12.0)


def test_a_command_that_was_not_sent_is_taken_back() -> None:
    walk = Walk()
    walk.step(0.05)
    walk.step(0.10)
    walk.supervisor.not_sent(OSError("gone"), walk.now_s)
    assert walk.supervisor.position == pytest.approx(0.05)
    for _ in range(25):
        walk.step(0.1)
        walk.supervisor.not_sent(OSError("gone"), walk.now_s)
    assert walk.supervisor.cause is not None
    assert walk.supervisor.cause.kind == "robot_error"


def test_limits_of_another_robot_are_refused() -> None:
    with pytest.raises(ConfigError, match="for 'orca'"):
        SafetySupervisor(INFO, dataclasses.replace(LIMITS, robot="orca"), HZ)
