"""The diagnostic task: its contract, its two ways, and why their average fails."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest

from serfn.core.errors import ConfigError
from serfn.tasks.point_obstacle import (
    ENV_ID,
    MAX_STEPS,
    OBSTACLE_RADIUS_M,
    PointObstacle,
    PointPlant,
    make_demonstrator,
)
from serfn.tasks.registry import register_envs, task


def demonstrate(plant: str, episodes: int) -> list[tuple[float, bool, float]]:
    """Side wanted, success and side taken of each demonstration."""
    env, outcomes = PointObstacle(plant), []
    for episode in range(episodes):
        demonstrator = make_demonstrator(np.random.default_rng(episode))
        observation, _ = env.reset(seed=episode)
        info = {}
        for _ in range(MAX_STEPS):
            observation, _, terminated, _, info = env.step(demonstrator.act(observation))
            if terminated:
                break
        outcomes.append((demonstrator.side, info["is_success"], info["episode_metrics"]["side"]))
    return outcomes


def test_demonstrations_take_both_sides_and_sometimes_fail() -> None:
    outcomes = demonstrate("nominal", 200)
    success = np.mean([reached for _, reached, _ in outcomes])
    assert 0.9 < success < 1.0
    assert 0.4 < np.mean([side > 0 for side, _, _ in outcomes]) < 0.6
    assert all(side == taken for side, reached, taken in outcomes if reached)


def test_the_average_of_both_sides_hits_the_obstacle() -> None:
    env = PointObstacle()
    env.reset(seed=0)
    for _ in range(MAX_STEPS):
        observation, reward, terminated, truncated, info = env.step(np.array([0.5, 0.0], np.float32))
        if terminated:
            break
    assert terminated and not truncated and reward == 0.0
    assert info["episode_metrics"]["collided"] == 1.0 and not info["is_success"]
    assert math.hypot(*observation[:2]) <= OBSTACLE_RADIUS_M + 1e-6


def test_reaching_the_goal_pays_once_and_ends_the_episode() -> None:
    env = PointObstacle()
    observation, _ = env.reset(seed=1)
    total = 0.0
    for _ in range(MAX_STEPS):
        target = (0.0, 0.6) if observation[0] < 0 else (1.0, 0.0)
        direction = np.array(target) - observation[:2]
        observation, reward, terminated, _, info = env.step(0.7 * direction / np.linalg.norm(direction))
        total += reward
        if terminated:
            break
    assert total == 1.0 and info["is_success"]
    assert info["episode_metrics"]["side"] == 1.0 and info["episode_metrics"]["seconds"] < 5


def test_the_velocity_follows_the_command_with_a_lag() -> None:
    env = PointObstacle(PointPlant(gain=0.8, drift_m_s=0.1))
    start, _ = env.reset(seed=0)
    observation, *_ = env.step(np.array([1.0, 0.0]))
    np.testing.assert_allclose(observation[2:], [0.4, 0.05], atol=1e-6)
    np.testing.assert_allclose(observation[:2] - start[:2], [0.04, 0.005], atol=1e-6)


def test_leaving_the_arena_is_a_failure_and_time_runs_out() -> None:
    register_envs()
    env = gymnasium.make(ENV_ID)
    env.reset(seed=0)
    for _ in range(MAX_STEPS):
        _, _, terminated, _, info = env.step(np.array([0.0, 1.0], np.float32))
        if terminated:
            break
    assert terminated and not info["is_success"]
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(MAX_STEPS)]
    assert ends[-1] == (False, True) and not any(truncated for _, truncated in ends[:-1])


def test_episodes_repeat_by_their_seed() -> None:
    assert demonstrate("field", 3) == demonstrate("field", 3)
    env = PointObstacle()
    first, other = (env.reset(seed=seed)[0] for seed in (1, 2))
    assert np.array_equal(env.reset(seed=1)[0], first) and not np.array_equal(first, other)


def test_it_renders_the_course() -> None:
    env = PointObstacle(render_mode="rgb_array")
    env.reset(seed=0)
    image = env.render()
    assert image is not None and image.shape == (180, 260, 3) and image.dtype == np.uint8
    assert tuple(image[90, 130]) == (90, 90, 90)
    assert PointObstacle().render() is None


def test_it_is_registered_with_its_time_limit() -> None:
    entry = task("diagnostic")
    assert (entry.env_id, entry.max_episode_steps) == (ENV_ID, MAX_STEPS)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown plant 'mars'"):
        PointObstacle("mars")
    with pytest.raises(ConfigError, match="gain is 0"):
        PointPlant(gain=0.0)
    with pytest.raises(ConfigError, match="render_mode"):
        PointObstacle(render_mode="human")
    with pytest.raises(ValueError, match="2 finite velocities"):
        PointObstacle().step(np.array([np.nan, 0.0]))
