from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from serfn.core.errors import ConfigError
from serfn.core.spec import ObservationSpec, TaskSpec
from serfn.training.acting import ActingConfig, BestOfNActor
from serfn.training.build import make_agent
from serfn.training.config import TrainConfig


@pytest.fixture
def make_actor(toy_config: Callable[..., TrainConfig], toy_task: TaskSpec) -> Callable[..., BestOfNActor]:
    agent = make_agent(toy_config(), toy_task)
    return lambda *acting: BestOfNActor(agent.policy, agent.critic, toy_task, ActingConfig(*acting))


OBSERVATIONS = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)


def test_chunks_are_in_physical_units_inside_the_bounds(make_actor: Callable[..., BestOfNActor]) -> None:
    chunks = make_actor(4, 3.0).act(OBSERVATIONS)
    assert chunks.shape == (3, 4, 2) and chunks.dtype == np.float32
    assert np.abs(chunks).max() <= 0.5
    assert np.abs(chunks).max() > 0.3


@pytest.mark.parametrize("candidates", [1, 8])
def test_equal_seeds_give_equal_chunks(make_actor: Callable[..., BestOfNActor], candidates: int) -> None:
    actor = make_actor(candidates, 1.0)
    actor.reset(3)
    first = actor.act(OBSERVATIONS)
    following = actor.act(OBSERVATIONS)
    actor.reset(3)
    np.testing.assert_array_equal(actor.act(OBSERVATIONS), first)
    assert not np.array_equal(first, following)


def test_more_candidates_find_chunks_of_higher_value(
    make_actor: Callable[..., BestOfNActor], toy_task: TaskSpec
) -> None:
    def value(actor: BestOfNActor) -> float:
        actor.reset(0)
        obs = np.repeat(OBSERVATIONS, 100, axis=0)
        chunks = torch.from_numpy(toy_task.action.normalize(actor.act(obs)))
        assert actor.critic is not None
        return actor.critic.value(torch.from_numpy(obs), chunks).mean().item()

    assert value(make_actor(16, 1.0)) > value(make_actor(1, 1.0))


def test_candidates_without_a_critic_are_refused(
    make_actor: Callable[..., BestOfNActor], toy_task: TaskSpec
) -> None:
    policy = make_actor(1, 1.0).policy
    with pytest.raises(ConfigError, match="needs a critic"):
        BestOfNActor(policy, None, toy_task, ActingConfig(2))
    other = TaskSpec("other", ObservationSpec(5), toy_task.action, 10.0, 5)
    with pytest.raises(ConfigError, match="5 and 2"):
        BestOfNActor(policy, None, other, ActingConfig(1))


def test_more_steps_than_a_chunk_has_are_refused(make_actor: Callable[..., BestOfNActor]) -> None:
    assert make_actor(1, 1.0).n_action_steps == 4
    assert make_actor(1, 1.0, 3).n_action_steps == 3
    with pytest.raises(ConfigError, match="n_action_steps is 5, but chunks have 4"):
        make_actor(1, 1.0, 5)


@pytest.mark.parametrize(
    "options",
    [{"candidates": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"n_action_steps": 0}],
)
def test_impossible_acting_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ActingConfig(**options)  # pyright: ignore[reportArgumentType]
