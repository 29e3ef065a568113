"""The valve task: the example of a new task keeps the family's contract."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.cube_simulation import GRASP_RAD, OPEN_RAD
from serfn.tasks.orca_hand.plant import Plant
from serfn.tasks.orca_hand.valve import GOAL_RAD, OrcaValve, make_demonstrator
from serfn.tasks.registry import register_envs, task


def _demonstrate(env: OrcaValve, seed: int) -> tuple[list[float], dict, bool]:
    observation, _ = env.reset(seed=seed)
    demonstrator, rewards = make_demonstrator(np.random.default_rng(seed)), []
    while True:
        action = np.clip(demonstrator.act(observation), env.valve.low[1:], env.valve.high[1:])
        observation, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        if terminated or truncated:
            return rewards, info, terminated


def test_registered_environment_passes_gymnasium_checks() -> None:
    register_envs()
    env = gymnasium.make(task("valve").env_id, plant="field", episode_s=1.0)
    check_env(env.unwrapped, skip_render_check=True)


def test_demonstrator_turns_the_valve_and_the_reward_adds_up() -> None:
    env = OrcaValve()
    rewards, info, terminated = _demonstrate(env, seed=0)
    assert terminated
    assert info["is_success"]
    assert env.turned_rad >= GOAL_RAD
    assert sum(rewards) == pytest.approx(env._angle - env._start + 1.0, abs=0.2)
    assert info["episode_metrics"]["turns"] == pytest.approx(env.turned_rad / (2 * np.pi))


def test_same_seed_gives_the_same_episode() -> None:
    runs = [_demonstrate(OrcaValve(plant="field", episode_s=2.0), seed=1)[0] for _ in range(2)]
    assert runs[0] == runs[1]


def test_knob_stays_where_it_is_left() -> None:
    env = OrcaValve()
    env.reset(seed=0)
    opened = (OPEN_RAD + 0.6 * (OPEN_RAD - GRASP_RAD))[1:].astype(np.float32)
    turned = [env.turned_rad for _ in range(40) if env.step(opened)]
    assert np.ptp(turned[15:]) < 0.01


def test_plants_that_mean_nothing_here_are_refused() -> None:
    with pytest.raises(ConfigError, match="object_mass"):
        OrcaValve(plant=Plant(object_mass=2.0))
