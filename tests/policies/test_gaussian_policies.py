"""The Gaussian and the mixture: densities in closed form, prefixes, modes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from serfn.policies import GaussianConfig, GaussianMixtureConfig, GaussianMixturePolicy, GaussianPolicy
from serfn.policies.distilled import DistilledFlowConfig, DistilledFlowPolicy
from serfn.policies.squashed import SquashedPolicy

OBS, ACTION, CHUNK = 3, 2, 4
PolicyT = TypeVar("PolicyT", bound=SquashedPolicy)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(chunk: int = CHUNK) -> GaussianPolicy:
    policy = GaussianPolicy(GaussianConfig(width=8), OBS, ACTION, chunk).double()
    return _perturbed(policy)


def mixture() -> GaussianMixturePolicy:
    config = GaussianMixtureConfig(components=3, width=8)
    policy = GaussianMixturePolicy(config, OBS, ACTION, CHUNK).double()
    return _perturbed(policy)


def _perturbed(policy: PolicyT) -> PolicyT:
    # Gentle enough that no sample comes near the bounds, where densities are evaluated at a clipped action.
    source = generator(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    actions = 0.8 * torch.rand(50, policy.chunk_size, ACTION, generator=source, dtype=torch.float64) - 0.3
    valid = torch.ones(50, policy.chunk_size, dtype=torch.bool)
    policy.fit_statistics(torch.randn(50, OBS, generator=source, dtype=torch.float64), actions, valid)
    return policy


def observations(count: int = 5) -> Tensor:
    return torch.randn(count, OBS, generator=generator(1), dtype=torch.float64)


def test_gaussian_density_is_that_of_a_squashed_normal() -> None:
    policy, obs = gaussian(), observations()
    actions = policy.sample(obs, generator=generator())
    mean, log_std = policy.predict(obs)
    location = policy.whitening.mean + policy.whitening.std * mean
    u = actions.atanh()
    expected = Normal(location, policy.whitening.std * log_std.exp()).log_prob(u) - (1 - actions**2).log()
    torch.testing.assert_close(policy.log_prob(obs, actions), expected.sum((1, 2)))


@pytest.mark.parametrize("make", [gaussian, mixture])
def test_samples_carry_their_own_density(make: Callable[[], GaussianPolicy | GaussianMixturePolicy]) -> None:
    policy, obs = make(), observations(40)
    actions, log_prob = policy.rsample_and_log_prob(obs, generator=generator())
    torch.testing.assert_close(policy.log_prob(obs, actions), log_prob)
    candidates = torch.stack([actions, -actions], 1)
    torch.testing.assert_close(policy.log_prob_candidates(obs, candidates)[:, 0], log_prob)


def test_mixture_density_is_the_weighted_sum_of_its_components() -> None:
    policy, obs = mixture(), observations()
    actions = policy.sample(obs, generator=generator())
    distribution = policy.predict(obs)
    location = policy.whitening.mean + policy.whitening.std * distribution.mean
    normal = Normal(location, policy.whitening.std * distribution.log_std.exp())
    for steps in range(1, CHUNK + 1):
        u = actions.atanh().unsqueeze(1)
        components = normal.log_prob(u)[:, :, :steps].sum((2, 3))
        expected = (distribution.log_weights + components).logsumexp(1) - (1 - actions**2).log()[
            :, :steps
        ].sum((1, 2))
        valid = (torch.arange(CHUNK) < steps).expand(len(obs), CHUNK)
        torch.testing.assert_close(policy.log_prob(obs, actions, valid), expected)


@pytest.mark.parametrize("make", [gaussian, mixture])
def test_density_integrates_to_one(make: Callable[[], GaussianPolicy | GaussianMixturePolicy]) -> None:
    policy, obs = make(), observations(1)
    # Importance sampling from a wide normal over u: the mean ratio is the integral.
    count, width = 200_000, 3.0
    proposal = Normal(policy.whitening.mean, width * policy.whitening.std)
    noise = torch.randn(count, CHUNK, ACTION, generator=generator(), dtype=torch.float64)
    u = policy.whitening.mean + width * policy.whitening.std * noise
    ratio = (policy.log_prob_pre_tanh(obs.expand(count, -1), u) - proposal.log_prob(u).sum((1, 2))).exp()
    assert abs(ratio.mean().item() - 1) < 5 * ratio.std().item() / math.sqrt(count)


def test_a_gaussian_of_one_step_is_a_policy_per_step() -> None:
    policy, obs = gaussian(chunk=1), observations()
    assert policy.sample(obs, generator=generator()).shape == (5, 1, ACTION)
    assert policy.log_prob(obs, policy.sample(obs, generator=generator())).isfinite().all()


def _two_modes(count: int = 512) -> tuple[Tensor, Tensor, Tensor]:
    side = torch.where(torch.rand(count, 1, 1, generator=generator(4)) < 0.5, -0.6, 0.6)
    noise = 0.05 * torch.randn(count, CHUNK, ACTION, generator=generator(5))
    return torch.zeros(count, OBS), side + noise, torch.ones(count, CHUNK, dtype=torch.bool)


def _fit(policy: SquashedPolicy) -> Tensor:
    data = _two_modes()
    policy.fit_statistics(*data)
    optimizer, source = torch.optim.Adam(policy.parameters(), 1e-2), generator()
    for _ in range(300):
        loss, _ = policy.imitation_loss(*data, generator=source)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy.sample(data[0], generator=source).detach().mean((1, 2))


def test_a_mixture_keeps_both_modes_where_a_gaussian_averages() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mixed = _fit(GaussianMixturePolicy(GaussianMixtureConfig(width=16), OBS, ACTION, CHUNK))
        single = _fit(GaussianPolicy(GaussianConfig(width=16), OBS, ACTION, CHUNK))
    assert ((mixed.abs() - 0.6).abs() < 0.15).float().mean() > 0.95
    assert 0.3 < (mixed > 0).float().mean() < 0.7
    assert (single.abs() < 0.45).float().mean() > 0.8


def test_distance_of_the_student_is_from_the_teacher_on_the_same_noise() -> None:
    policy = DistilledFlowPolicy(DistilledFlowConfig(steps=3, width=8), OBS, ACTION, CHUNK).double()
    obs = observations()
    actions, distance = policy.sample_with_distance(obs, generator=generator())
    noise = torch.randn(5, CHUNK, ACTION, generator=generator(), dtype=torch.float64)
    taught = policy.teacher.generate(noise, obs)
    own = policy.student(noise, torch.zeros(1).double(), policy.student.condition(policy.encoder(obs)))
    torch.testing.assert_close(distance, (own - taught).square().mean((1, 2)))
    torch.testing.assert_close(actions, policy.sample(obs, generator=generator()))
    distance.sum().backward()
    assert all(parameter.grad is None for parameter in policy.teacher.parameters())
    assert all(parameter.grad is not None for parameter in policy.student.parameters())
