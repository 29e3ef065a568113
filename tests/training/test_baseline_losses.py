"""The updates of the literature against their papers' equations, worked out by hand on small numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic
from serfn.critics.config import CriticConfig, make_critic
from serfn.critics.heads import ScalarHead
from serfn.policies import (
    ChunkPolicy,
    DeterministicConfig,
    DeterministicPolicy,
    DistilledFlowConfig,
    DistilledFlowPolicy,
    FlowMatchingConfig,
    FlowMatchingPolicy,
    GaussianConfig,
    GaussianMixtureConfig,
    GaussianMixturePolicy,
    GaussianPolicy,
)
from serfn.training import baseline_losses, losses
from serfn.training.batch import TensorBatch
from serfn.training.improvement import (
    CloningConfig,
    FqlConfig,
    Improvement,
    ImprovementConfig,
    SacConfig,
    Td3BcConfig,
    check_policy,
    improvement_loss,
)
from serfn.training.strength import adapt_temperature

CHUNK, ACTION = 2, 2
DIMENSIONS = CHUNK * ACTION


class SumCritic(ChunkCritic):
    """Q is the sum of the chunk's actions; the second member says 1 more."""

    def __init__(self) -> None:
        super().__init__(1, ACTION, CHUNK, ensemble=2, head=ScalarHead())
        self.offset = torch.nn.Parameter(torch.tensor([0.0, 1.0]))

    def forward(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        return (actions.sum((1, 2)) + self.offset[:, None]).unsqueeze(-1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(size: int = 6, valid: Tensor | None = None) -> TensorBatch:
    source = generator(7)
    return TensorBatch(
        obs=torch.randn(size, 1, generator=source, dtype=torch.float64),
        actions=torch.rand(size, CHUNK, ACTION, generator=source, dtype=torch.float64) - 0.5,
        rewards=torch.zeros(size, CHUNK, dtype=torch.float64),
        valid=torch.ones(size, CHUNK, dtype=torch.bool) if valid is None else valid,
        next_obs=torch.zeros(size, 1, dtype=torch.float64),
        terminated=torch.zeros(size, dtype=torch.bool),
        planned=torch.ones(size, CHUNK, dtype=torch.bool) if valid is None else valid,
    )


def normal(mean: float, std: float) -> GaussianPolicy:
    """A policy with u ~ N(mean, std²) in every dimension, whatever it observes."""
    policy = GaussianPolicy(GaussianConfig(width=4), 1, ACTION, CHUNK).double()
    u = torch.tensor([mean - std, mean + std], dtype=torch.float64).view(2, 1, 1).expand(2, CHUNK, ACTION)
    policy.whitening.minimum_std = 1e-6
    policy.whitening.fit(u)
    return policy


def test_sac_is_weighted_log_density_minus_value() -> None:
    loss, metrics = baseline_losses.sac_loss(
        normal(0.2, 0.5), SumCritic(), batch(), strength=torch.tensor(0.3), how="min", generator=generator()
    )
    u = 0.2 + 0.5 * torch.randn(6, CHUNK, ACTION, generator=generator(), dtype=torch.float64)
    log_normal = -0.5 * ((u - 0.2) / 0.5) ** 2 - math.log(0.5) - 0.5 * math.log(2 * math.pi)
    log_prob = (log_normal - torch.log(1 - u.tanh() ** 2)).sum((1, 2))
    # arXiv 1812.05905, eq. 7: J = E[α log π - Q], here with α = λ / D.
    expected = (0.3 / DIMENSIONS * log_prob - u.tanh().sum((1, 2))).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["policy/entropy"], -log_prob.mean() / DIMENSIONS)


def test_the_temperature_falls_when_the_entropy_exceeds_its_target() -> None:
    limits = {"target": -0.5, "rate": 0.1, "low": 0.01, "high": 1.0}
    start = torch.tensor(0.2)
    # Descent on J(λ) = λ (H - H̄) in log λ: H = 0 lies 0.5 above the target.
    assert adapt_temperature(start, torch.tensor(0.0), **limits).item() == pytest.approx(
        0.2 * math.exp(-0.05)
    )
    assert adapt_temperature(start, torch.tensor(-9.0), **limits).item() == pytest.approx(0.2 * math.exp(0.1))
    assert adapt_temperature(start, torch.tensor(math.nan), **limits).item() == pytest.approx(0.2)
    adapted = SacConfig(strength=0.2, strength_rate=0.1).adapted(start, {"policy/entropy": torch.tensor(0.0)})
    assert adapted.item() == pytest.approx(0.2 * math.exp(-0.05))
    assert SacConfig(target_entropy=None).adapted(start, {}) is start


def test_td3_bc_is_the_normalised_value_and_the_squared_distance() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = DeterministicPolicy(DeterministicConfig(width=4), 1, ACTION, CHUNK).double()
    data = batch(3, torch.tensor([[True, True], [True, False], [True, True]]))
    loss, metrics = baseline_losses.td3_bc_loss(
        policy, SumCritic(), data, strength=torch.tensor(0.4), how="mean"
    )
    actions = policy.sample(data.obs, temperature=0.0, generator=generator())
    values = actions.sum((1, 2)) + 0.5
    squares = ((actions - data.actions) ** 2).sum(2)
    distance = (squares[0].sum() + squares[1, 0] + squares[2].sum()) / (5 * ACTION)
    # arXiv 2106.06860, eqs. 3 and 5, divided by α = 1 / 0.4: λ_Q = α / mean|Q|.
    torch.testing.assert_close(loss, -values.mean() / values.abs().mean() + 0.4 * distance)
    torch.testing.assert_close(metrics["policy/action_mse"], distance)


def test_fql_trains_the_teacher_by_flow_matching_and_the_student_by_value_and_distance() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = DistilledFlowPolicy(DistilledFlowConfig(steps=2, width=8), 1, ACTION, CHUNK).double()
    data, noise = batch(), generator()
    loss, _ = baseline_losses.fql_loss(
        policy, SumCritic(), data, strength=torch.tensor(3.0), how="mean", generator=noise
    )
    again = generator()
    cloning, _ = policy.teacher.imitation_loss(data.obs, data.actions, data.valid, generator=again)
    actions, distance = policy.sample_with_distance(data.obs, generator=again)
    values = actions.sum((1, 2)) + 0.5
    torch.testing.assert_close(loss, cloning - values.mean() / values.abs().mean() + 3.0 * distance.mean())
    # Neither the critic nor the distance reaches the teacher (arXiv 2502.02538, eq. 8).
    gradients = torch.autograd.grad(loss, list(policy.teacher.parameters()), retain_graph=True)
    alone = torch.autograd.grad(cloning, list(policy.teacher.parameters()))
    for gradient, expected in zip(gradients, alone, strict=True):
        torch.testing.assert_close(gradient, expected)


def test_cloning_is_imitation_of_the_batch_not_of_the_demonstrations() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = FlowMatchingPolicy(FlowMatchingConfig(width=8), 1, ACTION, CHUNK).double()
    data = batch()
    loss, metrics = step(CloningConfig(), policy, data)
    expected, _ = policy.imitation_loss(data.obs, data.actions, data.valid, generator=generator())
    torch.testing.assert_close(loss, expected)
    assert "policy/imitation_loss" in metrics and "policy/nll" not in metrics


def test_n_step_targets_bootstrap_inside_the_window() -> None:
    config = CriticConfig(kind="per_step", width=8, depth=1, n_step=2)
    critic = make_critic(config, 1, ACTION, 3, generator=generator()).double()
    policy = GaussianPolicy(GaussianConfig(width=4), 1, ACTION, 3).double()
    window = torch.arange(9.0, dtype=torch.float64).view(3, 3, 1)
    data = TensorBatch(
        obs=torch.zeros(3, 1, dtype=torch.float64),
        actions=torch.zeros(3, 3, ACTION, dtype=torch.float64),
        rewards=torch.tensor([[0.1, 0.2, 0.4], [0.1, 0.0, 0.0], [0.1, 0.2, 0.4]], dtype=torch.float64),
        valid=torch.tensor([[True, True, True], [True, False, False], [True, True, False]]),
        next_obs=window[:, -1],
        terminated=torch.tensor([True, False, True]),
        planned=torch.tensor([[True, True, True], [True, False, False], [True, True, False]]),
        window_obs=window,
    )
    targets = losses.critic_targets(
        policy,
        critic,
        data,
        discount=0.5,
        candidates=1,
        temperature=0.0,
        how="mean",
        bounds=(-9.0, 9.0),
        generator=generator(),
    )
    # Windows of 3 steps (terminated after the second of two counted ones), 1 step and 2 steps, with n = 2.
    after = torch.stack([window[0, 1], window[1, 0], window[2, 1]])
    value = critic.value(after, policy.sample(after, temperature=0.0, generator=generator())).mean(0)
    expected = torch.stack([0.1 + 0.1 + 0.25 * value[0], 0.1 + 0.5 * value[1], torch.tensor(0.2).double()])
    torch.testing.assert_close(targets, expected)


def test_short_returns_without_the_windows_observations_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be cut to 1 steps"):
        batch().first_steps(1)


def step(config: Improvement, policy: ChunkPolicy, data: TensorBatch) -> tuple[Tensor, dict[str, Tensor]]:
    other = batch(4)
    return improvement_loss(
        config,
        policy,
        policy,
        SumCritic(),
        data,
        other,
        strength=torch.tensor(0.1),
        how="mean",
        generator=generator(),
    )


@pytest.mark.parametrize("operator", ["q_gradient", "advantage_weighted", "own_samples"])
@pytest.mark.parametrize("anchor", ["kl", "nll"])
def test_our_operators_train_every_policy_with_a_density(operator: str, anchor: str) -> None:
    config = ImprovementConfig(operator=operator, anchor=anchor)  # pyright: ignore[reportArgumentType]
    mixture = GaussianMixturePolicy(GaussianMixtureConfig(width=4), 1, ACTION, CHUNK).double()
    for policy in (normal(0.0, 0.5), mixture):
        loss, _ = step(config, policy, batch())
        loss.backward(inputs=list(policy.parameters()))
        assert loss.isfinite()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ImprovementConfig(), "type 'anchored' cannot train a FlowMatchingPolicy, only a SquashedPolicy"),
        (SacConfig(), "type 'sac' cannot train"),
        (Td3BcConfig(), "only a DeterministicPolicy"),
        (FqlConfig(), "only a DistilledFlowPolicy"),
    ],
)
def test_a_loss_for_another_policy_is_refused(config: Improvement, message: str) -> None:
    policy = FlowMatchingPolicy(FlowMatchingConfig(width=8), 1, ACTION, CHUNK).double()
    with pytest.raises(ConfigError, match=message):
        check_policy(config, policy)
    with pytest.raises(ConfigError, match=message):
        step(config, policy, batch())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SacConfig(strength=-1.0), "strength is -1"),
        (lambda: SacConfig(strength=1e-6), "outside"),
        (lambda: SacConfig(strength_rate=1.0), "strength_rate is 1"),
        (lambda: Td3BcConfig(strength=-1.0), "strength is -1"),
        (lambda: FqlConfig(strength=-1.0), "strength is -1"),
    ],
)
def test_bad_configurations_name_the_value(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=message):
        make()
