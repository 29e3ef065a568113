"""Losses against values computed by hand, with policies whose densities are known in closed form."""

from __future__ import annotations

import dataclasses
import math
from typing import cast

import pytest
import torch
from torch import Tensor

from serfn.critics.base import ChunkCritic
from serfn.critics.heads import ScalarHead
from serfn.critics.targets import Aggregation
from serfn.flows import FlowConfig
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.policies.flow import FlowPolicy, FlowPolicyConfig
from serfn.training import losses
from serfn.training.batch import TensorBatch
from serfn.training.improvements.regularized import (
    RegularizedConfig,
    advantage_weighted,
    mpo,
    q_gradient_kl,
    q_gradient_nll,
)

CHUNK, ACTION = 2, 2
DIMENSIONS = CHUNK * ACTION


class SumCritic(ChunkCritic):
    """Q is the sum of the chunk's actions; the second member says 1 more."""

    def __init__(self, aggregate: Aggregation = "mean") -> None:
        super().__init__(1, ACTION, CHUNK, ensemble=2, head=ScalarHead(), aggregate=aggregate)
        self.offset = torch.nn.Parameter(torch.tensor([0.0, 1.0]))

    def forward(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        if valid is not None:
            actions = actions * valid.unsqueeze(-1)
        return (actions.sum((1, 2)) + self.offset[:, None]).unsqueeze(-1)


def gaussian_policy(mean: float, std: float) -> FlowPolicy:
    """A flow whose couplings are the identity: by its whitening, u ~ N(mean, std²) in every dimension."""
    config = FlowPolicyConfig(
        flow=FlowConfig(couplings=2, width=4, minimum_std=1e-6),
        encoder=MLPEncoderConfig(width=4, depth=1),
        data_noise=0.0,
    )
    policy = FlowPolicy(config, 1, ACTION, CHUNK).double()
    u = torch.tensor([mean - std, mean + std], dtype=torch.float64).view(2, 1, 1).expand(2, CHUNK, ACTION)
    policy.flow.whitening.fit(u, torch.ones(2, CHUNK, dtype=torch.bool))
    return policy


def batch(actions: Tensor, valid: Tensor | None = None) -> TensorBatch:
    size = len(actions)
    return TensorBatch(
        obs=torch.zeros(size, 1, dtype=torch.float64),
        actions=actions.double(),
        rewards=torch.zeros(size, CHUNK, dtype=torch.float64),
        valid=torch.ones(size, CHUNK, dtype=torch.bool) if valid is None else valid,
        next_obs=torch.zeros(size, 1, dtype=torch.float64),
        terminated=torch.zeros(size, dtype=torch.bool),
        planned=torch.ones(size, CHUNK, dtype=torch.bool) if valid is None else valid,
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal_log_density(u: Tensor, mean: float, std: float) -> Tensor:
    return -0.5 * ((u - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)


def test_imitation_loss_is_the_negative_log_likelihood_per_valid_dimension() -> None:
    policy = gaussian_policy(0.2, 0.5)
    actions = torch.tensor([[[0.1, -0.3], [0.4, 0.0]], [[0.5, 0.2], [0.9, 0.9]]], dtype=torch.float64)
    valid = torch.tensor([[True, True], [True, False]])
    loss, metrics = losses.imitation_loss(policy, batch(actions, valid), generator=generator())
    u = actions.atanh()
    log_density = normal_log_density(u, 0.2, 0.5) - torch.log(1 - actions**2)
    expected = -(log_density * valid.unsqueeze(-1)).sum() / (3 * ACTION)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["policy/nll"], expected)


def test_divergence_of_gaussians_agrees_with_the_closed_form() -> None:
    policy, reference = gaussian_policy(0.3, 0.4), gaussian_policy(0.0, 0.6)
    obs = torch.zeros(200_000, 1, dtype=torch.float64)
    with torch.no_grad():
        actions, divergence = losses.sample_with_kl(policy, reference, obs, generator())
    expected = math.log(0.6 / 0.4) + (0.4**2 + 0.3**2) / (2 * 0.6**2) - 0.5
    error = divergence.std().item() / math.sqrt(len(obs))
    assert abs(divergence.mean().item() - expected) < 4 * error
    assert actions.shape == (200_000, CHUNK, ACTION)


def test_divergence_from_itself_is_zero_sample_by_sample() -> None:
    policy = gaussian_policy(0.3, 0.4)
    divergence = losses.sample_with_kl(policy, policy, torch.zeros(8, 1).double(), generator())[1]
    torch.testing.assert_close(divergence, torch.zeros(8, dtype=torch.float64))


def test_q_gradient_kl_is_minus_value_plus_scaled_divergence() -> None:
    policy, reference = gaussian_policy(0.3, 0.4), gaussian_policy(0.0, 0.6)
    data = batch(torch.zeros(16, CHUNK, ACTION))
    coefficient = torch.tensor(0.25)
    loss, metrics = q_gradient_kl(
        policy,
        reference,
        SumCritic(),
        data,
        policy.context(data.obs),
        coefficient=coefficient,
        generator=generator(),
    )
    u = 0.3 + 0.4 * torch.randn(16, CHUNK, ACTION, dtype=torch.float64, generator=generator())
    value = u.tanh().sum((1, 2)).mean() + 0.5
    kl = (normal_log_density(u, 0.3, 0.4) - normal_log_density(u, 0.0, 0.6)).sum((1, 2)).mean() / DIMENSIONS
    torch.testing.assert_close(loss, -value + 0.25 * kl)
    torch.testing.assert_close(metrics["policy/kl"], kl)
    torch.testing.assert_close(metrics["policy/q_mean"], value)


def test_q_gradient_kl_moves_the_policy_and_never_the_critic() -> None:
    policy, critic = gaussian_policy(0.0, 0.5), SumCritic()
    data = batch(torch.zeros(4, CHUNK, ACTION))
    loss, _ = q_gradient_kl(
        policy,
        gaussian_policy(0.0, 0.5),
        critic,
        data,
        policy.context(data.obs),
        coefficient=torch.tensor(0.1),
        generator=generator(),
    )
    loss.backward(inputs=list(policy.parameters()))
    assert critic.offset.grad is None
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())


def test_q_gradient_nll_adds_the_likelihood_of_demonstrations() -> None:
    policy, noise = gaussian_policy(0.0, 0.5), generator()
    data, demonstrations = batch(torch.zeros(4, CHUNK, ACTION)), batch(torch.full((3, CHUNK, ACTION), 0.4))
    loss, metrics = q_gradient_nll(
        policy,
        SumCritic(),
        data,
        policy.context(data.obs),
        demonstrations,
        coefficient=torch.tensor(0.5),
        generator=noise,
    )
    nll, _ = losses.imitation_loss(policy, demonstrations, generator=generator())
    torch.testing.assert_close(loss, -metrics["policy/q_mean"] + 0.5 * nll)


def test_advantage_weights_favour_better_chunks_at_the_wanted_sample_size() -> None:
    policy = gaussian_policy(0.0, 0.5)
    actions = torch.linspace(-0.8, 0.8, 16, dtype=torch.float64).view(16, 1, 1).expand(16, CHUNK, ACTION)
    data = batch(actions)
    loss, metrics = advantage_weighted(
        policy,
        SumCritic(),
        data,
        policy.context(data.obs),
        baseline_samples=2,
        temperature=0.5,
        generator=generator(),
    )
    obs = torch.zeros(16, 1).double()
    own = policy.sample_candidates(obs, 2, temperature=0.5, generator=generator())
    advantages = actions.sum((1, 2)) - own.sum((2, 3)).mean(1)
    weights = torch.softmax(advantages / metrics["policy/temperature"], 0)
    log_density = normal_log_density(actions.atanh(), 0.0, 0.25) - torch.log(1 - actions**2)
    log_prob = log_density.sum((1, 2))
    torch.testing.assert_close(loss, -(weights * log_prob).sum() / DIMENSIONS)
    torch.testing.assert_close(metrics["policy/advantage"], advantages.mean())
    assert metrics["policy/sample_size"].item() == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize(("temperature", "moves"), [(0.5, False), (1.0, True)])
def test_calm_chunks_of_no_advantage_move_the_policy_unless_the_likelihood_is_theirs(
    temperature: float, moves: bool
) -> None:
    policy, critic, drawn_at = gaussian_policy(0.0, 0.5), SumCritic(), 0.5
    obs = torch.zeros(20_000, 1, dtype=torch.float64)
    actions = policy.sample(obs, temperature=drawn_at, generator=generator()).detach()
    critic.values = lambda obs, actions, valid=None: actions.new_zeros(2, len(actions))
    loss, _ = advantage_weighted(
        policy,
        critic,
        batch(actions),
        policy.context(obs),
        baseline_samples=1,
        temperature=temperature,
        generator=generator(),
    )
    loss.backward(inputs=list(policy.parameters()))
    gradients = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    # d/d log s of -E log N(u; 0, (temperature s)²) is 1 - (drawn_at / temperature)² per dimension.
    assert (gradients.abs().max() > 0.1) == moves


def test_mpo_is_the_softmax_average_of_log_densities() -> None:
    policy, proposal = gaussian_policy(0.1, 0.5), gaussian_policy(0.0, 0.7)
    data = batch(torch.zeros(3, CHUNK, ACTION))
    context = policy.context(data.obs)
    loss, metrics = mpo(policy, proposal, SumCritic(), data, context, samples=8, generator=generator())
    actions = proposal.sample_candidates(data.obs, 8, generator=generator())
    weights = torch.softmax(actions.sum((2, 3)) / metrics["policy/temperature"], 1)
    log_prob = policy.log_prob_candidates(data.obs, actions) / DIMENSIONS
    torch.testing.assert_close(loss, -(weights * log_prob).sum(1).mean())


@pytest.mark.parametrize("operator", ["q_gradient", "advantage_weighted", "mpo"])
@pytest.mark.parametrize("penalty", ["kl", "nll"])
def test_every_operator_works_with_every_penalty(operator: str, penalty: str) -> None:
    config = RegularizedConfig(operator=operator, penalty=penalty)  # pyright: ignore[reportArgumentType]
    data = batch(torch.rand(8, CHUNK, ACTION, generator=generator()) - 0.5)
    policy = gaussian_policy(0.0, 0.5)
    loss, metrics = config.loss(
        policy,
        gaussian_policy(0.1, 0.5),
        SumCritic(),
        data,
        data,
        coefficient=torch.tensor(0.1),
        generator=generator(),
    )
    loss.backward(inputs=list(policy.parameters()))
    assert loss.ndim == 0 and torch.isfinite(loss)
    assert ("policy/kl" if penalty == "kl" else "policy/nll") in metrics
    assert not any(value.requires_grad for value in metrics.values())


def targets_of(data: TensorBatch, bounds: tuple[float, float]) -> Tensor:
    """With temperature 0 the Gaussian policy acts tanh(mean) everywhere, so that Q̄ = 4·tanh(0.1) + 1/2."""
    return losses.critic_targets(
        gaussian_policy(0.1, 0.5),
        SumCritic(),
        data,
        discount=0.5,
        candidates=1,
        temperature=0.0,
        bounds=bounds,
        generator=generator(),
    )


def test_targets_are_discounted_bootstrapped_and_clipped() -> None:
    value = 4 * math.tanh(0.1) + 0.5
    rewards = torch.tensor([[0.1, 0.2], [0.1, 0.0], [0.1, 0.2], [3.0, 3.0]], dtype=torch.float64)
    valid = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    terminated = torch.tensor([False, False, True, False])
    data = batch(torch.zeros(4, CHUNK, ACTION), valid)
    data = TensorBatch(data.obs, data.actions, rewards, valid, data.next_obs, terminated, valid)
    targets = targets_of(data, bounds=(-1.0, 2.0))
    expected = [0.1 + 0.1 + 0.25 * value, 0.1 + 0.5 * value, 0.2, 2.0]
    torch.testing.assert_close(targets, torch.tensor(expected, dtype=torch.float64))


def test_rewards_after_the_chunk_join_the_target_before_it_bootstraps() -> None:
    # Chunks of two steps, returns over four: all four, an end after three, and one inside the chunk.
    value = 4 * math.tanh(0.1) + 0.5
    valid = torch.tensor([[True, True], [True, True], [True, False]])
    data = dataclasses.replace(
        batch(torch.zeros(3, CHUNK, ACTION), valid),
        rewards=torch.tensor([[0.1, 0.2], [0.1, 0.2], [0.1, 0.0]], dtype=torch.float64),
        terminated=torch.tensor([False, True, True]),
        later_rewards=torch.tensor([[0.4, 0.8], [0.4, 0.0], [0.0, 0.0]], dtype=torch.float64),
        later_valid=torch.tensor([[True, True], [True, False], [False, False]]),
    )
    targets = targets_of(data, bounds=(-2.0, 2.0))
    expected = [0.1 + 0.1 + 0.1 + 0.1 + value / 16, 0.1 + 0.1 + 0.1, 0.1]
    torch.testing.assert_close(targets, torch.tensor(expected, dtype=torch.float64))


def test_joined_batches_keep_what_both_carry() -> None:
    plain = batch(torch.zeros(2, CHUNK, ACTION))
    later = dataclasses.replace(
        plain,
        later_rewards=torch.ones(2, 3, dtype=torch.float64),
        later_valid=torch.ones(2, 3, dtype=torch.bool),
    )
    assert plain.joined(later).later_rewards is None
    rewards, counted = later.joined(later).counted_rewards
    assert rewards.shape == counted.shape == (4, CHUNK + 3)


def test_best_of_takes_the_candidate_that_the_critic_prefers() -> None:
    policy = gaussian_policy(0.0, 0.5)
    obs = torch.zeros(5, 1, dtype=torch.float64)
    candidates = policy.sample_candidates(obs, 6, generator=generator())
    actions, values = losses.best_of(policy, SumCritic("min"), obs, 6, 1.0, generator())
    sums = candidates.sum((2, 3))
    torch.testing.assert_close(values, sums.amax(1))
    torch.testing.assert_close(actions.sum((1, 2)), sums.amax(1))


def test_critic_loss_is_the_mean_squared_error_over_members() -> None:
    actions = torch.tensor([[[0.1, 0.1], [0.1, 0.1]], [[0.2, 0.0], [0.5, 0.5]]])
    valid = torch.tensor([[True, True], [True, False]])
    targets = torch.tensor([0.0, 0.2], dtype=torch.float64)
    loss, metrics = losses.critic_loss(SumCritic().double(), batch(actions, valid), targets)
    assert loss.item() == pytest.approx((0.4**2 + 0.0**2 + 1.4**2 + 1.0**2) / 4)
    assert metrics["critic/td_loss"].item() == pytest.approx(loss.item())
    assert metrics["critic/q_max"].item() == pytest.approx(1.4)


def test_joined_batches_keep_every_field() -> None:
    first, second = batch(torch.zeros(2, CHUNK, ACTION)), batch(torch.ones(3, CHUNK, ACTION))
    joined = first.joined(second)
    assert joined.size == 5
    assert cast(Tensor, joined.actions)[2:].eq(1).all()
