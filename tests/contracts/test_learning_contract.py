"""What every critic and every improvement keeps, whichever kind it is."""

from __future__ import annotations

import pytest
import torch

from serfn.critics.base import ChunkCritic, CriticConfig
from serfn.critics.factory import make_critic
from serfn.policies import DeterministicConfig, DistilledFlowConfig, GaussianConfig, make_policy
from serfn.training.batch import TensorBatch
from serfn.training.improvements.base import ImprovementConfig

OBS, ACTION, CHUNK, SIZE = 3, 2, 4, 5
CRITICS = [*CriticConfig.registry.names(), "mylab.learning:LinearCriticConfig"]
IMPROVEMENTS = [*ImprovementConfig.registry.names(), "mylab.learning:WeightedConfig"]
POLICIES = (GaussianConfig(width=8), DeterministicConfig(width=8), DistilledFlowConfig(steps=2, width=8))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(name: str) -> ChunkCritic:
    return make_critic(CriticConfig.registry.find(name)(), OBS, ACTION, CHUNK, generator=generator())


def batch() -> TensorBatch:
    source = generator(1)
    valid = torch.arange(CHUNK) < torch.tensor([[4], [4], [2], [1], [3]])
    return TensorBatch(
        obs=torch.randn(SIZE, OBS, generator=source),
        actions=torch.rand(SIZE, CHUNK, ACTION, generator=source) - 0.5,
        rewards=torch.zeros(SIZE, CHUNK),
        valid=valid,
        next_obs=torch.randn(SIZE, OBS, generator=source),
        terminated=torch.zeros(SIZE, dtype=torch.bool),
        planned=valid,
        window_obs=torch.randn(SIZE, CHUNK, OBS, generator=source),
    )


@pytest.mark.parametrize("name", CRITICS)
def test_a_critic_values_chunks_and_ignores_what_does_not_count(name: str) -> None:
    critic, data = make(name), batch()
    outputs = critic(data.obs, data.actions, data.valid)
    assert outputs.shape == (critic.ensemble, SIZE, critic.head.size)
    other = torch.where(data.valid.unsqueeze(-1), data.actions, torch.full_like(data.actions, 0.9))
    torch.testing.assert_close(critic.values(data.obs, other, data.valid), critic.head.mean(outputs))
    assert not torch.allclose(critic.value(data.obs, data.actions), critic.value(data.obs, -data.actions))


@pytest.mark.parametrize("name", CRITICS)
def test_a_critic_is_the_same_for_the_same_generator(name: str) -> None:
    data = batch()
    torch.testing.assert_close(
        make(name).value(data.obs, data.actions), make(name).value(data.obs, data.actions), rtol=0, atol=0
    )


@pytest.mark.parametrize("name", IMPROVEMENTS)
def test_an_improvement_moves_the_policy_by_a_finite_gradient_that_repeats(name: str) -> None:
    improvement = ImprovementConfig.registry.find(name)()
    policies = [make_policy(config, OBS, ACTION, CHUNK, seed=0) for config in POLICIES]
    policy = next(policy for policy in policies if isinstance(policy, improvement.policy_type))
    reference, critic, data = policy.frozen(), make("mlp").requires_grad_(False), batch()
    reference.requires_grad_(False)
    weight = torch.tensor(improvement.initial_coefficient)

    def loss() -> torch.Tensor:
        return improvement.loss(
            policy, reference, critic, data, data, coefficient=weight, generator=generator(2)
        )[0]

    loss().backward()
    gradients = [parameter.grad for parameter in policy.parameters() if parameter.grad is not None]
    assert gradients and all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(bool(gradient.any()) for gradient in gradients)
    torch.testing.assert_close(loss(), loss(), rtol=0, atol=0)
