# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import orca_sim
import pytest

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.scissors.geometry import SCISSORS, Half, half_rotation
from serfn.tasks.orca_hand.scissors.postures import GRIP_JOINTS, GripConfig, grip_postures


@pytest.fixture(scope="module")
def hand() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(Path(orca_sim.__file__).parent / "scene_right.xml"))


def test_fingers_pass_through_the_loops_within_a_third_of_a_millimetre() -> None:
    assert grip_postures().errors_m.max() < 3e-4


def test_postures_respect_the_joint_limits(hand: mujoco.MjModel) -> None:
    limits = np.array([hand.joint(f"right_{name}").range for name in GRIP_JOINTS])
    joints = grip_postures().joints_rad
    assert (joints >= limits[:, 0]).all()
    assert (joints <= limits[:, 1]).all()


@pytest.mark.parametrize("angle", [0.0, 0.2, 0.4])
def test_the_lines_of_the_fingers_meet_the_loops_of_scissors_in_the_hand(
    hand: mujoco.MjModel, angle: float
) -> None:
    grip = grip_postures()
    data = mujoco.MjData(hand)
    data.qpos[:] = 0.0
    for name, value in zip(GRIP_JOINTS, grip.posture(angle), strict=True):
        data.joint(f"right_{name}").qpos[0] = value
    mujoco.mj_kinematics(hand, data)
    tower = data.body("right_tower")
    to_scissors = (tower.xmat.reshape(3, 3) @ grip.scissors_in_hand(angle)).T
    pivot = tower.xpos + tower.xmat.reshape(3, 3) @ grip.pivot_m
    halves: dict[str, Half] = {"thumb_dp": "thumb", "index_ip": "finger", "middle_ip": "finger"}
    for link, half in halves.items():
        body = data.body(f"right_{link}")
        origin = to_scissors @ (body.xpos - pivot)
        axis = to_scissors @ body.xmat.reshape(3, 3)[:, 2]
        loop = SCISSORS.loop(half)
        crossing = origin + (loop.offset_m - origin[1]) / axis[1] * axis
        beside = half_rotation(half, angle).T @ crossing - loop.centre
        assert axis[1] > 0.7
        assert abs(beside[0]) < loop.inner_half_length_m
        assert abs(beside[2]) < 1e-3


def test_the_curve_is_smooth_and_goes_on_beyond_its_ends() -> None:
    grip = grip_postures()
    steps = np.abs(np.diff([grip.posture(angle) for angle in np.linspace(-0.5, 0.6, 56)], axis=0))
    assert steps.max() < 0.03
    np.testing.assert_allclose(grip.posture(0.2), grip.joints_rad[3])
    beyond = grip.posture(-0.18) - grip.posture(-0.08)
    np.testing.assert_allclose(beyond, 1.25 * (grip.joints_rad[0] - grip.joints_rad[1]), atol=1e-9)


def test_the_solution_is_deterministic_and_kept() -> None:
    first = grip_postures()
    assert grip_postures() is first
    grip_postures.cache_clear()
    np.testing.assert_array_equal(grip_postures().joints_rad, first.joints_rad)


def test_angles_must_increase() -> None:
    with pytest.raises(ConfigError, match="increasing"):
        GripConfig(angles_rad=(0.1, 0.0))
