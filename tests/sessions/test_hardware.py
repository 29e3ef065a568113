"""A robot is hardware unless it says that it is not: limits and a person come before the first motion."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from serfn.core.errors import ConfigError
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.adapters.gymnasium import GymnasiumRobot
from serfn.robot.adapters.lerobot import LeRobotRobot
from serfn.robot.clock import ManualClock, MonotonicClock
from serfn.robot.contract import OperatorEvent, RobotInfo
from serfn.robot.keyboard import SessionRequest
from serfn.robot.limits import default_limits, limits_toml
from serfn.sessions.actor import RobotActor
from serfn.sessions.check import CheckConfig, check_robot
from serfn.sessions.config import LearningConfig, RobotRunConfig
from serfn.sessions.fit import session_limits
from serfn.sessions.folder import RobotFolder, create
from serfn.sessions.robots import make_robot
from tests.contracts.test_robot_contract import LeRobotArm

ENV_ID = "tests/MovesForReal-v0"


class RealHand(FakeRobot):
    """The fake robot without the word that nothing moves, as a driver of one's own would be."""

    def __init__(self) -> None:
        super().__init__(MonotonicClock(), 2, control_hz=50.0)
        self._info = dataclasses.replace(self._info, name="hand", simulated=False)


class RealEnvironment(gymnasium.Env):
    """An environment that moves motors, and counts how often."""

    metadata = {"render_fps": 50, "render_modes": []}  # noqa: RUF012
    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    motions = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        RealEnvironment.motions += 1
        return np.zeros(4, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        RealEnvironment.motions += 1
        return np.zeros(4, np.float32), 0.0, False, False, {}


class Person:
    """Somebody who answers the first question with a key."""

    def __init__(self, key: SessionRequest) -> None:
        self.requests: list[SessionRequest] = [key]

    def poll(self) -> list[OperatorEvent]:
        return []

    def session_requests(self) -> list[SessionRequest]:
        requests, self.requests = self.requests, []
        return requests


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    gymnasium.register(ENV_ID, RealEnvironment, max_episode_steps=12)  # pyright: ignore[reportArgumentType]
    RealEnvironment.motions = 0
    yield
    del gymnasium.registry[ENV_ID]


@pytest.fixture
def session(tmp_path: Path, robot_run: Path) -> Callable[..., RobotFolder]:
    def build(info: RobotInfo | None = None, **options: Any) -> RobotFolder:
        limits = None
        if info is not None:
            limits = tmp_path / "limits.toml"
            limits.write_text(limits_toml(default_limits(info)), encoding="utf-8")
        values = {"robot": "hand", "reset": "none", "learning": LearningConfig(place="none"), **options}
        return create(tmp_path / "session", robot_run, RobotRunConfig(limits=limits, **values))

    return build


def test_a_robot_object_without_limits_is_refused(session: Callable[..., RobotFolder]) -> None:
    # The configuration names a simulation; what counts is the robot itself.
    folder = session(robot="simulated:cube")
    hand = RealHand()
    with pytest.raises(ConfigError, match="needs a limits file"):
        RobotActor(folder, robot=hand, confirmed=True)
    assert not hand.is_connected


def test_nobody_there_to_confirm_is_refused(session: Callable[..., RobotFolder]) -> None:
    hand = RealHand()
    with pytest.raises(ConfigError, match="confirmed=True"):
        RobotActor(session(hand.info), robot=hand)
    assert not hand.is_connected


def test_confirmed_limits_let_it_move(session: Callable[..., RobotFolder]) -> None:
    hand = RealHand()
    with RobotActor(session(hand.info), robot=hand, confirmed=True) as actor:
        assert actor.run(1) == "1 episodes are done"
    assert hand.sent


@pytest.mark.parametrize(("key", "moves"), [("start", True), ("quit", False)])
def test_a_person_confirms_by_a_key_before_it_is_even_connected(
    session: Callable[..., RobotFolder], key: SessionRequest, moves: bool
) -> None:
    hand, connected = RealHand(), []
    person = Person(key)
    ask = person.session_requests
    person.session_requests = lambda: (connected.append(hand.is_connected), ask())[1]
    with RobotActor(session(hand.info), robot=hand, person=person) as actor:
        actor.run(1)
    assert connected[0] is False
    assert bool(hand.sent) is moves


def test_a_gymnasium_environment_is_hardware_unless_it_is_said_not_to_be(
    session: Callable[..., RobotFolder],
) -> None:
    clock = MonotonicClock()
    real = make_robot(f"gymnasium:{ENV_ID}", {}, clock)
    assert not real.info.simulated
    with pytest.raises(ConfigError, match="needs a limits file"):
        session_limits(RobotRunConfig(robot=f"gymnasium:{ENV_ID}"), real)
    assert make_robot(f"gymnasium:{ENV_ID}", {"simulated": True}, clock).info.simulated
    assert make_robot("gymnasium:serfn/PointObstacle-v0", {}, clock).info.simulated
    with pytest.raises(ConfigError, match="true or false"):
        make_robot(f"gymnasium:{ENV_ID}", {"simulated": "yes"}, clock)
    folder = session(real.info, robot=f"gymnasium:{ENV_ID}")
    with pytest.raises(ConfigError, match="nobody is there"):
        RobotActor(folder)
    with RobotActor(folder, person=Person("quit")) as actor:
        actor.run(1)
    assert RealEnvironment.motions == 0
    with RobotActor(folder, confirmed=True) as actor:
        actor.run(1)
    assert RealEnvironment.motions > 12


def test_adapters_of_what_is_real_do_not_call_themselves_simulated() -> None:
    clock, bounds = ManualClock(), {"pan.pos": 1.0, "lift.pos": 1.0}
    low = {name: -high for name, high in bounds.items()}
    assert not GymnasiumRobot(RealEnvironment(), clock, "environment").info.simulated
    assert not LeRobotRobot(LeRobotArm(), low, bounds, 30.0).info.simulated
    assert make_robot("fake", {}, clock).info.simulated
    assert make_robot("simulated:diagnostic", {}, clock).info.simulated


def test_a_check_of_hardware_moves_nothing_unconfirmed() -> None:
    hand, clock, config = RealHand(), MonotonicClock(), CheckConfig(seconds=0.2)
    said: list[str] = []
    with pytest.raises(ConfigError, match="--confirm-limits"):
        check_robot(hand, default_limits(hand.info), clock, config, announce=said.append)
    assert "hardware" in said[0]
    assert not hand.sent
    check_robot(hand, default_limits(hand.info), clock, config, confirm=lambda: True)
    assert hand.sent
