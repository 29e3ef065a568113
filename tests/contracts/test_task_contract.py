"""One suite over every registered task: what collecting, training and evaluating rely on."""

from __future__ import annotations

from typing import Any, get_args

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from serfn.core.registry import attribute
from serfn.rollout.environments import make_env, task_spec, try_out
from serfn.runs.presets import Budget, preset, preset_for_environment
from serfn.tasks.registry import Task, env_of_task, register_env, task, task_of_env, tasks

STEPS = 12
NAMES = [*tasks.names(), "mylab.task:REACH"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def entry(name: str) -> Task:
    return task(name)


def episode(env: gymnasium.Env, entry: Task, seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return observations and rewards of the demonstrator's first steps, and the last `info`."""
    observation, info = env.reset(seed=seed)
    demonstrator = attribute(entry.demonstrator, "demonstrator")(np.random.default_rng(seed))
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    observations, rewards = [observation], []
    for _ in range(STEPS):
        action = np.clip(demonstrator.act(observation), space.low, space.high).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        observations.append(observation)
        rewards.append(float(reward))
        if terminated or truncated:
            break
    return np.stack(observations), np.array(rewards), info


def test_it_passes_gymnasiums_own_checks(entry: Task) -> None:
    register_env(entry)
    env = gymnasium.make(entry.env_id, disable_env_checker=True)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_it_says_what_training_needs(name: str, entry: Task) -> None:
    env = make_env(env_of_task(name))
    try_out(env)
    spec = task_spec(env)
    assert (spec.id, spec.max_episode_steps) == (env_of_task(name), entry.max_episode_steps)
    assert task_of_env(spec.id) is entry
    env.close()


def test_its_demonstrator_acts_and_the_seed_decides_the_episode(name: str, entry: Task) -> None:
    env = make_env(env_of_task(name))
    first, again, other = (episode(env, entry, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    observations, rewards, info = first
    assert np.isfinite(observations).all() and np.isfinite(rewards).all()
    assert info["is_success"] in (True, False)
    assert all(np.isfinite(value) for value in info.get("episode_metrics", {}).values())
    env.close()


def test_every_plant_can_be_made(name: str, entry: Task) -> None:
    for plant in entry.plants:
        make_env(env_of_task(name), plant=plant).close()


@pytest.mark.parametrize("budget", get_args(Budget))
def test_it_has_a_preset_by_its_name_and_by_its_environment(name: str, entry: Task, budget: Budget) -> None:
    config = preset(name, budget)
    assert config.env == env_of_task(name)
    assert config.plant in (None, *entry.plants)
    assert preset_for_environment(env_of_task(name), budget, None) == config
