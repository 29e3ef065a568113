"""Families of plants: one plant per seed, within the documented ranges."""

from __future__ import annotations

import dataclasses

import gymnasium
import numpy as np
import pytest

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.plant import CUBE_FAMILY, PLANTS, Plant, PlantFamily, plant
from serfn.tasks.orca_hand.scissors.conditions import FAMILY as SCISSORS_FAMILY
from serfn.tasks.point_obstacle import random_plant
from serfn.tasks.random_plants import seed_of
from serfn.tasks.registry import register_envs, task

TASKS = ("cube", "scissors", "valve", "diagnostic")


@pytest.mark.parametrize("family", [CUBE_FAMILY, SCISSORS_FAMILY])
def test_draws_stay_within_their_ranges_and_reach_both_ends(family: PlantFamily) -> None:
    drawn = [family.draw(seed) for seed in range(300)]
    for name in ("motor_gain", "friction", "object_mass", "hinge_friction", "latency_s", "backlash_rad"):
        low, high = getattr(family, name)
        values = np.array([getattr(member, name) for member in drawn])
        assert (values >= low).all() and (values <= high).all()
        if high > low:
            assert values.min() < low + 0.05 * (high - low) and values.max() > high - 0.05 * (high - low)
    meshes = np.mean([member.collision == "meshes" for member in drawn])
    assert 0.4 < meshes < 0.6
    loudest = max(member.joint_noise_rad for member in drawn)
    assert 1.9 * PLANTS["field"].joint_noise_rad < loudest <= 2 * PLANTS["field"].joint_noise_rad


def test_a_seed_is_one_plant_and_keeps_to_it() -> None:
    assert plant("random:100") == plant("random:100") == CUBE_FAMILY.draw(100)
    assert plant("random:100") != plant("random:101")
    # A change of this draw would make every result on the family another one.
    assert CUBE_FAMILY.draw(0).motor_gain == pytest.approx(0.6506210106915662)


def test_fields_that_a_task_ignores_stay_neutral() -> None:
    quiet = plant("random:7", without=("object_mass", "joint_noise_rad"))
    neutral = Plant()
    assert (quiet.object_mass, quiet.joint_noise_rad) == (neutral.object_mass, neutral.joint_noise_rad)
    full = dataclasses.replace(plant("random:7"), object_mass=1.0, joint_noise_rad=0.0)
    assert quiet == full


@pytest.mark.parametrize("name", TASKS)
def test_every_task_takes_a_random_plant(name: str) -> None:
    register_envs()
    env = gymnasium.make(task(name).env_id, plant="random:3")
    try:
        observation, _ = env.reset(seed=0)
        following, reward, *_ = env.step(env.action_space.sample() * 0)
        assert np.isfinite(observation).all() and np.isfinite(following).all() and np.isfinite(float(reward))
    finally:
        env.close()


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("wrong", ["random:", "random:x", "random:-1", "random:1.5", "random:²"])
def test_a_seed_that_is_none_is_one_clear_line(name: str, wrong: str) -> None:
    register_envs()
    with pytest.raises(ConfigError, match="whole number of 0 or more, as in random:3"):
        gymnasium.make(task(name).env_id, plant=wrong)


def test_the_course_of_the_diagnostic_task_moves_to_both_sides() -> None:
    drawn = [random_plant(seed) for seed in range(100)]
    assert min(member.obstacle_y_m for member in drawn) < -0.05
    assert max(member.obstacle_y_m for member in drawn) > 0.05
    assert all(0.85 <= member.gain <= 1.1 for member in drawn)
    assert seed_of("nominal") is None and seed_of("random:12") == 12
