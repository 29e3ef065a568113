"""The updates of the literature against their papers' equations, worked out by hand on small numbers."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from serfn.core.config import from_dict
from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic
from serfn.critics.factory import make_critic
from serfn.critics.heads import ScalarHead
from serfn.critics.per_step import PerStepCriticConfig
from serfn.critics.targets import Aggregation
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
from serfn.training import losses
from serfn.training.batch import TensorBatch
from serfn.training.coefficient import adapt_temperature
from serfn.training.improvements.base import ImprovementConfig
from serfn.training.improvements.bc import BcConfig
from serfn.training.improvements.fql import FqlConfig, fql_loss
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.improvements.sac import SacConfig, sac_loss
from serfn.training.improvements.td3_bc import Td3BcConfig, td3_bc_loss

CHUNK, ACTION = 2, 2
DIMENSIONS = CHUNK * ACTION


class SumCritic(ChunkCritic):
    """Q is the sum of the chunk's actions; the second member says 1 more."""

    def __init__(self, aggregate: Aggregation = "mean") -> None:
        super().__init__(1, ACTION, CHUNK, ensemble=2, head=ScalarHead(), aggregate=aggregate)
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
    loss, metrics = sac_loss(
        normal(0.2, 0.5), SumCritic("min"), batch(), coefficient=torch.tensor(0.3), generator=generator()
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
    adapted = SacConfig(coefficient=0.2).adapted(start, {"policy/entropy": torch.tensor(0.0)})
    assert adapted.item() == pytest.approx(0.2 * math.exp(-0.5 * 0.02))
    assert SacConfig(target_entropy=None).adapted(start, {}) is start


def test_td3_bc_is_the_normalised_value_and_the_squared_distance() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = DeterministicPolicy(DeterministicConfig(width=4), 1, ACTION, CHUNK).double()
    data = batch(3, torch.tensor([[True, True], [True, False], [True, True]]))
    loss, metrics = td3_bc_loss(policy, SumCritic(), data, coefficient=torch.tensor(0.4))
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
    loss, _ = fql_loss(policy, SumCritic(), data, coefficient=torch.tensor(3.0), generator=noise)
    again = generator()
    imitation, _ = policy.teacher.imitation_loss(data.obs, data.actions, data.valid, generator=again)
    actions, distance = policy.sample_with_distance(data.obs, generator=again)
    values = actions.sum((1, 2)) + 0.5
    torch.testing.assert_close(loss, imitation - values.mean() / values.abs().mean() + 3.0 * distance.mean())
    # Neither the critic nor the distance reaches the teacher (arXiv 2502.02538, eq. 8).
    gradients = torch.autograd.grad(loss, list(policy.teacher.parameters()), retain_graph=True)
    alone = torch.autograd.grad(imitation, list(policy.teacher.parameters()))
    for gradient, expected in zip(gradients, alone, strict=True):
        torch.testing.assert_close(gradient, expected)


def test_bc_is_imitation_of_the_batch_not_of_the_demonstrations() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = FlowMatchingPolicy(FlowMatchingConfig(width=8), 1, ACTION, CHUNK).double()
    data = batch()
    loss, metrics = step(BcConfig(), policy, data)
    expected, _ = policy.imitation_loss(data.obs, data.actions, data.valid, generator=generator())
    torch.testing.assert_close(loss, expected)
    assert "policy/imitation_loss" in metrics and "policy/nll" not in metrics


def test_n_step_targets_bootstrap_inside_the_window() -> None:
    config = PerStepCriticConfig(width=8, depth=1, n_step=2)
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
        bounds=(-9.0, 9.0),
        generator=generator(),
    )
    # Windows of 3 steps (terminated after the second of two counted ones), 1 step and 2 steps, with n = 2.
    after = torch.stack([window[0, 1], window[1, 0], window[2, 1]])
    value = critic.value(after, policy.sample(after, temperature=0.0, generator=generator()))
    expected = torch.stack([0.1 + 0.1 + 0.25 * value[0], 0.1 + 0.5 * value[1], torch.tensor(0.2).double()])
    torch.testing.assert_close(targets, expected)


