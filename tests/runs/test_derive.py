"""What demonstrations tell, and the configuration that follows from it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from serfn.cli.main import main
from serfn.core.config import from_dict, to_dict
from serfn.core.spec import ActionSpec
from serfn.critics.mlp import MLPCriticConfig
from serfn.data.demonstrations import Demonstrations
from serfn.data.episode import Episode
from serfn.data.formats.npz import save_npz
from serfn.policies.flow import FlowPolicyConfig
from serfn.runs.derive import derive
from serfn.runs.facts import Rewards, facts
from serfn.runs.presets import preset_for_environment
from serfn.training.config import TrainConfig
from serfn.training.rewards import RewardConfig

SPEC = ActionSpec((-10.0,) * 2, (10.0,) * 2)


def episode(
    rewards: list[float] | np.ndarray,
    *,
    actions: np.ndarray | None = None,
    observations: np.ndarray | None = None,
    ends: bool = False,
    success: bool | None = True,
) -> Episode:
    steps = len(rewards)
    return Episode(
        observations=np.zeros((steps + 1, 3)) if observations is None else observations,
        actions=np.zeros((steps, 2)) if actions is None else actions,
        rewards=np.asarray(rewards, float),
        terminated=ends,
        truncated=not ends,
        success=success,
        chunk_starts=np.ones(steps, bool),
    )


def demonstrations(*episodes: Episode) -> Demonstrations:
    return Demonstrations(episodes, SPEC)


@pytest.mark.parametrize(
    ("rewards", "ends", "kind", "time"),
    [
        ([0, 0, 0, 1], True, "sparse", 4),
        ([0, 0, 1, 1], False, "sparse", 3),
        ([0, 1, 0, 0], False, "momentary", 2),
        ([-1, -1, 0, 0], False, "step_cost", 3),
        ([-1, -1, -1, -1], True, "step_cost", 4),
        ([0.1, 0.2, 0.3, 0.4], False, "dense", None),
        ([-2, 0, 3, 1], True, "dense", 4),
        ([0, 0, 0, 0], False, "none", None),
    ],
)
def test_the_kind_of_rewards_and_the_time_to_success(
    rewards: list[float], ends: bool, kind: Rewards, time: int | None
) -> None:
    found = facts(demonstrations(episode(rewards, ends=ends)))
    assert (found.rewards, found.time_to_success, found.success_ends) == (kind, time, ends)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_actions_stay_predictable_until_their_autocorrelation_has_halved(noise: float) -> None:
    """An AR(1) process of coefficient .9 halves in log .5 / log .9 = 6.6 steps; noise does not count."""
    rng = np.random.default_rng(0)
    walk = np.zeros((20_000, 2))
    for step in range(1, len(walk)):
        walk[step] = 0.9 * walk[step - 1] + rng.normal(size=2) * 0.5
    actions = walk + noise * rng.normal(size=walk.shape)
    found = facts(demonstrations(episode(np.zeros(len(walk)), actions=np.clip(actions, -9, 9))))
    assert found.memory in (6, 7, 8)
    assert facts(demonstrations(episode(np.zeros(99), actions=rng.normal(size=(99, 2))))).memory == 1


def test_absolute_targets_follow_the_observation_in_episodes_not_fitted_to() -> None:
    rng = np.random.default_rng(0)
    seen = [rng.normal(size=(41, 3)) for _ in range(10)]
    absolute = [episode(np.ones(40), observations=o, actions=o[:-1, :2]) for o in seen]
    relative = [episode(np.ones(40), observations=o, actions=rng.normal(size=(40, 2))) for o in seen]
    assert facts(demonstrations(*absolute)).follows > 0.99
    assert facts(demonstrations(*relative)).follows < 0.05
    chosen = derive(facts(demonstrations(*absolute)), "demo").config
    assert isinstance(chosen.policy, FlowPolicyConfig) and chosen.policy.linear_mean
    assert isinstance(chosen.critic, MLPCriticConfig) and chosen.critic.residual_gain == 0.1


def test_a_sparse_task_of_300_steps_gets_the_configuration_that_was_measured() -> None:
    solved = episode([-1.0] * 299 + [0.0], ends=True)
    config = derive(facts(demonstrations(solved)), "demo").config
    assert (config.chunk_size, config.online.acting.n_action_steps) == (10, 10)
    assert config.agent.discount == pytest.approx(0.99)
    assert config.value_bounds == (-1.0, 0.0)
    assert (config.online.acting.candidates, config.online.online_fraction) == (8, 0.5)


def test_chunks_fit_into_short_episodes_and_long_ones_take_recorded_returns() -> None:
    short = derive(facts(demonstrations(episode([0, 0, 0, 0, 0, 0, 0, 1], ends=True))), "demo").config
    assert short.chunk_size == 2
    long = derive(facts(demonstrations(episode([0.0] * 899 + [1.0], ends=True))), "demo").config
    assert (long.chunk_size, long.agent.return_steps) == (16, 30)


def test_rewards_are_scaled_and_ends_are_absorbing_where_leaving_would_pay() -> None:
    def rewards(*episodes: Episode) -> RewardConfig:
        return derive(facts(demonstrations(*episodes)), "demo").config.rewards

    assert rewards(episode(np.linspace(-20, 4, 8))) == RewardConfig(scale=1 / 20)
    assert rewards(episode([0, 0, 1], ends=True)).absorbing_success == 1
    assert rewards(episode([0, 0, 1])).absorbing_success == 0
    dropped = episode([-1, -1, -1], ends=True, success=False)
    assert rewards(dropped, episode([-1, 0, 0])).absorbing_failure == -1
    assert rewards(episode([0, 0, 0])) == RewardConfig()


def test_the_plan_is_what_training_takes_and_survives_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "demos.npz"
    save_npz(path, [episode([0.0] * 59 + [1.0], ends=True)] * 2, SPEC)
    config = preset_for_environment("Pendulum-v1", "full", path)
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert main(["plan", str(path), "--env", "Pendulum-v1", "--budget", "full", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["config"] == json.loads(json.dumps(to_dict(config)))
    assert told["facts"]["rewards"] == "sparse"
    assert main(["plan", str(path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(told["reasons"]) == 10


def test_a_task_of_ours_keeps_its_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "demos.npz"
    save_npz(path, [episode([0.0, 1.0])], SPEC)
    assert main(["plan", str(path), "--env", "serfn/OrcaCubeRotation-v0"]) == 0
    assert "preset of its own" in capsys.readouterr().out
    expected = preset_for_environment("serfn/OrcaCubeRotation-v0", "demo", None)
    found = preset_for_environment("serfn/OrcaCubeRotation-v0", "demo", path)
    assert dataclasses.replace(found, demos=None) == expected
