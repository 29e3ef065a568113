"""The ORCA hand through its driver's mock: units, calibration, lost answers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from serfn.core.errors import ConfigError
from serfn.robot.clock import ManualClock
from serfn.robot.contract import RobotError
from serfn.robot.limits import default_limits
from serfn.robot.safety import SafetySupervisor

orca_core = pytest.importorskip("orca_core")

from serfn.robot.adapters.orca import OrcaRobot, load_orca_hand  # noqa: E402


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(10.0)


@pytest.fixture
def hand() -> Any:
    return load_orca_hand(mock=True)


def command(robot: OrcaRobot, **radians: float) -> dict[str, float]:
    rest = robot.info.rest
    assert rest is not None
    return dict(zip(robot.info.action.names, rest, strict=True)) | {
        f"{joint}.pos": value for joint, value in radians.items()
    }


def test_commands_in_radians_reach_the_driver_in_degrees(hand: Any, clock: ManualClock) -> None:
    robot = OrcaRobot(hand, clock)
    robot.connect()
    robot.send_action(command(robot, index_mcp=math.radians(40.0)))
    assert hand.get_joint_position().as_dict()["index_mcp"] == pytest.approx(40.0)
    clock.advance(0.05)
    assert robot.get_observation()["index_mcp.pos"] == pytest.approx(math.radians(40.0))


def test_bounds_are_the_ranges_of_motion(hand: Any, clock: ManualClock) -> None:
    spec = OrcaRobot(hand, clock).info.action
    index = spec.names.index("thumb_cmc.pos")
    assert np.degrees([spec.low[index], spec.high[index]]) == pytest.approx([-45.0, 33.0])
    assert len(spec.names) == 17


def test_velocities_targets_currents_and_temperatures_are_measured(hand: Any, clock: ManualClock) -> None:
    robot = OrcaRobot(hand, clock)
    robot.connect()
    before = robot.get_observation()
    assert before["index_mcp.target"] == before["index_mcp.pos"], "nothing was commanded yet"
    robot.send_action(command(robot, index_mcp=0.5))
    clock.advance(0.05)
    after = robot.get_observation()
    assert after["index_mcp.target"] == 0.5
    assert after["index_mcp.vel"] == pytest.approx((0.5 - before["index_mcp.pos"]) / 0.05)
    assert 20.0 < after["index_mcp.temperature"] < 80.0
    # The bus is asked for temperatures once a second.
    assert after["index_mcp.temperature"] == before["index_mcp.temperature"]
    hand.motor_client._cur[hand.config.joint_to_motor_map["index_mcp"]] = 123.0
    clock.advance(1.0)
    later = robot.get_observation()
    assert later["index_mcp.current"] == 123.0
    assert later["index_mcp.temperature"] != before["index_mcp.temperature"]


def test_motors_are_on_while_connected_and_off_afterwards(hand: Any, clock: ManualClock) -> None:
    robot = OrcaRobot(hand, clock)
    robot.connect()
    client = hand.motor_client
    assert all(client._torque_enabled.values())
    robot.disconnect()
    assert not any(client._torque_enabled.values())


def test_connecting_does_not_move_the_hand(hand: Any, clock: ManualClock) -> None:
    robot = OrcaRobot(hand, clock)
    hand.connect()
    before = hand.get_motor_pos()
    hand.disconnect()
    robot.connect()
    assert np.array_equal(hand.get_motor_pos(), before)


def test_an_uncalibrated_hand_stays_limp(hand: Any, clock: ManualClock) -> None:
    hand.calibration = orca_core.CalibrationResult.empty(hand.config.motor_ids)
    robot = OrcaRobot(hand, clock)
    assert not robot.is_calibrated
    robot.connect(calibrate=False)
    assert not any(hand.motor_client._torque_enabled.values())
    with pytest.raises(RobotError, match="has no position; calibrate"):
        robot.get_observation()
    robot.disconnect()


def test_a_lost_answer_is_an_error_and_not_an_old_reading(hand: Any, clock: ManualClock) -> None:
    robot = OrcaRobot(hand, clock)
    robot.connect()
    robot.get_observation()
    hand.motor_client.last_read_ok = False
    with pytest.raises(RobotError, match="did not answer"):
        robot.get_observation()


@pytest.mark.parametrize(
    "error", [OSError("port vanished"), RuntimeError("status packet"), ValueError("checksum")]
)
def test_whatever_the_driver_raises_the_robot_did_not_answer(
    hand: Any, clock: ManualClock, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = OrcaRobot(hand, clock)
    robot.connect()

    def broken(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(hand.motor_client, "read_position_velocity_current", broken)
    monkeypatch.setattr(hand.motor_client, "write_desired_pos", broken)
    with pytest.raises(RobotError, match=str(error)):
        robot.get_observation()
    with pytest.raises(RobotError, match=str(error)):
        robot.send_action(command(robot))


def test_a_hand_that_cannot_be_reached_says_what_to_check(
    hand: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand, "connect", lambda **_: (False, "no motor responded"))
    with pytest.raises(RobotError, match="no motor responded; check power"):
        OrcaRobot(hand, clock).connect()


def test_over_current_of_the_driver_stops_the_supervisor(hand: Any, clock: ManualClock) -> None:
    robot = OrcaRobot(hand, clock)
    robot.connect()
    for motor in hand.config.motor_ids:
        hand.motor_client._cur[motor] = 0.0
    limits = dataclasses.replace(default_limits(robot.info), max_current_ma=400.0, over_current_s=0.1)
    supervisor = SafetySupervisor(robot.info, limits, 20.0)
    supervisor.start(robot.get_observation(), clock.now())
    hand.motor_client._cur[hand.config.joint_to_motor_map["ring_pip"]] = -500.0
    for _ in range(4):
        clock.advance(0.05)
        supervisor.observe(robot.get_observation(), clock.now())
    assert supervisor.cause is not None
    assert "ring_pip.current is 500 mA" in supervisor.cause.detail


def test_a_wrong_configuration_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("motor_ids: [1]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="refuses the configuration"):
        load_orca_hand(mock=True, config_path=str(path))