def test_short_returns_without_the_windows_observations_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be cut to 1 steps"):
        batch().first_steps(1)


def step(
    config: ImprovementConfig, policy: ChunkPolicy, data: TensorBatch
) -> tuple[Tensor, dict[str, Tensor]]:
    other = batch(4)
    return config.loss(
        policy,
        policy,
        SumCritic(),
        data,
        other,
        coefficient=torch.tensor(0.1),
        generator=generator(),
    )


@pytest.mark.parametrize("operator", ["q_gradient", "advantage_weighted", "mpo"])
@pytest.mark.parametrize("penalty", ["kl", "nll"])
def test_our_operators_train_every_policy_with_a_density(operator: str, penalty: str) -> None:
    config = RegularizedConfig(operator=operator, penalty=penalty)  # pyright: ignore[reportArgumentType]
    mixture = GaussianMixturePolicy(GaussianMixtureConfig(width=4), 1, ACTION, CHUNK).double()
    for policy in (normal(0.0, 0.5), mixture):
        loss, _ = step(config, policy, batch())
        loss.backward(inputs=list(policy.parameters()))
        assert loss.isfinite()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RegularizedConfig(), "type 'regularized' cannot train a FlowMatchingPolicy, only a SquashedPolicy"),
        (SacConfig(), "type 'sac' cannot train"),
        (Td3BcConfig(), "only a DeterministicPolicy"),
        (FqlConfig(), "only a DistilledFlowPolicy"),
    ],
)
def test_a_loss_for_another_policy_is_refused(config: ImprovementConfig, message: str) -> None:
    policy = FlowMatchingPolicy(FlowMatchingConfig(width=8), 1, ACTION, CHUNK).double()
    with pytest.raises(ConfigError, match=message):
        config.check_policy(policy)
    with pytest.raises(ConfigError, match=message):
        step(config, policy, batch())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SacConfig(coefficient=-1.0), "coefficient is -1"),
        (lambda: SacConfig(coefficient=1e-6), "starts between 0.0001 and 10"),
        (lambda: Td3BcConfig(coefficient=-1.0), "coefficient is -1"),
        (lambda: FqlConfig(coefficient=-1.0), "coefficient is -1"),
    ],
)
def test_bad_configurations_name_the_value(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("operator", ["q_gradient", "advantage_weighted", "mpo"])
def test_every_operator_raises_the_value_of_what_the_policy_does(operator: str) -> None:
    config = RegularizedConfig(operator=operator, coefficient=0.05)  # pyright: ignore[reportArgumentType]
    policy, reference, critic, noise = normal(0.0, 0.5), normal(0.0, 0.5), SumCritic(), generator(3)
    data, optimizer = batch(64), torch.optim.Adam(policy.parameters(), lr=0.01)

    def value() -> float:
        return critic.value(data.obs, policy.sample(data.obs, generator=generator(1))).mean().item()

    before = value()
    for _ in range(20):
        loss, _ = config.loss(
            policy, reference, critic, data, data, coefficient=torch.tensor(0.05), generator=noise
        )
        optimizer.zero_grad()
        loss.backward(inputs=list(policy.parameters()))
        optimizer.step()
    assert value() > before + 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "anchored"}, "'improvement.type=anchored' is now 'improvement.type=regularized'"),
        ({"type": "cloning"}, "'improvement.type=cloning' is now 'improvement.type=bc'"),
        ({"strength": 0.1}, "'improvement.strength' is now 'improvement.coefficient'"),
        ({"type": "td3_bc", "strength": 0.1}, "'improvement.strength' is now 'improvement.coefficient'"),
        ({"anchor": "kl"}, "'improvement.anchor' is now 'improvement.penalty'"),
        ({"operator": "own_samples"}, "'improvement.operator=own_samples' is now 'improvement.operator=mpo'"),
        ({"target_divergence": 0.1}, "'improvement.target_divergence' is now 'improvement.target_kl'"),
        ({"sample_fraction": 0.1}, "'improvement.sample_fraction' is gone: it is a constant"),
    ],
)
def test_former_names_are_refused_with_the_present_one(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_dict(ImprovementConfig, options, "improvement")
