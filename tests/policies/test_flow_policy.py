"""The flow policy: densities of squashed chunks, prefixes, bounds, temperature, learning."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from serfn.core.config import from_dict
from serfn.flows import FlowConfig
from serfn.policies import FlowPolicy, FlowPolicyConfig, make_policy
from serfn.policies.base import PolicyConfig
from serfn.policies.chunk_distribution import MixtureDistribution
from serfn.policies.encoders.mlp import MLPEncoderConfig

pytestmark = pytest.mark.slow

OBS, ACTION, CHUNK = 5, 2, 4


BASES = pytest.mark.parametrize("components", [1, 3])


def make_flow_policy(action_dim: int = ACTION, chunk_size: int = CHUNK, components: int = 1) -> FlowPolicy:
    """A small policy away from its identity initialisation."""
    flow = FlowConfig(couplings=4, width=16)
    config = FlowPolicyConfig(flow, base_components=components, encoder=MLPEncoderConfig(width=16))
    policy = make_policy(config, OBS, action_dim, chunk_size)
    assert isinstance(policy, FlowPolicy)
    source = generator(3)
    with torch.no_grad():
        for parameter in (*policy.flow.parameters(), *policy.base.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source))
    policy.flow.whitening.std.fill_(0.5)
    return policy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_obs(batch: int, seed: int = 1) -> Tensor:
    return torch.randn(batch, OBS, generator=generator(seed))


@BASES
@pytest.mark.parametrize("action_dim", [1, 2])
def test_own_log_prob_agrees_with_the_density_of_the_sample(action_dim: int, components: int) -> None:
    policy = make_flow_policy(action_dim, components=components).double()
    obs = draw_obs(64).double()
    actions, log_prob = policy.rsample_and_log_prob(obs, generator=generator())
    assert actions.abs().max() < 1
    torch.testing.assert_close(policy.log_prob(obs, actions), log_prob, atol=1e-7, rtol=1e-7)


def base_log_prob(policy: FlowPolicy, context: Tensor, z: Tensor) -> Tensor:
    """Log-density of z [chunk, action] under the base, written out with torch.distributions."""
    if policy.config.base_components == 1:
        return Normal(0.0, 1.0).log_prob(z).sum()
    distribution = policy.base(context)
    assert isinstance(distribution, MixtureDistribution)
    components = Independent(Normal(distribution.mean[0], distribution.log_std[0].exp()), 2)
    return MixtureSameFamily(Categorical(logits=distribution.log_weights[0]), components).log_prob(z)


@BASES
def test_log_prob_is_the_change_of_variables_through_tanh(components: int) -> None:
    policy = make_flow_policy(components=components).double()
    obs = draw_obs(1).double()
    context = policy.encoder(policy.normalizer(obs))

    def image(flat: Tensor) -> Tensor:
        conditions = policy.flow.condition(context)
        return policy.flow(flat.view(1, CHUNK, ACTION), conditions)[0].tanh().flatten()

    z = 0.5 * torch.randn(CHUNK * ACTION, generator=generator(), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(image, z)
    base = base_log_prob(policy, context, z.view(CHUNK, ACTION))
    expected = base - torch.linalg.slogdet(jacobian).logabsdet
    actual = policy.log_prob(obs, image(z).view(1, CHUNK, ACTION))
    torch.testing.assert_close(actual[0], expected)


@BASES
def test_density_over_actions_integrates_to_one(components: int) -> None:
    policy = make_flow_policy(action_dim=1, chunk_size=1, components=components).double()
    grid = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    obs = draw_obs(1).double().expand(len(grid), OBS)
    density = policy.log_prob(obs, grid.view(-1, 1, 1)).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-3)


def test_pre_tanh_log_prob_ratio_is_the_ratio_over_actions() -> None:
    policy, reference = make_flow_policy(components=3).double(), make_flow_policy(components=1).double()
    obs = draw_obs(32).double()
    u, log_prob = policy.rsample_pre_tanh(obs, generator=generator())
    ratio = log_prob - reference.log_prob_pre_tanh(obs, u)
    over_actions = policy.log_prob(obs, u.tanh()) - reference.log_prob(obs, u.tanh())
    torch.testing.assert_close(ratio, over_actions, atol=1e-6, rtol=1e-6)


def test_pre_tanh_divergence_to_itself_is_zero_even_when_saturated() -> None:
    policy = make_flow_policy()
    policy.flow.whitening.mean.fill_(12.0)
    obs = draw_obs(32)
    u, log_prob = policy.rsample_pre_tanh(obs, generator=generator())
    assert (u.tanh() == 1).all()
    torch.testing.assert_close(policy.log_prob_pre_tanh(obs, u), log_prob, atol=1e-2, rtol=1e-3)


@BASES
@pytest.mark.parametrize("action_dim", [1, 2])
def test_padding_has_no_influence(action_dim: int, components: int) -> None:
    policy = make_flow_policy(action_dim, components=components)
    obs = draw_obs(6)
    actions = policy.sample(obs, generator=generator())
    valid = torch.arange(CHUNK) < torch.tensor([1, 2, 3, 4, 1, 2]).unsqueeze(-1)
    expected = policy.log_prob(obs, actions, valid)
    for padding in (1.0, -0.3, 1e6, float("nan")):
        padded = torch.where(valid.unsqueeze(-1), actions, padding)
        assert torch.equal(policy.log_prob(obs, padded, valid), expected)
        loss, _ = policy.imitation_loss(obs, padded, valid, generator=generator())
        clean_loss, _ = policy.imitation_loss(obs, actions, valid, generator=generator())
        assert torch.equal(loss, clean_loss)
    torch.testing.assert_close(expected[3], policy.log_prob(obs, actions)[3])


@BASES
def test_prefix_log_prob_is_the_marginal(components: int) -> None:
    """The density of a prefix is that of the chunk with its tail integrated out."""
    policy = make_flow_policy(action_dim=1, chunk_size=2, components=components).double()
    obs = draw_obs(1).double()
    second = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    chunks = torch.stack([torch.full_like(second, 0.3), second], dim=-1).unsqueeze(-1)
    joint = policy.log_prob(obs.expand(len(second), OBS), chunks).exp()
    prefix = policy.log_prob(obs, chunks[:1], torch.tensor([[True, False]])).exp()
    assert torch.trapezoid(joint, second).item() == pytest.approx(prefix.item(), rel=1e-3)


@BASES
@pytest.mark.parametrize("action_dim", [1, 2])
def test_log_prob_and_gradients_are_finite_at_bounds_and_far_off(action_dim: int, components: int) -> None:
    policy = make_flow_policy(action_dim, components=components)
    source = generator()
    corners = torch.randint(0, 2, (32, CHUNK, action_dim), generator=source) * 2.0 - 1.0
    foreign = 2 * torch.rand(32, CHUNK, action_dim, generator=source) - 1
    policy.flow.whitening.std.fill_(0.05)
    for actions in (corners, foreign, torch.zeros_like(corners)):
        policy.zero_grad()
        actions = actions.requires_grad_()
        log_prob = policy.log_prob(1e6 * draw_obs(32), actions)
        log_prob.sum().backward()
        assert log_prob.isfinite().all()
        assert actions.grad is not None and actions.grad.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters())


@BASES
def test_candidates_match_one_by_one(components: int) -> None:
    policy = make_flow_policy(components=components)
    obs = draw_obs(3)
    candidates = policy.sample_candidates(obs, 5, generator=generator())
    flat = policy.sample(obs.repeat_interleave(5, 0), generator=generator())
    torch.testing.assert_close(candidates.flatten(0, 1), flat)
    valid = torch.arange(CHUNK).expand(3, 5, CHUNK) < 3
    log_prob = policy.log_prob_candidates(obs, candidates, valid)
    expected = policy.log_prob(obs.repeat_interleave(5, 0), flat, valid.flatten(0, 1))
    torch.testing.assert_close(log_prob.flatten(), expected)


@BASES
def test_temperature_scales_the_noise_not_the_density(components: int) -> None:
    policy = make_flow_policy(components=components)
    obs = draw_obs(8)
    still = policy.sample(obs, temperature=0.0, generator=generator(1))
    assert torch.equal(still, policy.sample(obs, temperature=0.0, generator=generator(2)))
    context = policy.encoder(policy.normalizer(obs))
    distribution = policy.base(context)
    if isinstance(distribution, MixtureDistribution):
        centre = distribution.mean[torch.arange(8), distribution.log_weights.argmax(-1)]
    else:
        centre = torch.zeros(8, CHUNK, ACTION)
    torch.testing.assert_close(still, policy.flow(centre, policy.flow.condition(context))[0].tanh())
    cool, log_prob = policy.rsample_and_log_prob(obs, temperature=0.5, generator=generator())
    torch.testing.assert_close(policy.log_prob(obs, cool), log_prob, atol=1e-3, rtol=1e-4)
    assert log_prob.mean() > policy.rsample_and_log_prob(obs, generator=generator())[1].mean()
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature"):
            policy.sample(obs, temperature=wrong, generator=generator())


@BASES
def test_samples_carry_gradients_to_all_parameters(components: int) -> None:
    policy = make_flow_policy(components=components)
    actions, log_prob = policy.rsample_and_log_prob(draw_obs(8), generator=generator())
    (actions.sum() + log_prob.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())


def test_wrong_shapes_are_refused() -> None:
    policy = make_flow_policy()
    with pytest.raises(ValueError, match="its last axis must be 5"):
        policy.sample(torch.zeros(2, OBS + 1), generator=generator())
    with pytest.raises(ValueError, match=r"must be \[4, 2\]"):
        policy.log_prob(torch.zeros(2, OBS), torch.zeros(2, CHUNK, ACTION + 1))


@pytest.mark.parametrize(
    "options",
    [
        {"base_components": 0},
        {"data_noise": -0.1},
    ],
)
def test_config_names_the_value(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        FlowPolicyConfig(**options)


@pytest.mark.parametrize("options", [{"width": 0}, {"depth": 0}])
def test_the_encoder_names_the_value(options: dict) -> None:
    with pytest.raises(ValueError, match=f"encoder_{next(iter(options))} is 0"):
        MLPEncoderConfig(**options)


@pytest.mark.parametrize("name", ["width", "depth"])
def test_former_names_of_the_encoder_are_refused_with_the_present_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"'policy.encoder_{name}' is now 'policy.encoder.{name}'"):
        from_dict(PolicyConfig, {"type": "flow", f"encoder_{name}": 8}, path="policy")


def test_prepared_data_keep_to_the_limit() -> None:
    policy = make_flow_policy()
    actions = torch.ones(100, CHUNK, ACTION)
    prepared = policy.prepare_data(actions, generator=generator())
    assert prepared.max() == pytest.approx(0.98) and prepared.min() < 0.98


def test_flow_learns_both_modes_of_a_bimodal_chunk_distribution() -> None:
    """Chunks pass an obstacle left or right, wide or tight as the observation says."""
    source = generator()
    obs = torch.randn(2000, OBS, generator=source)
    side = torch.randint(0, 2, (2000, 1), generator=source) * 2.0 - 1.0
    bow = torch.sin(torch.linspace(0.5, math.pi - 0.5, CHUNK)) * (0.5 + 0.2 * torch.tanh(obs[:, :1]))
    actions = torch.stack([side * bow, bow], dim=-1)
    valid = torch.ones(2000, CHUNK, dtype=torch.bool)
    config = FlowPolicyConfig(
        FlowConfig(couplings=4, width=64), base_components=2, encoder=MLPEncoderConfig(width=32)
    )
    policy = make_policy(config, OBS, ACTION, CHUNK)
    policy.fit_statistics(obs, actions, valid)
    optimizer = torch.optim.Adam(policy.parameters(), 2e-3)
    for _ in range(400):
        rows = torch.randint(0, 2000, (128,), generator=source)
        loss, _ = policy.imitation_loss(obs[rows], actions[rows], valid[rows], generator=source)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        samples = policy.sample_candidates(torch.zeros(1, OBS), 1000, generator=source)[0]
    lateral = samples[..., 0].mean(-1)
    assert 0.4 < (lateral > 0).float().mean() < 0.6
    assert (lateral.abs() > 0.3).float().mean() > 0.85
    expected = 0.5 * torch.sin(torch.linspace(0.5, math.pi - 0.5, CHUNK))
    torch.testing.assert_close(samples[..., 1].mean(0), expected, atol=0.08, rtol=0)


def test_a_mixture_base_leaves_the_way_between_two_modes_empty() -> None:
    """One Gaussian under a continuous map puts chunks between the modes, above all at a low temperature."""
    source = generator()
    side = torch.randint(0, 2, (512, 1, 1), generator=source) * 2.0 - 1.0
    actions = 0.6 * side + 0.03 * torch.randn(512, CHUNK, ACTION, generator=source)
    obs, valid = torch.zeros(512, OBS), torch.ones(512, CHUNK, dtype=torch.bool)
    between = {}
    for components in (1, 4):
        config = FlowPolicyConfig(
            FlowConfig(couplings=2, width=16), components, encoder=MLPEncoderConfig(width=8)
        )
        policy = make_policy(config, OBS, ACTION, CHUNK)
        policy.fit_statistics(obs, actions, valid)
        optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
        for _ in range(300):
            loss, _ = policy.imitation_loss(obs, actions, valid, generator=source)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        samples = policy.sample(obs, temperature=0.5, generator=source).mean((1, 2))
        assert 0.25 < (samples > 0).float().mean() < 0.75
        between[components] = (samples.abs() < 0.4).float().mean().item()
    assert between[4] == 0.0 < between[1]


def test_at_low_temperature_components_are_drawn_from_sharpened_weights() -> None:
    distribution = MixtureDistribution(
        torch.tensor([0.2, 0.8]).log(), torch.tensor([-1.0, 1.0]).view(2, 1, 1), torch.full((2, 1, 1), -9.0)
    )
    for temperature, share in ((1.0, 0.8), (0.5, 0.64 / 0.68), (0.0, 1.0)):
        drawn = distribution.draw((20_000,), temperature, generator())
        assert (drawn > 0).float().mean().item() == pytest.approx(share, abs=0.015)
        assert (drawn.abs() - 1).abs().max() < 1e-3
