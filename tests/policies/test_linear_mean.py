"""The regression at the head of a policy: what it fits, and that densities stay exact with it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from serfn.flows import FlowConfig
from serfn.flows.linear_mean import LinearMean
from serfn.flows.transforms import atanh_clipped
from serfn.policies import (
    DeterministicConfig,
    DiffusionConfig,
    DistilledFlowConfig,
    FlowMatchingConfig,
    FlowPolicy,
    FlowPolicyConfig,
    GaussianConfig,
    GaussianMixtureConfig,
    PolicyConfig,
    make_policy,
)
from serfn.policies.encoders.mlp import MLPEncoderConfig

OBS, ACTION, CHUNK = 5, 2, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_data(count: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Observations, actions that are linear in them, and windows; every second lacks its last step."""
    obs = torch.randn(count, OBS, generator=generator(1))
    slopes = 0.05 * torch.randn(OBS, CHUNK * ACTION, generator=generator(2))
    actions = (0.2 + obs @ slopes).unflatten(-1, (CHUNK, ACTION))
    valid = torch.ones(count, CHUNK, dtype=torch.bool)
    valid[::2, -1] = False
    return obs, actions, valid


def linear_policy() -> FlowPolicy:
    config = FlowPolicyConfig(
        FlowConfig(couplings=2, width=16), encoder=MLPEncoderConfig(width=16), linear_mean=True
    )
    policy = make_policy(config, OBS, ACTION, CHUNK)
    assert isinstance(policy, FlowPolicy)
    with torch.no_grad():
        for parameter in policy.flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(3)))
    return policy


def test_a_linear_map_is_found_from_the_valid_steps_alone() -> None:
    obs, actions, valid = linear_data()
    spoilt = torch.where(valid.unsqueeze(-1), actions, torch.full_like(actions, 0.9))
    mean = LinearMean(OBS, CHUNK, ACTION, limit=0.98)
    mean.fit(obs, spoilt, valid)
    torch.testing.assert_close(mean(obs).tanh(), actions, atol=2e-3, rtol=0.0)
    assert mean(100 * obs).abs().max() <= atanh_clipped(torch.ones(()), 0.98)
    torch.testing.assert_close(mean.actions(100 * obs), mean(100 * obs).tanh())


def test_a_step_that_no_window_reaches_is_predicted_as_zero() -> None:
    obs, actions, valid = linear_data()
    valid[:, -1] = False
    mean = LinearMean(OBS, CHUNK, ACTION, limit=0.98)
    mean.fit(obs, actions, valid)
    assert (mean(obs)[:, -1] == 0).all() and mean(obs)[:, 0].abs().min() > 0


def test_the_whitening_sees_what_the_regression_leaves() -> None:
    obs, actions, valid = linear_data()
    policy = linear_policy()
    policy.fit_statistics(obs, actions, valid)
    assert policy.flow.whitening.std.max() <= policy.flow.whitening.minimum_std
    plain = make_policy(
        FlowPolicyConfig(FlowConfig(couplings=2, width=16), encoder=MLPEncoderConfig(width=16)),
        OBS,
        ACTION,
        CHUNK,
    )
    plain.fit_statistics(obs, actions, valid)
    assert isinstance(plain, FlowPolicy) and plain.flow.whitening.std.min() > 0.05


@pytest.mark.parametrize(
    "config",
    [
        GaussianConfig(width=8, linear_mean=True),
        GaussianMixtureConfig(width=8, linear_mean=True),
        FlowMatchingConfig(steps=4, width=8, linear_mean=True),
        DiffusionConfig(steps=4, width=8, linear_mean=True),
        DistilledFlowConfig(steps=4, width=8, linear_mean=True),
        DeterministicConfig(width=8, linear_mean=True),
    ],
    ids=lambda config: config.type,
)
def test_every_policy_begins_from_the_regression(config: PolicyConfig) -> None:
    obs, actions, valid = linear_data()
    policy = make_policy(config, OBS, ACTION, CHUNK)
    policy.fit_statistics(obs, actions, valid)
    plain = make_policy(dataclasses.replace(config, linear_mean=False), OBS, ACTION, CHUNK)
    plain.fit_statistics(obs, actions, valid)
    for parameter in [*policy.parameters(), *plain.parameters()]:
        torch.nn.init.zeros_(parameter)
    drawn = policy.sample(obs, temperature=0.0, generator=generator())
    torch.testing.assert_close(drawn, actions, atol=2e-3, rtol=0.0)
    assert (plain.sample(obs, temperature=0.0, generator=generator()) - actions).abs().max() > 0.1


def test_densities_stay_exact_for_samples_prefixes_and_candidates() -> None:
    policy = linear_policy()
    policy.fit_statistics(*linear_data())
    policy = policy.double()
    obs = torch.randn(6, OBS, generator=generator(4)).double()
    actions, log_prob = policy.rsample_and_log_prob(obs, generator=generator())
    torch.testing.assert_close(policy.log_prob(obs, actions), log_prob, atol=1e-7, rtol=1e-7)
    many = policy.sample_candidates(obs, 3, generator=generator())
    each = torch.stack([policy.log_prob(obs, many[:, index]) for index in range(3)], dim=1)
    torch.testing.assert_close(policy.log_prob_candidates(obs, many), each)
