from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from serfn.cli.overrides import override
from serfn.core.errors import ConfigError
from serfn.core.spec import TaskSpec
from serfn.data.episode import Episode
from serfn.training.agent import Agent, AgentConfig
from serfn.training.batch import TensorBatch
from serfn.training.build import fit_statistics, make_agent, make_demonstration_replay
from serfn.training.config import TrainConfig
from serfn.training.improvements.regularized import RegularizedConfig

ADAPTIVE = RegularizedConfig(coefficient=0.1, target_kl=0.3)


@pytest.fixture
def make(
    toy_config: Callable[..., TrainConfig], toy_task: TaskSpec, toy_demonstrations: list[Episode]
) -> Callable[..., tuple[Agent, TensorBatch]]:
    def build(**options: Any) -> tuple[Agent, TensorBatch]:
        config = toy_config(agent=AgentConfig(**options))
        agent = make_agent(config, toy_task)
        replay = make_demonstration_replay(config, toy_task, toy_demonstrations)
        fit_statistics(agent, replay, toy_demonstrations)
        return agent, agent.tensors(replay.sample(32, np.random.default_rng(0)))

    return build


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def spoiled(batch: TensorBatch) -> TensorBatch:
    rewards = torch.full_like(batch.rewards, torch.nan)
    return dataclasses.replace(batch, obs=batch.obs * torch.nan, rewards=rewards)


def test_imitation_lowers_the_negative_log_likelihood(make: Callable[..., Any]) -> None:
    agent, batch = make()
    agent.set_policy_learning_rate(3e-3)
    first = agent.imitation_step(batch)["policy/nll"]
    for _ in range(40):
        last = agent.imitation_step(batch)["policy/nll"]
    assert last < first


def test_target_critic_moves_by_its_fraction(make: Callable[..., Any]) -> None:
    agent, batch = make(polyak=0.25)
    before = weights(agent.target_critic)
    agent.critic_step(batch)
    torch.testing.assert_close(weights(agent.target_critic), torch.lerp(before, weights(agent.critic), 0.25))


@pytest.mark.parametrize("step", ["imitation", "critic", "policy"])
def test_a_step_that_is_not_finite_changes_nothing(make: Callable[..., Any], step: str) -> None:
    agent, batch = make()
    agent.freeze_reference(0.1)
    update = {
        "imitation": agent.imitation_step,
        "critic": agent.critic_step,
        "policy": lambda b: agent.policy_step(b, b, ADAPTIVE),
    }[step]
    update(batch)
    before = torch.cat([weights(agent.policy), weights(agent.critic), agent.coefficient.view(1)])
    update(spoiled(batch))
    update(spoiled(batch))
    after = torch.cat([weights(agent.policy), weights(agent.critic), agent.coefficient.view(1)])
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert (agent.skipped_in_a_row, agent.skipped) == (2, 2)
    update(batch)
    assert (agent.skipped_in_a_row, agent.skipped) == (0, 2)
    assert torch.isfinite(weights(agent.policy)).all()


def test_the_coefficient_adapts_only_when_asked(make: Callable[..., Any]) -> None:
    agent, batch = make()
    agent.freeze_reference(0.1)
    agent.policy_step(batch, batch, RegularizedConfig(coefficient=0.1))
    assert agent.coefficient.item() == pytest.approx(0.1)
    # The policy has hardly moved, so the penalty may loosen.
    agent.policy_step(batch, batch, ADAPTIVE)
    assert agent.coefficient.item() < 0.1


def test_policy_step_leaves_critic_and_reference_alone(make: Callable[..., Any]) -> None:
    agent, batch = make()
    agent.freeze_reference(0.1)
    critic, reference = weights(agent.critic), weights(agent.reference)
    agent.policy_step(batch, batch, ADAPTIVE)
    torch.testing.assert_close(weights(agent.critic), critic, rtol=0, atol=0)
    torch.testing.assert_close(weights(agent.reference), reference, rtol=0, atol=0)
    assert agent.divergence(batch).isfinite()


def test_policy_rolls_back_with_its_moments(make: Callable[..., Any]) -> None:
    agent, batch = make()
    agent.imitation_step(batch)
    state, before = agent.policy_state(), weights(agent.policy)
    noise = agent.generator.get_state()
    agent.imitation_step(batch)
    after = weights(agent.policy)
    agent.load_policy_state(state)
    torch.testing.assert_close(weights(agent.policy), before, rtol=0, atol=0)
    agent.generator.set_state(noise)
    agent.imitation_step(batch)
    torch.testing.assert_close(weights(agent.policy), after, rtol=0, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"discount": 1.0},
        {"polyak": 0.0},
        {"critic_learning_rate": 0.0},
        {"target_candidates": 0},
        {"target_temperature": -0.1},
        {"device": "abacus"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        AgentConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"coefficient": -1.0},
        {"penalty": "nll", "target_kl": 0.3},
        {"target_kl": 0.0},
        {"target_kl": 0.3, "coefficient": 100.0},
        {"mpo_samples": 1},
        {"baseline_samples": 0},
        {"temperature": 0.0},
    ],
)
def test_impossible_improvements_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RegularizedConfig(**options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_updates_run_on_cuda(make: Callable[..., Any]) -> None:
    agent, batch = make(device="cuda")
    agent.freeze_reference(0.1)
    agent.imitation_step(batch)
    agent.critic_step(batch)
    agent.policy_step(batch, batch, ADAPTIVE)
    assert agent.skipped == 0
    assert weights(agent.policy).isfinite().all()


@pytest.mark.parametrize(("steps", "words"), [(3, "fewer than the chunk_size"), (0, "at least")])
def test_returns_that_the_critic_cannot_learn_from_are_refused(steps: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TrainConfig(
            chunk_size=4,
            agent=AgentConfig(return_steps=steps),
        )


@pytest.mark.parametrize("name", ["imitation.acting", "offline.acting", "online.acting", "online.collecting"])
def test_more_steps_than_a_chunk_has_are_refused_by_the_configuration(name: str) -> None:
    TrainConfig(chunk_size=3)
    with pytest.raises(ConfigError, match=rf"{name}\.n_action_steps is 4, more than the chunk_size of 3"):
        override(
            TrainConfig(chunk_size=3),
            [f'{name}={{"candidates": 1, "n_action_steps": 4}}'],
        )
