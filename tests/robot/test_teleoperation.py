from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest

from serfn.core.errors import ConfigError, DataError
from serfn.core.spec import ActionSpec
from serfn.robot.contract import Operator, RobotError, Teleoperator
from serfn.robot.teleoperation import KeyboardJog, LeRobotTeleoperator, RecordedTeleoperator

NAMES = ("thumb.pos", "index.pos")
SPEC = ActionSpec((-1.0, -1.0), (1.0, 1.0), NAMES)


class TeleopEvents(enum.Enum):
    IS_INTERVENTION = "is_intervention"
    SUCCESS = "success"
    RERECORD_EPISODE = "rerecord_episode"
    TERMINATE_EPISODE = "terminate_episode"


class Leader:
    """Shaped like a LeRobot teleoperator with events."""

    name = "leader"

    def __init__(self, features: Any = None) -> None:
        self.action_features = features or {"a.pos": float, "index.pos": float}
        self.feedback_features = {"a.pos": float}
        self.is_connected = False
        self.events: dict[Any, bool] = {}
        self.action: dict[str, Any] = {"a.pos": np.float32(0.25), "index.pos": 0.5}
        self.felt: dict[str, float] = {}

    def connect(self, calibrate: bool = True) -> None:
        self.is_connected = True

    def get_action(self) -> dict[str, Any]:
        return self.action

    def send_feedback(self, feedback: dict[str, float]) -> None:
        self.felt = feedback

    def get_teleop_events(self) -> dict[Any, bool]:
        return self.events

    def disconnect(self) -> None:
        self.is_connected = False


def all_of_them() -> list[Teleoperator]:
    return [
        KeyboardJog(SPEC),
        RecordedTeleoperator(np.zeros((3, 2)), NAMES),
        LeRobotTeleoperator(Leader(), NAMES, rename={"a.pos": "thumb.pos"}),
    ]


@pytest.mark.parametrize("device", all_of_them(), ids=lambda device: device.name)
def test_every_device_keeps_the_contract(device: Teleoperator) -> None:
    assert isinstance(device, Teleoperator)
    assert not device.is_connected
    device.connect()
    assert device.is_connected
    device.send_feedback(dict.fromkeys(NAMES, 0.1))
    action = device.get_action()
    assert set(action) <= set(NAMES)
    assert set(device.action_features) <= set(NAMES)
    assert all(isinstance(value, float) for value in action.values())
    device.disconnect()
    device.disconnect()
    assert not device.is_connected


def test_a_recording_is_replayed_and_then_held() -> None:
    device = RecordedTeleoperator(np.array([[0.1, 0.2], [0.3, 0.4]]), NAMES)
    device.connect()
    assert [device.get_action()["thumb.pos"] for _ in range(4)] == [0.1, 0.3, 0.3, 0.3]
    assert device.finished
    device.connect()
    assert device.get_action() == {"thumb.pos": 0.1, "index.pos": 0.2}


@pytest.mark.parametrize("wrong", [np.zeros((0, 2)), np.zeros((3, 1)), np.full((2, 2), np.nan)])
def test_unusable_recordings_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(DataError):
        RecordedTeleoperator(wrong, NAMES)


def test_jogging_before_it_is_known_where_the_robot_is_moves_nothing() -> None:
    jog = KeyboardJog(SPEC)
    jog.press("+")
    assert jog.get_action() == {}


def test_a_lerobot_device_speaks_the_robots_names() -> None:
    leader = Leader()
    device = LeRobotTeleoperator(leader, NAMES, rename={"a.pos": "thumb.pos"})
    assert device.get_action() == {"thumb.pos": 0.25, "index.pos": 0.5}
    device.send_feedback({"thumb.pos": 0.75})
    assert leader.felt == {"a.pos": 0.75}
    leader.action["index.pos"] = float("nan")
    with pytest.raises(RobotError, match=r"index\.pos"):
        device.get_action()


def test_features_by_names_are_understood() -> None:
    described = {"dtype": "float32", "shape": (2,), "names": {"thumb.pos": 0, "index.pos": 1}}
    assert set(LeRobotTeleoperator(Leader(described), NAMES).action_features) == set(NAMES)


def test_foreign_dimensions_are_named() -> None:
    with pytest.raises(ConfigError, match=r"a\.pos"):
        LeRobotTeleoperator(Leader(), NAMES)
    with pytest.raises(ConfigError, match="lacks"):
        LeRobotTeleoperator(object(), NAMES)


def test_events_of_a_lerobot_device_are_those_of_an_operator() -> None:
    leader = Leader()
    device: Operator = LeRobotTeleoperator(leader, NAMES, rename={"a.pos": "thumb.pos"})

    def commands(**events: bool) -> list[str]:
        leader.events = {TeleopEvents(name): value for name, value in events.items()}
        return [event.command for event in device.poll()]

    assert commands(is_intervention=True) == ["take_over"]
    assert commands(is_intervention=True) == []
    assert commands(is_intervention=False, success=True, terminate_episode=True) == ["hand_back", "success"]
    assert commands(terminate_episode=True) == ["failure"]
    assert commands(rerecord_episode=True, terminate_episode=True) == ["discard"]
