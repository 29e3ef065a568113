"""The demonstrators and the batch of simulations in which they were trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from serfn.core.errors import DataError
from serfn.tasks.orca_hand.cube_demonstrator import CubeDemonstrator, TeacherNetwork, make_demonstrator
from serfn.tasks.orca_hand.cube_rotation import OrcaCubeRotation
from serfn.tasks.orca_hand.cube_simulation import GRASP_RAD, OBSERVATION_NAMES
from serfn.tasks.orca_hand.cube_teacher_env import (
    ACTION_SCALE_RAD,
    CubeTeacherEnv,
    TeacherStage,
    curriculum,
    teacher_targets,
)
from serfn.tasks.orca_hand.model import PhysicsConfig

pytestmark = pytest.mark.slow

STAGE = TeacherStage("test", 1, PhysicsConfig(timestep_s=0.005), visited_starts=0.5)


@pytest.fixture(scope="module")
def batch() -> CubeTeacherEnv:
    env = CubeTeacherEnv(STAGE, direction=1, simulations=3, seed=0)
    env.reset()
    return env


def test_network_is_an_elu_mlp_on_clipped_normalised_observations(tmp_path: Path) -> None:
    arrays = {
        "observation_mean": np.array([1.0, 0.0], np.float32),
        "observation_std": np.array([2.0, 1.0], np.float32),
        "action_std": np.ones(1, np.float32),
        "layer0.weight": np.array([[1.0, 0.0], [0.0, 1.0]], np.float32),
        "layer0.bias": np.array([0.0, -1.0], np.float32),
        "layer1.weight": np.array([[0.5, 1.0]], np.float32),
        "layer1.bias": np.array([0.25], np.float32),
    }
    save_file(arrays, tmp_path / "net.safetensors")
    network = TeacherNetwork.load(tmp_path / "net.safetensors")
    # First unit: (3 - 1) / 2 = 1. Second: 0 - 1 = -1, through ELU exp(-1) - 1.
    np.testing.assert_allclose(network(np.array([3.0, 0.0])), [0.5 + np.expm1(-1.0) + 0.25], rtol=1e-6)


def test_missing_weights_name_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="serfn teacher"):
        TeacherNetwork.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("seed", [2, 4, 6])
def test_no_contact_throws_the_cube(seed: int) -> None:
    """Fingers that turn a cube at 10 rev/min give its centre 0.2 m/s; a solver that gives up gives metres."""
    env = OrcaCubeRotation(plant="meshes")
    teacher = CubeDemonstrator("ccw", 0.0, np.random.default_rng(seed))
    observation, _ = env.reset(seed=seed)
    speeds, over = [], False
    while not over:
        observation, _, terminated, truncated, info = env.step(teacher.act(observation).astype(np.float32))
        speeds.append(np.linalg.norm(env.cube.state().velocity))
        over = terminated or truncated
    assert max(speeds) < 0.5
    assert not info["episode_metrics"]["dropped"]


def test_teacher_targets_move_all_joints_but_the_wrist() -> None:
    targets = teacher_targets(GRASP_RAD, np.full(16, 5.0))
    assert targets[0] == GRASP_RAD[0]
    np.testing.assert_allclose(targets[1:] - GRASP_RAD[1:], 1.5 * ACTION_SCALE_RAD)


def test_both_ways_are_demonstrated_and_draws_are_reproducible() -> None:
    ways = [make_demonstrator(np.random.default_rng(seed)).direction for seed in range(20)]
    assert set(ways) == {"ccw", "cw"}
    assert ways == [make_demonstrator(np.random.default_rng(seed)).direction for seed in range(20)]


@pytest.mark.parametrize(("direction", "sign"), [("ccw", 1.0), ("cw", -1.0)])
def test_shipped_teachers_turn_the_cube_their_way(direction: str, sign: float) -> None:
    env = OrcaCubeRotation(episode_s=10.0)
    observation, _ = env.reset(seed=5)
    teacher = CubeDemonstrator(direction, 0.0, np.random.default_rng(0))
    done = False
    while not done:
        action = teacher.act(observation)
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    assert env.direction == sign
    assert info["episode_metrics"]["turns"] > 0.75
    assert info["episode_metrics"]["dropped"] == 0


def test_batch_observations_are_those_of_the_task(batch: CubeTeacherEnv) -> None:
    observations, rewards, failed, timed_out, last = batch.step(np.zeros((3, 16)))
    assert observations.shape == last.shape == (3, len(OBSERVATION_NAMES))
    assert rewards.shape == failed.shape == timed_out.shape == (3,)
    assert np.isfinite(observations).all()


def test_holding_still_earns_what_being_alive_pays(batch: CubeTeacherEnv) -> None:
    batch.reset()
    rewards = [batch.step(np.zeros((3, 16)))[1] for _ in range(10)]
    assert np.abs(np.mean(rewards) - STAGE.alive) < 0.3


def test_letting_go_fails_and_starts_again(batch: CubeTeacherEnv) -> None:
    batch.reset()
    fallen = np.zeros(3, bool)
    for _ in range(60):
        _, rewards, failed, _, _ = batch.step(np.full((3, 16), -1.5))
        assert (rewards[failed] < -STAGE.failure_penalty / 2).all()
        fallen |= failed
    assert fallen.all()


def test_curriculum_ends_on_the_contacts_of_the_task() -> None:
    stages = curriculum(0.5)
    assert stages[-1].physics.solimp == PhysicsConfig().solimp
    assert sum(stage.steps for stage in stages) == sum(stage.steps for stage in curriculum()) / 2
