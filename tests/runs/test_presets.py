from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import ConfigError
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.critics.mlp import MLPCriticConfig
from serfn.data.episode import Episode
from serfn.data.formats.npz import save_npz
from serfn.policies.flow_ensemble import FlowEnsemblePolicy
from serfn.runs.presets import Budget, preset, preset_for_environment
from serfn.tasks.registry import Task
from serfn.training.build import make_agent, make_demonstration_replay
from serfn.training.config import TrainConfig
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.rewards import RewardConfig


@pytest.fixture
def demonstration() -> Episode:
    return Episode(
        observations=np.zeros((9, 2)),
        actions=np.zeros((8, 1)),
        rewards=np.ones(8),
        terminated=False,
        truncated=True,
        chunk_starts=np.ones(8, bool),
    )


@pytest.mark.parametrize("budget", get_args(Budget))
def test_presets_survive_a_file(budget: Any) -> None:
    config = preset("cube", budget)
    assert config.plant == "field"
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_the_diagnostic_keeps_its_networks_small() -> None:
    config = preset("diagnostic", "demo")
    assert (config.env, config.plant) == ("serfn/PointObstacle-v0", "field")
    assert (
        config.chunk_size * 2 == 20
        and isinstance(config.critic, MLPCriticConfig)
        and config.critic.width <= 64
    )
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_full_budget_is_the_robot_time_of_the_paper() -> None:
    assert preset("cube", "full").online.episodes * 20 / 60 == 105


def test_any_environment_has_a_preset_with_the_rewards_of_its_demonstrations(
    tmp_path: Path, demonstration: Episode
) -> None:
    assert preset_for_environment("serfn/OrcaCubeRotation-v0", "demo", None) == preset("cube", "demo")
    path = tmp_path / "demos.npz"
    save_npz(path, [dataclasses.replace(demonstration, rewards=np.linspace(-20, 4, 8))])
    config = preset_for_environment("toy/Reach-v0", "smoke", path)
    assert (config.env, config.plant, config.demos) == ("toy/Reach-v0", None, path)
    assert config.rewards == RewardConfig(scale=1 / 20)
    # Sizes follow the data, not the cube.
    assert config.chunk_size < preset("cube", "smoke").chunk_size


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="huge"):
        preset("cube", "huge")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="tea"):
        preset("tea", "demo")


def test_the_valve_ends_well_and_trains_on_its_field_plant() -> None:
    config = preset("valve", "smoke")
    assert (config.env, config.plant, config.demo_plant) == ("serfn/OrcaValve-v0", "field", "nominal")
    assert config.rewards.absorbing_success == 1.0


PLAIN = Task("tests/Plain-v0", "tests.toy:Reach", 8, "tests.toy:Reach", "a task without a preset of its own")


def test_a_task_of_another_package_has_a_preset_and_keeps_its_name(tmp_path: Path) -> None:
    place = f"{__name__}:PLAIN"
    config = preset(place, "demo")
    assert (config.env, config.plant, config.demo_plant, config.rewards) == (
        place,
        None,
        None,
        RewardConfig(),
    )
    assert config == preset_for_environment(place, "demo", None)
    with pytest.raises(ConfigError, match="it is no "):
        preset("serfn.tasks.registry:register_envs", "demo")
    with pytest.raises(ConfigError, match="did you mean 'cube'"):
        preset("cub", "demo")


def test_the_full_preset_of_the_scissors_learns_with_its_four_flows() -> None:
    config = preset("scissors", "full")
    task = TaskSpec("scissors", ObservationSpec(9), ActionSpec((-1.0,) * 4, (1.0,) * 4), 20.0, 360)
    agent = make_agent(config, task)
    assert isinstance(agent.policy, FlowEnsemblePolicy) and len(agent.policy.members) == 4
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            observations=rng.normal(size=(61, 9)),
            actions=rng.uniform(-0.9, 0.9, size=(60, 4)),
            rewards=(np.arange(60) == 59).astype(float),
            terminated=True,
            truncated=False,
            success=True,
            chunk_starts=np.arange(60) % 8 == 0,
        )
        for _ in range(2)
    ]
    replay = make_demonstration_replay(config, task, episodes)
    batch = agent.tensors(replay.sample(32, rng))
    agent.policy.fit_statistics(batch.obs, batch.actions, batch.valid)
    improvement = config.online.improvement
    assert isinstance(improvement, RegularizedConfig)
    agent.freeze_reference(improvement.coefficient)
    before = [parameter.detach().clone() for parameter in agent.policy.parameters()]
    metrics = agent.imitation_step(batch) | agent.critic_step(batch)
    metrics |= agent.policy_step(batch, batch, config.online.improvement)
    assert all(np.isfinite(value.item()) for value in metrics.values())
    moved = [not torch.equal(old, new) for old, new in zip(before, agent.policy.parameters(), strict=True)]
    # Every member learns from every update of imitation.
    assert sum(moved) > len(moved) / 2
    assert config.online.acting.n_action_steps == 4 and config.online.policy_windows == "replans"
