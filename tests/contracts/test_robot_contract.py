"""One suite over every robot adapter: what the control loop relies on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.adapters.gymnasium import GymnasiumRobot
from serfn.robot.adapters.impairments import Impairments
from serfn.robot.adapters.lerobot import LeRobotRobot
from serfn.robot.adapters.simulated import SimulatedRobot
from serfn.robot.clock import ManualClock
from serfn.robot.contract import Referee, Robot, RobotError, SceneReset, read_vector
from serfn.robot.health import health_of, unfit
from serfn.robot.limits import default_limits
from serfn.robot.parts.registry import robots
from serfn.robot.safety import SafetySupervisor
from serfn.sessions.robots import make_robot


class Reacher(gymnasium.Env):
    """Two joints that are where they are sent."""

    metadata = {"render_fps": 20, "render_modes": []}  # noqa: RUF012
    observation_names = ("joint_position.a", "joint_position.b", "joint_target.a", "joint_target.b", "time")
    observation_space = spaces.Box(-np.inf, np.inf, (5,), np.float32)
    action_space = spaces.Box(np.array([-0.5, -0.3], np.float32), np.array([0.7, 0.9], np.float32))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.positions = 0, np.zeros(2)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.steps, self.positions = self.steps + 1, action
        return self._observe(), 1.0, self.steps == 50, False, {"is_success": True}

    def _observe(self) -> np.ndarray:
        return np.array([*self.positions, *self.positions, self.steps], np.float32)


class LeRobotArm:
    """A LeRobot robot with a camera, in LeRobot's normalised range."""

    name = "arm"
    observation_features = {"pan.pos": float, "lift.pos": float, "top": (4, 6, 3)}  # noqa: RUF012
    action_features = {"pan.pos": float, "lift.pos": float}  # noqa: RUF012
    is_calibrated = True

    def __init__(self) -> None:
        self.is_connected, self._positions = False, {"pan.pos": 0.0, "lift.pos": 0.0}

    def connect(self, calibrate: bool = True) -> None:
        self._require(False)
        self.is_connected = True

    def get_observation(self) -> dict[str, Any]:
        self._require(True)
        return {**self._positions, "top": np.zeros((4, 6, 3), np.uint8)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self._require(True)
        self._positions = {key: min(max(value, -100.0), 100.0) for key, value in action.items()}
        return dict(self._positions)

    def disconnect(self) -> None:
        self._require(True)
        self.is_connected = False

    def _require(self, connected: bool) -> None:
        if self.is_connected is not connected:
            raise ConnectionError(f"connected: {self.is_connected}")


def orca(clock: ManualClock) -> Robot:
    pytest.importorskip("orca_core")
    from serfn.robot.adapters.orca import OrcaRobot, load_orca_hand

    return OrcaRobot(load_orca_hand(mock=True), clock)


def mapped_orca(clock: ManualClock) -> Robot:
    from serfn.robot.adapters.joint_map import load_joint_map
    from serfn.robot.adapters.mapped import MappedRobot

    # Held joints must stand at their angles; this is about where the wrist of the mock does.
    joints = dataclasses.replace(load_joint_map("orca_sim"), held_rad={"wrist": -0.74})
    return MappedRobot(orca(clock), joints)


def cube(clock: ManualClock) -> Robot:
    from serfn.tasks.registry import register_envs

    register_envs()
    return SimulatedRobot(gymnasium.make("serfn/OrcaCubeRotation-v0"), clock, "simulated:cube")


def lerobot(clock: ManualClock) -> Robot:
    bounds = {"pan.pos": 100.0, "lift.pos": 100.0}
    return LeRobotRobot(
        LeRobotArm(),
        {name: -high for name, high in bounds.items()},
        bounds,
        30.0,
        rest=dict.fromkeys(bounds, 0.0),
    )


ROBOTS: dict[str, Callable[[ManualClock], Robot]] = {
    "fake": FakeRobot,
    "fake with a camera": lambda clock: FakeRobot(clock, image=(4, 6, 3)),
    "fake, impaired": lambda clock: FakeRobot(
        clock, impairments=Impairments(sensor_latency_s=0.03, jitter_s=0.005, drop_probability=0.2)
    ),
    "gymnasium": lambda clock: GymnasiumRobot(Reacher(), clock, "gymnasium:reacher"),
    "simulated": lambda clock: SimulatedRobot(Reacher(), clock, "simulated:reacher"),
    "simulated, impaired": lambda clock: SimulatedRobot(
        Reacher(), clock, "simulated:reacher", impairments=Impairments(0.06, 1, 0.01, 0.2)
    ),
    "simulated cube": cube,
    "lerobot": lerobot,
    "another package's": lambda clock: make_robot("mylab.robot:Arm", {}, clock),
    "orca mock": orca,
    "orca mock, mapped": mapped_orca,
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture(params=ROBOTS)
def robot(request: pytest.FixtureRequest, clock: ManualClock) -> Robot:
    return ROBOTS[request.param](clock)


def test_the_suite_runs_over_every_registered_robot() -> None:
    ours = {name.partition(" ")[0].rstrip(",") for name in ROBOTS}
    assert {*robots.names(), "simulated", "gymnasium"} <= ours | {"mylab-arm"}


def middle(robot: Robot, fraction: float = 0.5) -> dict[str, float]:
    spec = robot.info.action
    return {
        name: low + fraction * (high - low)
        for name, low, high in zip(spec.names, spec.low, spec.high, strict=True)
    }


def test_it_satisfies_the_protocol_and_describes_itself_before_it_is_connected(robot: Robot) -> None:
    assert isinstance(robot, Robot)
    info = robot.info
    assert robot.name == info.name
    assert not robot.is_connected
    assert tuple(robot.action_features) == info.action.names
    keys = (*info.state_keys, *info.image_keys, *info.position_keys, *info.target_keys)
    keys += (*info.current_keys, *info.temperature_keys, *((info.time_key,) if info.time_key else ()))
    assert set(keys) == set(robot.observation_features)
    default_limits(info).check(info)


def test_observations_have_the_declared_features(robot: Robot, clock: ManualClock) -> None:
    robot.connect()
    assert robot.is_connected
    assert robot.is_calibrated
    for _ in range(3):
        observation = robot.get_observation()
        assert set(observation) == set(robot.observation_features)
        for key, feature in robot.observation_features.items():
            if feature is float:
                assert isinstance(observation[key], float)
                assert math.isfinite(observation[key])
            else:
                assert observation[key].shape == feature
                assert observation[key].dtype == np.uint8
        assert len(read_vector(observation, robot.info.state_keys)) == robot.info.observation.dim
        clock.advance(0.05)
    robot.disconnect()


def test_a_command_inside_the_bounds_is_sent_as_it_is(robot: Robot) -> None:
    robot.connect()
    robot.get_observation()
    command = middle(robot, 0.4)
    assert robot.send_action(command) == pytest.approx(command, rel=1e-5, abs=1e-6)
    robot.disconnect()


def test_a_command_outside_is_clipped_and_the_answer_says_so(robot: Robot) -> None:
    robot.connect()
    robot.get_observation()
    sent = robot.send_action(middle(robot, 1.5))
    assert sent == pytest.approx(middle(robot, 1.0), rel=1e-5, abs=1e-6)
    robot.disconnect()


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_command_that_is_not_finite_is_refused(robot: Robot, wrong: float) -> None:
    robot.connect()
    with pytest.raises(RobotError, match="finite"):
        robot.send_action({**middle(robot), robot.info.action.names[0]: wrong})
    robot.disconnect()


def test_a_command_with_other_names_is_refused(robot: Robot) -> None:
    robot.connect()
    command = middle(robot)
    command.pop(robot.info.action.names[0])
    with pytest.raises(RobotError, match="names"):
        robot.send_action(command)
    with pytest.raises(RobotError, match="elbow"):
        robot.send_action({**middle(robot), "elbow": 0.0})
    robot.disconnect()


def test_nothing_works_before_connecting_or_after_disconnecting(robot: Robot) -> None:
    for _ in range(2):
        with pytest.raises(RobotError):
            robot.get_observation()
        with pytest.raises(RobotError):
            robot.send_action(middle(robot))
        robot.connect()
        robot.disconnect()
        assert not robot.is_connected


def test_it_connects_once_and_disconnects_any_number_of_times(robot: Robot) -> None:
    robot.disconnect()
    robot.connect()
    with pytest.raises(RobotError):
        robot.connect()
    robot.disconnect()
    robot.disconnect()
    robot.connect()
    robot.get_observation()
    robot.disconnect()


def test_the_measured_positions_follow_the_commands(robot: Robot, clock: ManualClock) -> None:
    info = robot.info
    if not info.position_keys or "cube" in info.name:
        pytest.skip("it measures no free joints")
    robot.connect()
    for _ in range(12):
        robot.get_observation()
        robot.send_action(middle(robot, 0.4))
        clock.advance(1.0 / info.control_hz)
    positions = read_vector(robot.get_observation(), info.position_keys)
    ranges = np.subtract(info.action.high, info.action.low)
    wanted = np.array(list(middle(robot, 0.4).values()))
    assert np.abs(positions - wanted).max() < 0.01 * ranges.max()
    robot.disconnect()


def test_times_of_measurement_never_run_backwards(robot: Robot, clock: ManualClock) -> None:
    key = robot.info.time_key
    if key is None:
        pytest.skip("it does not say when it measured")
    robot.connect()
    times = []
    for _ in range(8):
        times.append(robot.get_observation()[key])
        robot.send_action(middle(robot))
        clock.advance(0.05)
    assert (np.diff(times) >= 0).all()
    assert times[-1] <= clock.now()
    robot.disconnect()


def test_a_supervisor_can_start_on_it(robot: Robot, clock: ManualClock) -> None:
    robot.connect()
    supervisor = SafetySupervisor(robot.info, default_limits(robot.info), robot.info.control_hz)
    start = supervisor.start(robot.get_observation(), clock.now())
    assert len(start) == robot.info.action.dim
    assert supervisor.cause is None
    robot.disconnect()


def test_it_is_well_or_says_nothing(robot: Robot) -> None:
    robot.connect()
    for complete in (True, False):
        health = health_of(robot, complete=complete)
        assert set(health) <= {*robot.info.action.names, *robot.action_features, "wrist.pos", "wrist"}
        assert unfit(health) == {}
    robot.disconnect()


def test_a_scene_with_a_referee_can_be_reset_and_judged(robot: Robot, clock: ManualClock) -> None:
    if not (isinstance(robot, SceneReset) and isinstance(robot, Referee)):
        pytest.skip("a real robot has no scene of its own")
    robot.connect()
    robot.reset_scene(3)
    first = robot.get_observation()
    robot.send_action(middle(robot))
    clock.advance(0.05)
    verdict = robot.judge(robot.get_observation())
    assert math.isfinite(verdict.reward)
    robot.reset_scene(3)
    again = robot.get_observation()
    if robot.name.startswith("simulated"):
        keys = robot.info.state_keys
        assert np.array_equal(read_vector(first, keys), read_vector(again, keys))
    robot.disconnect()
