from __future__ import annotations

import dataclasses
import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from serfn.core.errors import ConfigError
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.adapters.gymnasium import GymnasiumRobot
from serfn.robot.adapters.impairments import Fault, Impairments
from serfn.robot.adapters.lerobot import LeRobotRobot
from serfn.robot.adapters.simulated import SimulatedRobot
from serfn.robot.clock import ManualClock
from serfn.robot.contract import RobotError


class Integrator(gymnasium.Env):
    """Counts its steps and remembers the actions; over after ten."""

    metadata = {"render_fps": 20, "render_modes": []}  # noqa: RUF012
    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.actions: list[float] = []
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.actions.append(round(float(action[0]), 6))
        steps = len(self.actions)
        info = {"is_success": steps > 5, "episode_metrics": {"steps": steps}}
        return np.full(1, steps, np.float32), 0.5, False, steps == 10, info


def simulated(**kwargs: Any) -> tuple[SimulatedRobot, Integrator, ManualClock]:
    clock, env = ManualClock(), Integrator()
    robot = SimulatedRobot(env, clock, "simulated:test", **kwargs)
    robot.connect()
    robot.get_observation()
    return robot, env, clock


def test_the_physics_follow_the_clock() -> None:
    robot, env, clock = simulated()
    clock.advance(1.0)
    robot.get_observation()
    assert env.actions == [], "nothing was commanded"
    robot.send_action({"action.0": 0.1})
    clock.advance(0.05)
    assert robot.get_observation()["observation.0"] == 1.0
    robot.send_action({"action.0": 0.2})
    clock.advance(0.16)
    assert robot.get_observation()["observation.0"] == 4.0, "a late loop finds that the world went on"
    assert env.actions == [0.1, 0.2, 0.2, 0.2]
    before = robot.get_observation()["time_s"]
    clock.advance(0.01)
    assert robot.get_observation()["time_s"] == before, "nothing new yet"
    assert robot.judge({}).reward == pytest.approx(2.0), "the rewards of all steps since the last judgement"
    assert robot.judge({}).reward == 0.0


def test_small_irregularities_of_the_loop_do_not_change_the_number_of_steps() -> None:
    robot, env, clock = simulated()
    generator = np.random.default_rng(0)
    start = clock.now()
    for step in range(1, 9):
        robot.send_action({"action.0": 0.01 * step})
        clock.sleep_until(start + 0.05 * step + generator.uniform(0, 0.02))
        robot.get_observation()
    assert env.actions == pytest.approx([0.01 * step for step in range(1, 9)])


def test_an_episode_that_is_over_stands_still() -> None:
    robot, env, clock = simulated()
    robot.send_action({"action.0": 0.1})
    clock.advance(2.0)
    robot.get_observation()
    assert len(env.actions) == 10
    verdict = robot.judge({})
    assert (verdict.truncated, verdict.terminated, verdict.success) == (True, False, True)
    assert verdict.metrics == {"steps": 10.0}
    robot.reset_scene()
    assert not robot.judge({}).truncated


def test_actuators_are_late_by_whole_steps() -> None:
    robot, env, clock = simulated(impairments=Impairments(actuator_delay_steps=2))
    for step in range(5):
        robot.send_action({"action.0": 0.1 * step})
        clock.advance(0.05)
        robot.get_observation()
    assert env.actions == pytest.approx([0.0, 0.1, 0.2])


def test_sensors_are_late_by_their_latency() -> None:
    robot, _, clock = simulated(impairments=Impairments(sensor_latency_s=0.1))
    seen = []
    for _ in range(5):
        robot.send_action({"action.0": 0.0})
        clock.advance(0.05)
        observation = robot.get_observation()
        seen.append((observation["observation.0"], round(clock.now() - observation["time_s"], 6)))
    assert seen[1:] == [(0.0, 0.1), (1.0, 0.1), (2.0, 0.1), (3.0, 0.1)]


def fake(*faults: Fault, **kwargs: Any) -> tuple[FakeRobot, ManualClock]:
    clock = ManualClock(50.0)
    robot = FakeRobot(clock, impairments=Impairments(faults=faults, **kwargs))
    robot.connect()
    return robot, clock


