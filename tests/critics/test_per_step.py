"""The per-step critic: first actions, n-step returns by hand, and what it cannot see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic
from serfn.critics.factory import make_critic
from serfn.critics.mlp import MLPCriticConfig
from serfn.critics.per_step import PerStepCritic, PerStepCriticConfig

OBS, ACTION, CHUNK = 3, 2, 4


def build(chunk: int = CHUNK, n_step: int | None = None) -> ChunkCritic:
    config = PerStepCriticConfig(width=16, depth=2, n_step=n_step)
    return make_critic(config, OBS, ACTION, chunk, generator=torch.Generator().manual_seed(0))


def test_a_chunk_is_worth_what_its_first_action_is() -> None:
    critic, generator = build(), torch.Generator().manual_seed(1)
    obs = torch.randn(5, OBS, generator=generator)
    actions = torch.rand(5, CHUNK, ACTION, generator=generator, requires_grad=True)
    value = critic.value(obs, actions)
    assert value.shape == (5,)
    later = actions.detach().clone()
    later[:, 1:] = -1.0
    torch.testing.assert_close(critic.value(obs, later), value)
    torch.testing.assert_close(critic.value(obs, actions, torch.arange(CHUNK).expand(5, -1) < 2), value)
    value.sum().backward()
    assert actions.grad is not None
    assert actions.grad[:, 0].abs().sum() > 0 and actions.grad[:, 1:].abs().sum() == 0


def test_with_chunks_of_one_step_it_is_the_chunk_critic() -> None:
    config = MLPCriticConfig(width=16, depth=2)
    chunk = make_critic(config, OBS, ACTION, 1, generator=torch.Generator().manual_seed(0))
    obs, actions = torch.ones(2, OBS), torch.full((2, 1, ACTION), 0.5)
    torch.testing.assert_close(build(chunk=1).value(obs, actions), chunk.value(obs, actions))


def test_observations_inside_a_window_are_needed_for_short_returns_only() -> None:
    assert build(n_step=None).target_steps == CHUNK and not build(n_step=None).needs_window_observations
    assert build(n_step=2).target_steps == 2 and build(n_step=2).needs_window_observations


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build(n_step=5), "n_step is 5; it must be between 1 and the chunk's 4"),
        (lambda: PerStepCriticConfig(n_step=0), "n_step is 0"),
    ],
)
def test_impossible_returns_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, ConfigError), match=message):
        make()


def test_its_input_is_one_action() -> None:
    critic = build()
    assert isinstance(critic, PerStepCritic)
    first = next(critic.hidden.parameters())
    assert first.shape == (2, OBS + ACTION + 1, 16)
