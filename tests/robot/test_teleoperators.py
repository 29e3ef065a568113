"""Devices by which a person moves a robot: streams, relative motion and a SpaceMouse."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from serfn.core.errors import ConfigError
from serfn.core.spec import ActionSpec, ObservationSpec
from serfn.robot.contract import Feature, RobotError, RobotInfo, Teleoperator
from serfn.robot.teleoperators.relative import RelativeTeleoperator
from serfn.robot.teleoperators.spacemouse import SpaceMouseTeleoperator
from serfn.robot.teleoperators.stream import STALE_S, StreamTeleoperator

zmq = pytest.importorskip("zmq")
NAMES = ("thumb", "index")


class Sender:
    """A publisher on a free port of this machine."""

    def __init__(self) -> None:
        self.socket = zmq.Context.instance().socket(zmq.PUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.address = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"

    def until(self, device: StreamTeleoperator, message: bytes) -> dict[str, float]:
        """Send until the message has arrived, and return what the device makes of it."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.socket.send(message)
            if action := device.get_action():
                return action
            time.sleep(0.01)
        raise AssertionError("no message arrived")


@pytest.fixture
def sender() -> Any:
    sender = Sender()
    yield sender
    sender.socket.close()


def told(**content: Any) -> bytes:
    return json.dumps(content).encode()


def test_a_stream_moves_the_joints_that_it_names(sender: Sender) -> None:
    now = [0.0]
    device = StreamTeleoperator(sender.address, NAMES, clock=lambda: now[0])
    assert isinstance(device, Teleoperator)
    assert device.get_action() == {}
    device.connect()
    try:
        assert device.is_connected
        assert sender.until(device, told(joints={"index": 0.25})) == {"index": 0.25}
        # Several were sent until the first arrived: the others must not count as new ones below.
        sender.socket.close()
        for _ in range(100):
            device.get_action()
            time.sleep(0.01)
        now[0] = STALE_S
        assert device.get_action() == {"index": 0.25}
        # A sender that is gone moves nothing any more.
        now[0] = STALE_S + 0.01
        assert device.get_action() == {}
    finally:
        device.disconnect()
    assert not device.is_connected


def test_an_open_clutch_holds(sender: Sender) -> None:
    device = StreamTeleoperator(sender.address, NAMES)
    device.connect()
    try:
        sender.until(device, told(joints={"thumb": 0.1}, clutch=True))
        deadline = time.monotonic() + 60
        while device.get_action() and time.monotonic() < deadline:
            sender.socket.send(told(joints={"thumb": 0.9}, clutch=False))
            time.sleep(0.01)
        assert device.get_action() == {} and not device.engaged
    finally:
        device.disconnect()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\xff\x00", "is no joint targets"),
        (b"[1, 2]", "is no joint targets"),
        (told(positions={}), "is no joint targets"),
        (told(joints={"thumb": "far"}), "is no joint targets"),
        (told(joints={"elbow": 1.0}), "moves 'elbow', which the robot does not have"),
        (b'{"joints": {"thumb": NaN}}', "'thumb' is nan"),
        (told(joints={"thumb": 0.0}, clutch="yes"), "clutch is 'yes'"),
    ],
)
def test_a_message_that_is_none_is_a_fault_of_the_device(sender: Sender, message: bytes, words: str) -> None:
    device = StreamTeleoperator(sender.address, NAMES)
    device.connect()
    try:
        with pytest.raises(RobotError, match=words):
            sender.until(device, message)
    finally:
        device.disconnect()


@pytest.mark.parametrize("address", ["", "5555", "tcp:/x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a stream"):
        StreamTeleoperator(address, NAMES)


class Leader:
    """A device in some pose."""

    name = "leader"
    action_features: Mapping[str, Feature] = dict.fromkeys(NAMES, float)
    is_connected = True
    engaged = True

    def __init__(self) -> None:
        self.pose = {"thumb": 1.0, "index": -1.0}

    def connect(self, calibrate: bool = True) -> None:
        """Nothing to open."""

    def get_action(self) -> dict[str, float]:
        return dict(self.pose)

    def send_feedback(self, feedback: Any) -> None:
        """Feels nothing."""

    def disconnect(self) -> None:
        """Nothing to close."""


def test_relative_motion_starts_where_the_robot_is_and_is_scaled() -> None:
    leader = Leader()
    device = RelativeTeleoperator(leader, 0.5)
    device.send_feedback({"thumb": 0.2, "index": 0.3})
    # The leader stands elsewhere: nothing jumps.
    assert device.get_action() == pytest.approx({"thumb": 0.2, "index": 0.3})
    leader.pose = {"thumb": 1.4, "index": -1.2}
    assert device.get_action() == pytest.approx({"thumb": 0.4, "index": 0.2})


def test_with_the_clutch_open_the_leader_moves_alone() -> None:
    leader = Leader()
    device = RelativeTeleoperator(leader, 1.0)
    device.send_feedback({"thumb": 0.0, "index": 0.0})
    device.get_action()
    leader.pose["thumb"] = 1.5
    assert device.get_action()["thumb"] == pytest.approx(0.5)
    leader.engaged = False
    leader.pose["thumb"] = -3.0
    assert device.get_action() == {}
    leader.engaged = True
    assert device.get_action()["thumb"] == pytest.approx(0.5)
    leader.pose["thumb"] = -2.9
    assert device.get_action()["thumb"] == pytest.approx(0.6)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused(speed: float) -> None:
    with pytest.raises(ConfigError, match="speed is"):
        RelativeTeleoperator(Leader(), speed)


class Puck:
    """The driver of a SpaceMouse that is held in one deflection."""

    def __init__(self, **deflections: float) -> None:
        self._deflections = {**dict.fromkeys(("x", "y", "z", "roll", "pitch", "yaw"), 0.0), **deflections}
        self.closed = False

    def open(self) -> Puck:
        return self

    def read(self) -> Any:
        if self.closed:
            raise OSError("no such device")
        return SimpleNamespace(**self._deflections)

    def close(self) -> None:
        self.closed = True


def info() -> RobotInfo:
    return RobotInfo(
        name="arm",
        action=ActionSpec((-1.0, 0.0), (1.0, 4.0), NAMES),
        observation=ObservationSpec(1),
        state_keys=("state",),
        control_hz=10.0,
    )


def test_a_spacemouse_moves_at_half_the_range_per_second() -> None:
    puck = Puck(x=1.0, y=-0.5)
    device = SpaceMouseTeleoperator(info(), puck)
    assert isinstance(device, Teleoperator)
    device.connect()
    device.send_feedback({"thumb": 0.0, "index": 1.0})
    # A tenth of a second: 1.0 * .5 * .1 * 2 rad, and -.5 * .5 * .1 * 4 rad.
    assert device.get_action() == pytest.approx({"thumb": 0.1, "index": 0.9})
    for _ in range(30):
        action = device.get_action()
    assert action == pytest.approx({"thumb": 1.0, "index": 0.0})
    puck.closed = True
    with pytest.raises(RobotError, match="does not answer"):
        device.get_action()
    device.disconnect()
    assert not device.is_connected


def test_a_spacemouse_that_is_not_there_is_one_line() -> None:
    class Nothing:
        def open(self) -> None:
            raise RuntimeError("No connected or supported devices found.")

    with pytest.raises(ConfigError, match="is it plugged in"):
        SpaceMouseTeleoperator(info(), Nothing()).connect()