def test_faults_come_and_go_at_their_times() -> None:
    robot, clock = fake(
        Fault("nan", 0.1, 0.2), Fault("timeout", 0.3, 0.4), Fault("over_current", 0.5, joint=1)
    )
    robot.send_action(dict.fromkeys(robot.info.action.names, 0.5))
    seen = []
    for step in range(12):
        clock.sleep_until(50.0 + 0.05 * step)
        try:
            observation = robot.get_observation()
        except RobotError:
            seen.append("timeout")
            continue
        hot = observation["joint1.current"] > 1e5
        seen.append("nan" if math.isnan(observation["joint0.pos"]) else "current" if hot else "")
    assert seen == ["", "", "nan", "nan", "", "", "timeout", "timeout", "", "", "current", "current"]


def test_a_robot_that_does_not_answer_takes_no_commands_and_costs_time() -> None:
    robot, clock = fake(Fault("timeout", 0.0), timeout_s=0.02)
    with pytest.raises(RobotError, match=r"no answer within 0\.02 s"):
        robot.send_action(dict.fromkeys(robot.info.action.names, 0.5))
    assert clock.now() == pytest.approx(50.02)
    assert not robot.sent


def test_frozen_and_stuck_sensors_repeat_their_first_value() -> None:
    robot, clock = fake(Fault("stuck_joint", 0.1, joint=1))
    robot.send_action(dict.fromkeys(robot.info.action.names, 0.5))
    positions = []
    for _ in range(6):
        observation = robot.get_observation()
        positions.append([observation[key] for key in robot.info.position_keys])
        clock.advance(0.05)
    moving, stuck = np.array(positions)[:, 0], np.array(positions)[:, 1]
    assert (np.diff(moving) > 0).all()
    assert (np.diff(stuck)[2:] == 0).all()


def test_lost_frames_repeat_the_last_one() -> None:
    robot, clock = fake(drop_probability=1.0)
    first = robot.get_observation()
    clock.advance(0.05)
    assert robot.get_observation() == first


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fault("nan", 1.0, 1.0),
        lambda: Fault("nan", 0.0, joint=-1),
        lambda: Impairments(jitter_s=-1.0),
        lambda: Impairments(drop_probability=1.5),
    ],
)
def test_impossible_impairments_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_actions_are_named_after_the_joints_whose_targets_are_observed() -> None:
    from serfn.tasks.registry import register_envs

    register_envs()
    env = gymnasium.make("serfn/OrcaCubeRotation-v0")
    info = GymnasiumRobot(env, ManualClock(), "gymnasium:cube").info
    assert info.action.names[0] == "thumb_mcp"
    assert info.position_keys[0] == "joint_position.thumb_mcp"
    assert info.target_keys[-1] == "joint_target.pinky_pip"
    assert len(info.action.names) == 16
    assert info.state_keys == env.get_wrapper_attr("observation_names")


def test_an_environment_without_flat_spaces_is_refused() -> None:
    env = Integrator()
    env.action_space = spaces.Discrete(3)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="use a flat Box"):
        GymnasiumRobot(env, ManualClock(), "gymnasium:test")


def test_a_lerobot_robot_needs_bounds_for_its_own_actions() -> None:
    class Arm:
        name = "arm"
        action_features = {"pan.pos": float}  # noqa: RUF012
        observation_features = {"pan.pos": float, "flow": (3, 4)}  # noqa: RUF012

    arm: Any = Arm()
    with pytest.raises(ConfigError, match=r"differ in pan\.pos, tilt\.pos"):
        LeRobotRobot(arm, {"tilt.pos": 0}, {"pan.pos": 1}, 30.0)
    with pytest.raises(ConfigError, match="only scalars and images"):
        LeRobotRobot(arm, {"pan.pos": 0}, {"pan.pos": 1}, 30.0)


def test_robot_info_refuses_what_does_not_fit() -> None:
    good = FakeRobot(ManualClock()).info
    wrong: list[dict[str, Any]] = [
        {"rest": (0.0,)},
        {"rest": (0.0, 0.0, 2.0)},
        {"position_keys": ("a",)},
        {"state_keys": ()},
        {"control_hz": 0.0},
    ]
    for changes in wrong:
        with pytest.raises(ConfigError):
            dataclasses.replace(good, **changes)
