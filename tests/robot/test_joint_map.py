"""From a policy's joints to a robot's: the table, its derivation from both packages, the mapped robot."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfn.core.errors import ConfigError
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.adapters.joint_map import MAPS, JointMap, JointRow, load_joint_map
from serfn.robot.adapters.mapped import MappedRobot
from serfn.robot.clock import ManualClock
from serfn.robot.contract import RobotError
from serfn.robot.limits import default_limits
from serfn.sessions.check import CheckConfig, check_robot
from serfn.sessions.fit import check_fit
from serfn.sessions.robots import make_robot

ROW = JointRow("bend", "joint0", -1, 0.25, (-0.7, 1.2), (-1.0, 1.0))
TABLE = JointMap("test", (JointRow("spread", "joint1", 1, -0.1, (-0.5, 2.0), (-1.0, 1.0)), ROW), {})
HELD = dataclasses.replace(TABLE, held_rad={"spread": 0.1})
MOCK_WRIST = {"wrist": -0.74}
ORCA = load_joint_map("orca_sim")

angles = st.floats(-4.0, 4.0)


@given(policy=st.lists(angles, min_size=17, max_size=17))
def test_there_and_back_is_the_same_angle(policy: list[float]) -> None:
    assert ORCA.to_policy(ORCA.to_robot(np.array(policy))) == pytest.approx(np.array(policy), abs=1e-12)


@given(sign=st.sampled_from((1, -1)), offset=angles, at=st.floats(0.0, 1.0))
def test_bounds_are_the_robots_range_in_the_policys_angle(sign: int, offset: float, at: float) -> None:
    low, high = sorted(sign * (end - offset) for end in (-1.0, 1.0))
    row = JointRow("a", "b", sign, offset, (low, high), (-1.0, 1.0))
    assert row.bounds_rad == (low, high)
    assert -1.0 - 1e-9 <= sign * (low + at * (high - low)) + offset <= 1.0 + 1e-9


@given(values=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2))
def test_a_command_comes_back_as_it_was_sent(values: list[float]) -> None:
    robot = MappedRobot(FakeRobot(ManualClock(0.0), joints=2), TABLE)
    robot.connect()
    spec = robot.info.action
    command = {
        name: low + at * (high - low)
        for name, low, high, at in zip(spec.names, spec.low, spec.high, values, strict=True)
    }
    assert robot.send_action(command) == pytest.approx(command, abs=1e-12)


def test_signs_zeros_and_order_reach_the_robot_and_come_back() -> None:
    clock = ManualClock(0.0)
    fake = FakeRobot(clock, joints=2)
    robot = MappedRobot(fake, TABLE)
    assert robot.info.action.names == ("spread", "bend")
    assert robot.info.action.low == pytest.approx((-0.9, -0.75))
    assert robot.info.action.high == pytest.approx((1.1, 1.25))
    robot.connect()
    for _ in range(60):
        robot.send_action({"spread": 0.4, "bend": 0.6})
        clock.advance(0.05)
        robot.get_observation()
    there, here = fake.get_observation(), robot.get_observation()
    assert (there["joint1.pos"], there["joint0.pos"]) == pytest.approx((0.3, -0.35), abs=1e-3)
    assert [here[key] for key in robot.info.position_keys] == pytest.approx([0.4, 0.6], abs=1e-3)


def test_held_joints_never_move() -> None:
    fake = FakeRobot(ManualClock(0.0), joints=2)
    sent: list[dict[str, float]] = []
    send = fake.send_action
    fake.send_action = lambda action: (sent.append(dict(action)), send(action))[1]  # type: ignore[method-assign]
    robot = MappedRobot(fake, dataclasses.replace(TABLE, held_rad={"spread": 0.06}))
    assert robot.info.action.names == ("bend",)
    robot.connect()
    for index in range(20):
        robot.send_action({"bend": 0.25 + 0.01 * index})
    assert [action["joint1.pos"] for action in sent] == pytest.approx([0.0] * 20)


def test_a_held_joint_that_stands_elsewhere_is_refused() -> None:
    elsewhere = dataclasses.replace(TABLE, held_rad={"spread": 0.5})
    robot = MappedRobot(FakeRobot(ManualClock(0.0), joints=2), elsewhere)
    robot.connect()
    with pytest.raises(RobotError, match=r"'spread' stands at .* held at \+0.500"):
        robot.get_observation()
    with pytest.raises(RobotError, match="bring 'joint1' there"):
        robot.send_action({"bend": 0.25})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sign": 0}, "1 or -1"),
        ({"offset_rad": math.inf}, "finite"),
        ({"policy_range_rad": (1.0, -1.0)}, "low < high"),
        ({"offset_rad": 2.0}, "hardly meet"),
        ({"robot": ""}, "both names"),
    ],
)
def test_a_row_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(ROW, **change)


def test_a_wrong_sign_of_a_bending_joint_is_noticed() -> None:
    row = next(row for row in ORCA.joints if row.policy == "index_mcp")
    with pytest.raises(ConfigError, match="correct sign"):
        dataclasses.replace(row, sign=-row.sign)


@pytest.mark.parametrize(
    ("joints", "held", "words"),
    [
        ((), {}, "name and rows"),
        ((ROW, ROW), {}, "twice"),
        ((ROW,), {"bent": 0.0}, "did you mean 'bend'"),
        ((ROW,), {"bend": 2.0}, "outside"),
        ((ROW,), {"bend": math.nan}, "outside"),
        ((ROW,), {"bend": 0.0}, "holds all"),
    ],
)
def test_a_table_that_cannot_be_is_refused(joints: Any, held: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        JointMap("test", joints, held)


def test_a_table_of_another_robot_is_refused() -> None:
    with pytest.raises(ConfigError, match="only the robot has joint 'joint2'"):
        MappedRobot(FakeRobot(ManualClock(0.0), joints=3), TABLE)
    other = dataclasses.replace(ROW, robot_range_rad=(-1.0, 1.1))
    with pytest.raises(ConfigError, match="was made for 'joint0'"):
        MappedRobot(
            FakeRobot(ManualClock(0.0), joints=2), dataclasses.replace(TABLE, joints=(TABLE.joints[0], other))
        )


def test_a_policy_may_have_been_trained_in_wider_ranges_and_no_wider() -> None:
    robot = MappedRobot(FakeRobot(ManualClock(0.0), joints=2), TABLE)
    observation = ObservationSpec(robot.info.observation.dim)
    task = TaskSpec("task", observation, ActionSpec((-0.5, -0.7), (2.0, 1.2)), 20.0, 100)
    check_fit(task, robot)
    with pytest.raises(ConfigError, match="action bounds"):
        check_fit(dataclasses.replace(task, action=ActionSpec((-0.5, -0.7), (2.1, 1.2))), robot)


def test_a_check_shows_the_table_and_names_each_joint() -> None:
    clock = ManualClock(0.0)
    robot = MappedRobot(FakeRobot(clock, joints=2), HELD)
    said: list[str] = []
    config = CheckConfig(seconds=1.0)
    check_robot(robot, default_limits(robot.info), clock, config, announce=said.append)
    text = "\n".join(said)
    assert "spread  joint1  robot = +policy -0.100" in text
    assert "held at +0.100" in text
    assert "2 of 2 joints were not seen" in text
    assert "  bend -> joint0" in said


def test_the_hand_is_made_with_a_table_by_name_or_file(tmp_path: Path) -> None:
    pytest.importorskip("orca_core")
    file = tmp_path / "mine.toml"
    file.write_text(
        MAPS["orca_sim"].read_text(encoding="utf-8").replace('"orca_sim"', '"mine"'), encoding="utf-8"
    )
    clock = ManualClock(0.0)
    for name in ("orca_sim", str(file)):
        robot = make_robot("orca", {"mock": True, "joint_map": name}, clock)
        assert isinstance(robot, MappedRobot)
        assert robot.info.action.dim == 16
    all_joints = make_robot("orca", {"mock": True, "joint_map": str(file), "held": {}}, clock)
    assert all_joints.name == "orca:mine"
    assert all_joints.info.action.dim == 17
    assert make_robot("orca", {"mock": True, "joint_map": "none"}, clock).name == "orca"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"joint_map": "orca_sin"}, "did you mean 'orca_sim'"),
        ({"joint_map": "nowhere.toml"}, "nowhere.toml"),
        ({"joint_map": 3}, "joint_map is 3"),
        ({"held": {"wrist": 0.0}}, "without a joint map"),
        ({"joint_map": "orca_sim", "held": {"wrist": "up"}}, "robot_options.held_rad.wrist"),
        ({"joint_map": "orca_sim", "held": {"waist": 0.0}}, "did you mean 'wrist'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    pytest.importorskip("orca_core")
    with pytest.raises(ConfigError, match=words):
        make_robot("orca", {"mock": True, **options}, ManualClock(0.0))


def test_currents_and_temperatures_pass_through() -> None:
    pytest.importorskip("orca_core")
    robot = make_robot("orca", {"mock": True, "joint_map": "orca_sim", "held": MOCK_WRIST}, ManualClock(0.0))
    with pytest.raises(RobotError):
        robot.send_action(dict.fromkeys(robot.info.action.names, 0.0))
    robot.connect()
    observation = robot.get_observation()
    assert len(robot.info.current_keys) == len(robot.info.temperature_keys) == 17
    assert {"thumb_cmc.current", "thumb_cmc.temperature", "time_s"} <= set(observation)
    robot.disconnect()


def test_observations_begin_as_those_of_the_simulated_hand() -> None:
    pytest.importorskip("orca_core")
    from serfn.tasks.orca_hand.cube_simulation import OBSERVATION_NAMES

    robot = make_robot("orca", {"mock": True, "joint_map": "orca_sim", "held": MOCK_WRIST}, ManualClock(0.0))
    keys = robot.info.state_keys
    assert keys == OBSERVATION_NAMES[: len(keys)]


def test_the_table_follows_from_the_frames_of_both_packages() -> None:
    """The driver's link at 0, turned about the joint's axis as far as possible onto the simulated link."""
    mujoco = pytest.importorskip("mujoco")
    orca_sim = pytest.importorskip("orca_sim")
    kinematics = pytest.importorskip("orca_core.kinematics.hand_kinematics").HandKinematics.load("right")
    model: Any = mujoco.MjModel.from_xml_path(str(Path(orca_sim.__file__).parent / "scene_right.xml"))
    rows = {row.robot: row for row in ORCA.joints}
    assert [f"right_{row.policy}" for row in ORCA.joints] == [model.joint(i).name for i in range(17)]
    for row in ORCA.joints:
        joint_range = model.joint(f"right_{row.policy}").range
        assert row.policy_range_rad == pytest.approx(joint_range, abs=1e-5)
    for chain in kinematics._finger_chains.values():
        for link in chain:
            row = rows[link.joint]
            joint = model.joint(f"right_{row.policy}")
            rotation, between = np.zeros(9), np.zeros(4)
            mujoco.mju_quat2Mat(rotation, model.body_quat[model.jnt_bodyid[joint.id]])
            relative = rotation.reshape(3, 3).T @ link.origin.rotation
            mujoco.mju_mat2Quat(between, np.ascontiguousarray(relative).ravel())
            agreement = joint.axis @ relative @ (link.axis * link.sign)
            turn = 2 * math.atan2(between[1:] @ joint.axis, between[0])
            zero = model.qpos0[joint.qposadr[0]] + (turn + math.pi) % (2 * math.pi) - math.pi
            assert row.sign == np.sign(agreement)
            assert row.offset_rad == pytest.approx(-row.sign * zero, abs=1e-3)
            tilt_deg = math.degrees(math.acos(min(agreement * row.sign, 1.0)))
            assert (tilt_deg < 2.5) == (row.basis == "frames")
