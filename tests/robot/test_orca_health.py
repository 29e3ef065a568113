"""What the ORCA hand's driver reports about its motors stops the hand: the rows of docs/faults.md."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from serfn.cli.main import main
from serfn.robot.clock import ManualClock
from serfn.robot.limits import StallLimits, default_limits
from serfn.robot.safety import SafetySupervisor
from serfn.robot.supervised import SupervisedRobot

pytest.importorskip("orca_core")

from serfn.robot.adapters.orca import OrcaRobot, load_orca_hand

HZ = 20.0
JOINT = "index_mcp"


@dataclass
class Swinging:
    """A mock of the hand that is swung in all joints; what is latched keeps its place without current."""

    hand: Any
    clock: ManualClock
    robot: OrcaRobot
    supervised: SupervisedRobot
    asked: Counter[int]

    @property
    def motor(self) -> int:
        return self.hand.config.joint_to_motor_map[JOINT]

    def latch(self, bits: int, *motors: int) -> None:
        client = self.hand.motor_client
        for motor in motors:
            client.latched_errors[motor] = bits
            client._cur[motor] = 0.0
        place, write = dict(client._pos), client.write_desired_pos

        def write_others(ids: Any, positions: np.ndarray) -> None:
            write(ids, positions)
            client._pos.update({motor: place[motor] for motor in motors})

        client.write_desired_pos = write_others

    def swing(self, seconds: float) -> float:
        """Swing until it stops; return for how long."""
        spec = self.robot.info.action
        middle, half = np.add(spec.high, spec.low) / 2, np.subtract(spec.high, spec.low) / 2
        begin_s = self.clock.now()
        while self.clock.now() < begin_s + seconds and self.supervised.supervisor.cause is None:
            self.clock.advance(1.0 / HZ)
            now_s = self.clock.now()
            self.supervised.read(now_s)
            self.supervised.send(middle + 0.5 * half * math.sin(2.0 * now_s), now_s)
        return self.clock.now() - begin_s


@pytest.fixture
def swinging() -> Swinging:
    hand, clock = load_orca_hand(mock=True), ManualClock(10.0)
    robot = OrcaRobot(hand, clock, HZ)
    limits = default_limits(robot.info)
    supervised = SupervisedRobot(
        robot, SafetySupervisor(robot.info, limits, HZ), clock, HZ, lambda text: None
    )
    supervised.open()
    client, asked = hand.motor_client, Counter[int]()
    for motor in hand.config.motor_ids:
        client._cur[motor] = 0.0
    read = client.read_hardware_error

    def counted(motor: int) -> int | None:
        asked[motor] += 1
        return read(motor)

    client.read_hardware_error = counted
    supervised.start()
    rig = Swinging(hand, clock, robot, supervised, asked)
    assert rig.swing(2.0) == pytest.approx(2.0, abs=0.1), "a healthy hand goes on"
    return rig


def cause(rig: Swinging) -> str:
    stopped = rig.supervised.supervisor.cause
    assert stopped is not None
    assert stopped.kind == "motor_fault"
    return stopped.detail


@pytest.mark.parametrize(
    ("bits", "state", "words"),
    [
        (0x20, "overloaded", "overload (0x20)"),
        (0x04, "hot", "overheating (0x04)"),
        (0x24, "hot", "overheating, overload (0x24)"),
        (0x10, "reports a fault", "electrical_shock (0x10)"),
        (0x08, "reports a fault", "motor_encoder (0x08)"),
    ],
)
def test_a_latched_motor_stops_the_hand_within_a_second(
    swinging: Swinging, bits: int, state: str, words: str
) -> None:
    swinging.latch(bits, swinging.motor)
    assert swinging.swing(28.0) < 1.0
    detail = cause(swinging)
    assert f"motor {swinging.motor} of joint '{JOINT}.pos'" in detail
    assert state in detail
    assert words in detail
    assert "recover --robot orca" in detail or "switch the robot off" in detail


def test_all_motors_latched_is_not_taken_for_a_stale_observation(swinging: Swinging) -> None:
    swinging.latch(0x20, *swinging.hand.config.motor_ids)
    assert swinging.swing(28.0) < 1.0
    assert "is overloaded, its driver says 'overload (0x20)'" in cause(swinging)


def test_the_alert_of_a_status_packet_is_followed_at_once(swinging: Swinging) -> None:
    swinging.latch(0x20, swinging.motor)
    alerts = [{swinging.motor: 0x80}]
    swinging.hand.motor_client.take_hardware_alerts = lambda: alerts.pop() if alerts else {}
    assert swinging.swing(28.0) <= 1.0 / HZ + 1e-9


def test_a_silent_motor_is_named_and_one_lost_answer_is_not_taken_for_it(swinging: Swinging) -> None:
    client = swinging.hand.motor_client
    answer, lost = client.read_hardware_error, [swinging.motor]

    def lose_one(motor: int) -> int | None:
        return None if motor in lost and not lost.remove(motor) else answer(motor)

    client.read_hardware_error = lose_one
    assert swinging.swing(2.0) == pytest.approx(2.0, abs=0.1)
    client.read_hardware_error = answer
    client.silent_motor_ids.add(swinging.motor)
    assert swinging.swing(28.0) < 1.0
    assert f"motor {swinging.motor} of joint '{JOINT}.pos' is offline" in cause(swinging)
    client.silent_motor_ids.clear()
    assert swinging.robot.health(complete=True)[f"{JOINT}.pos"].state == "rebooted"


def test_a_supply_warning_of_a_motor_that_goes_on_stops_nothing(swinging: Swinging) -> None:
    swinging.hand.motor_client.latched_errors[swinging.motor] = 0x01
    assert swinging.swing(2.0) == pytest.approx(2.0, abs=0.1)
    assert swinging.supervised.supervisor.counts["motor:warning"] == 1


def test_the_bus_is_asked_for_every_motor_twice_a_second_and_no_more(swinging: Swinging) -> None:
    swinging.asked.clear()
    swinging.swing(4.0)
    assert set(swinging.asked) == set(swinging.hand.config.motor_ids)
    assert sum(swinging.asked.values()) == pytest.approx(2 * 4.0 * HZ, abs=2)
    assert min(swinging.asked.values()) >= 8


def test_motors_without_a_report_that_stand_still_are_a_stall(swinging: Swinging) -> None:
    swinging.latch(0x00, *swinging.hand.config.motor_ids)
    swinging.swing(28.0)
    stopped = swinging.supervised.supervisor.cause
    assert stopped is not None
    assert stopped.kind == "stall"
    assert "no joint has moved" in stopped.detail


def test_recovery_reboots_what_is_latched_and_waits_for_what_is_hot(swinging: Swinging) -> None:
    client, ids = swinging.hand.motor_client, swinging.hand.config.motor_ids
    hot = next(motor for motor in ids if motor != swinging.motor)
    client.latched_errors.update({swinging.motor: 0x20, hot: 0x04})
    client.temperature_limits[hot] = 45.0
    bad = [joint for joint, health in swinging.robot.health(complete=True).items() if health.state != "ok"]
    said = " ".join(swinging.robot.recover(bad))
    assert client.reboot_count == {swinging.motor: 1}
    assert "let it cool below 35 °C" in said
    assert swinging.robot.health(complete=True)[f"{JOINT}.pos"].state == "ok"


def test_recover_on_the_command_line_asks_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hand = load_orca_hand(mock=True)
    motor = hand.config.motor_ids[2]
    monkeypatch.setattr("serfn.robot.adapters.orca.load_orca_hand", lambda **options: hand)
    connect = hand.connect

    def connect_latched(**options: Any) -> Any:
        answer = connect(**options)
        hand.motor_client.latched_errors.setdefault(motor, 0x20)
        return answer

    hand.connect = connect_latched
    words = ["robot", "recover", "--robot", "orca", "--set=robot_options.mock=true"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert f"motor {motor}" in said.out
    assert "confirm with 'yes'" in said.err
    assert not hand.is_connected()
    assert main([*words, "--yes"]) == 0
    assert "was rebooted" in capsys.readouterr().out
    assert main(["robot", "recover", "--robot", "fake"]) == 0


@pytest.mark.parametrize("hz", [20.0, 50.0])
@pytest.mark.parametrize("ticks", [0, 1, 2])
@pytest.mark.parametrize("swings", [False, True])
def test_a_blocked_joint_is_seen_though_its_encoder_toggles(hz: float, ticks: int, swings: bool) -> None:
    from serfn.robot.motors import StallDetector

    tick = 2 * math.pi / 4096
    detector = StallDetector(StallLimits(error=0.3, speed=0.05, seconds=0.5), ("free", "blocked"))
    seen_s = None
    for step in range(round(3 * hz)):
        now_s = step / hz
        command = np.full(2, 0.8 * math.sin(8.0 * now_s) if swings else 0.6)
        toggling = tick * ticks * (step % 2)
        free = command[0] if swings else 0.6 * min(1.0, now_s / 0.3)
        name = detector.stalled(np.array([free, toggling]), command, now_s)
        if name is not None:
            assert name == "blocked"
            seen_s = now_s
            break
    assert seen_s is not None
    assert seen_s <= 0.5 + 1.5 / hz


@pytest.mark.parametrize("hz", [20.0, 50.0])
def test_a_joint_that_creeps_or_lags_is_not_stalled(hz: float) -> None:
    from serfn.robot.motors import StallDetector

    detector = StallDetector(StallLimits(error=0.3, speed=0.05, seconds=0.5), ("creeps", "lags", "presses"))
    for step in range(round(4 * hz)):
        now_s = step / hz
        swing = 0.8 * math.sin(4.0 * now_s)
        late = 0.8 * math.sin(4.0 * (now_s - 0.1))
        pressed = np.array([1.0, swing, 0.25 + 0.04 * math.sin(20.0 * now_s)])
        assert detector.stalled(np.array([0.06 * now_s, late, 0.0]), pressed, now_s) is None
