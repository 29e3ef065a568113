"""The cube task's contract: determinism, honest physics, direction latch, plants and failure handling."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.cube_rotation import (
    DROP_PENALTY_RAD,
    HELD_OFFSET_M,
    SLIP_PENALTY_RAD,
    OrcaCubeRotation,
)
from serfn.tasks.orca_hand.cube_simulation import GRASP_CENTRE_M, GRASP_RAD, OBSERVATION_NAMES
from serfn.tasks.orca_hand.environment import MAX_TARGET_CHANGE_RAD
from serfn.tasks.orca_hand.plant import PLANTS, Plant, Transmission
from serfn.tasks.orca_hand.rotation import perturb_quaternion, quaternion_to_matrix, yaw_quaternion, yaw_twist
from serfn.tasks.registry import register_envs, task

HOLD = GRASP_RAD[1:].astype(np.float32)


def _run(env: OrcaCubeRotation, steps: int, seed: int) -> tuple[np.ndarray, list[float]]:
    observation, _ = env.reset(seed=seed)
    rewards = []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(HOLD)
        rewards.append(reward)
        if terminated or truncated:
            break
    return observation, rewards


def test_registered_environment_passes_gymnasium_checks() -> None:
    register_envs()
    register_envs()
    env = gymnasium.make(task("cube").env_id, plant="field", episode_s=1.0)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space.shape == (len(OBSERVATION_NAMES) + 1,)
    assert env.action_space.shape == (16,)


@pytest.mark.parametrize("plant", ["nominal", "field"])
def test_same_seed_and_actions_give_the_same_trajectory(plant: str) -> None:
    rng = np.random.default_rng(0)
    actions = HOLD + rng.uniform(-0.1, 0.1, (20, 16)).astype(np.float32)
    runs = []
    for env in (OrcaCubeRotation(plant=plant), OrcaCubeRotation(plant=plant)):
        observation, _ = env.reset(seed=3)
        trace = [observation, *(env.step(action)[0] for action in actions)]
        runs.append(np.stack(trace))
    np.testing.assert_array_equal(runs[0], runs[1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_static_grasp_holds_the_cube_and_earns_almost_nothing(seed: int) -> None:
    env = OrcaCubeRotation()
    _, rewards = _run(env, 200, seed)
    assert len(rewards) == 200
    assert abs(sum(rewards)) < 0.3
    contacts = env.cube.data.contact
    assert max(-contact.dist for contact in contacts) < 0.0015


def test_opening_the_hand_drops_the_cube_and_ends_the_episode() -> None:
    env = OrcaCubeRotation(randomize=False)
    opened = env.simulation.low[1:].astype(np.float32)
    env.reset(seed=0)
    for _ in range(100):
        _, reward, terminated, _, info = env.step(opened)
        if terminated:
            break
    assert terminated
    assert reward <= -DROP_PENALTY_RAD + 0.2
    assert info["episode_metrics"]["dropped"] == 1.0
    assert info["is_success"] is False
    assert sum(info["reward_terms"].values()) == reward


def test_a_cube_that_has_slipped_costs_more_the_further_it_has() -> None:
    env = OrcaCubeRotation(randomize=False)
    env.reset(seed=0)
    held, upright = GRASP_CENTRE_M + HELD_OFFSET_M, np.array([1.0, 0.0, 0.0, 0.0])

    def slip(aside_m: float, tilt: float) -> float:
        angle = np.arcsin(tilt)
        turn = np.array([np.cos(angle / 2), 0.0, np.sin(angle / 2), 0.0])
        env.cube.data.qpos[17:20] = held + np.array([0.0, aside_m, 0.0])
        env.cube.data.qpos[20:24] = turn if tilt else upright
        terms = env.reward_terms()
        assert terms["drop"] == 0.0
        return terms["slip"]

    assert slip(0.0, 0.0) == slip(0.0099, 0.24) == 0.0
    assert slip(0.015, 0.0) == pytest.approx(-SLIP_PENALTY_RAD / 2)
    assert slip(0.0, 0.375) == pytest.approx(-SLIP_PENALTY_RAD / 2)
    assert slip(0.03, 0.6) == -SLIP_PENALTY_RAD


def _turn_cube(env: OrcaCubeRotation, yaw: float) -> dict[str, float]:
    env.cube.data.qpos[20:24] = yaw_quaternion(yaw)
    return env.reward_terms()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_direction_is_open_until_the_cube_has_turned_and_counts_from_then_on(sign: float) -> None:
    env = OrcaCubeRotation(randomize=False)
    env.reset(seed=0)
    env._yaw = 0.0
    assert _turn_cube(env, sign * 0.08)["progress"] == pytest.approx(0.08)
    assert env.direction == 0
    for step in range(2, 8):
        _turn_cube(env, sign * 0.08 * step)
    assert env.direction == sign
    assert env.observe(env.np_random)[-1] == sign
    assert env.outcome().metrics["counter_clockwise"] == (sign > 0)
    assert _turn_cube(env, sign * (0.56 - 0.05))["progress"] == pytest.approx(-0.05)


def test_a_given_direction_punishes_the_other_way() -> None:
    env = OrcaCubeRotation(direction="cw", randomize=False)
    env.reset(seed=0)
    env._yaw = 0.0
    assert env.direction == -1
    assert _turn_cube(env, 0.05)["progress"] == pytest.approx(-0.05)


def test_progress_telescopes_to_net_turns_over_the_half_turn_boundary() -> None:
    env = OrcaCubeRotation(direction="ccw", randomize=False)
    env.reset(seed=0)
    env._yaw = 0.0
    total = sum(_turn_cube(env, 0.09 * step)["progress"] for step in range(1, 100))
    assert total == pytest.approx(0.09 * 99, rel=1e-6)
    assert env.outcome().metrics["turns"] == pytest.approx(0.09 * 99 / (2 * np.pi))
    assert env.outcome().metrics["rev_per_min"] == pytest.approx(3 * 0.09 * 99 / (2 * np.pi))


def test_targets_are_rate_limited() -> None:
    env = OrcaCubeRotation(randomize=False)
    env.reset(seed=0)
    before = env.simulation.targets.copy()
    env.step(env.simulation.high[1:].astype(np.float32))
    change = env.simulation.targets - before
    assert change[0] == 0
    assert np.abs(change).max() <= MAX_TARGET_CHANGE_RAD + 1e-9


@pytest.mark.parametrize("speed", [np.nan, 150.0])
def test_diverged_simulation_ends_as_a_flagged_failure(speed: float) -> None:
    env = OrcaCubeRotation(randomize=False)
    env.reset(seed=0)
    env.cube.data.qvel[17] = speed
    observation, reward, terminated, _, info = env.step(HOLD)
    assert terminated
    assert info["simulation_diverged"] is True
    assert info["is_success"] is False
    assert reward == -DROP_PENALTY_RAD
    assert np.isfinite(observation).all()


def test_nothing_but_contact_and_gravity_acts_on_the_cube() -> None:
    env = OrcaCubeRotation(plant="field")
    model = env.cube.model
    assert model.neq == 0
    assert not env.cube.data.xfrc_applied.any()
    assert (model.actuator_trntype == 0).all()  # every motor turns a joint
    assert model.nu == 17
    cube = model.body("cube").id
    assert model.body_gravcomp[cube] == 0


@pytest.mark.parametrize("name", sorted(PLANTS))
def test_every_plant_holds_the_cube_for_two_seconds(name: str) -> None:
    env = OrcaCubeRotation(plant=name)
    _, rewards = _run(env, 40, seed=1)
    assert len(rewards) == 40


def test_latency_delays_and_backlash_swallows_commands() -> None:
    transmission = Transmission(Plant(latency_s=0.025, backlash_rad=0.1), period_s=0.05, timestep_s=0.0025)
    transmission.reset(np.zeros(1))
    (before, first), (after, rest) = transmission.schedule(np.array([0.2]))
    assert (first, rest) == (10, 10)
    assert before[0] == 0
    assert after[0] == pytest.approx(0.15)
    assert transmission.schedule(np.array([0.12]))[-1][0][0] == pytest.approx(0.15)
    assert transmission.schedule(np.array([0.0]))[-1][0][0] == pytest.approx(0.05)


def test_twist_of_a_wobbling_rotation_does_not_drift() -> None:
    tilt = np.array([0.2, 0.0, 0.0])
    yaws = [
        yaw_twist(perturb_quaternion(yaw_quaternion(0.4), np.array([np.cos(a), np.sin(a), 0]) * 0.2))
        for a in np.linspace(0, 2 * np.pi, 9)
    ]
    assert yaws[0] == pytest.approx(yaws[-1])
    assert yaw_twist(yaw_quaternion(1.2)) == pytest.approx(1.2)
    matrix = quaternion_to_matrix(perturb_quaternion(yaw_quaternion(0.0), tilt))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(matrix[2], [0, np.sin(0.2), np.cos(0.2)], atol=1e-12)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"plant": "mars"}, "mars.*nominal"),
        ({"direction": "up"}, "up.*ccw"),
        ({"render_mode": "human"}, "human.*rgb_array"),
        ({"episode_s": 0.0}, "episode_s"),
        ({"plant": Plant(latency_s=0.2)}, "latency_s.*0.2"),
    ],
)
def test_bad_options_are_named(kwargs: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        OrcaCubeRotation(**kwargs)


def test_bad_actions_are_refused() -> None:
    env = OrcaCubeRotation(randomize=False)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="16 finite joint targets"):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="16 finite joint targets"):
        env.step(np.full(16, np.nan, np.float32))


def test_rendering_shows_the_cube() -> None:
    env = OrcaCubeRotation(render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    env.close()
    assert frame is not None
    assert frame.shape == (480, 480, 3)
    red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
    orange = (red > green + 20) & (green > blue + 20)
    assert orange.mean() > 0.01
