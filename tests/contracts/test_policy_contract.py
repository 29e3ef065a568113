"""What every policy keeps, whichever kind it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from serfn.flows import FlowConfig
from serfn.policies import (
    ChunkPolicy,
    DeterministicConfig,
    DiffusionConfig,
    DistilledFlowConfig,
    FlowEnsemblePolicy,
    FlowMatchingConfig,
    FlowPolicyConfig,
    GaussianConfig,
    GaussianMixtureConfig,
    LikelihoodPolicy,
    PolicyConfig,
    make_policy,
)
from serfn.policies.diffusion import cosine_signal, ddim_levels
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.policies.normalizer import ObservationNormalizer

pytestmark = pytest.mark.slow

OBS, ACTION, CHUNK = 3, 2, 4
CONFIGS = [
    pytest.param(
        FlowPolicyConfig(FlowConfig(couplings=2, width=16), encoder=MLPEncoderConfig(width=16)), id="flow"
    ),
    pytest.param(
        FlowPolicyConfig(
            FlowConfig(couplings=2, width=16), base_components=3, encoder=MLPEncoderConfig(width=16)
        ),
        id="flow-mixture-base",
    ),
    pytest.param(
        FlowPolicyConfig(
            FlowConfig(couplings=2, width=16), members=3, encoder=MLPEncoderConfig(width=16), linear_mean=True
        ),
        id="flow-ensemble",
    ),
    pytest.param(FlowMatchingConfig(steps=4, width=16), id="flow-matching"),
    pytest.param(DiffusionConfig(steps=5, width=32), id="diffusion"),
    pytest.param(DistilledFlowConfig(steps=4, width=16), id="distilled-flow"),
    pytest.param(GaussianConfig(width=16), id="gaussian"),
    pytest.param(GaussianMixtureConfig(components=3, width=16), id="gaussian-mixture"),
    pytest.param(DeterministicConfig(width=16), id="deterministic"),
    *(
        pytest.param(config, id=f"{config.type}-linear-mean")
        for config in (
            FlowPolicyConfig(
                FlowConfig(couplings=2, width=16), encoder=MLPEncoderConfig(width=16), linear_mean=True
            ),
            FlowMatchingConfig(steps=4, width=16, linear_mean=True),
            DiffusionConfig(steps=5, width=32, linear_mean=True),
            DistilledFlowConfig(steps=4, width=16, linear_mean=True),
            GaussianConfig(width=16, linear_mean=True),
            GaussianMixtureConfig(components=3, width=16, linear_mean=True),
            DeterministicConfig(width=16, linear_mean=True),
        )
    ),
]
OWN = PolicyConfig.registry.find("mylab.policy:LaplaceConfig")
CONFIGS += [pytest.param(OWN(), id="mylab"), pytest.param(OWN(linear_mean=True), id="mylab-linear-mean")]
ALL_POLICIES = pytest.mark.parametrize("config", CONFIGS)
WITH_DENSITY = pytest.mark.parametrize(
    "config",
    [
        case
        for case in CONFIGS
        if isinstance(case.values[0], FlowPolicyConfig | GaussianConfig | GaussianMixtureConfig | OWN)
    ],
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_data(count: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    source = generator(5)
    obs = 3 + 2 * torch.randn(count, OBS, generator=source)
    actions = (0.4 * torch.randn(count, CHUNK, ACTION, generator=source)).clamp(-1, 1)
    valid = torch.arange(CHUNK) < torch.randint(1, CHUNK + 1, (count, 1), generator=source)
    return obs, actions, valid


def fitted(config: PolicyConfig) -> ChunkPolicy:
    policy = make_policy(config, OBS, ACTION, CHUNK)
    policy.fit_statistics(*make_data())
    return policy


def test_the_suite_runs_over_every_registered_policy() -> None:
    ours = {name for name in PolicyConfig.registry.names() if name != "mylab"}
    assert ours <= {case.values[0].type for case in CONFIGS}  # pyright: ignore[reportAttributeAccessIssue]


@ALL_POLICIES
def test_samples_have_shape_and_bounds(config: PolicyConfig) -> None:
    policy = fitted(config)
    obs, _, _ = make_data(6)
    actions = policy.sample(obs, generator=generator())
    assert actions.shape == (6, CHUNK, ACTION) and actions.abs().max() <= 1
    candidates = policy.sample_candidates(obs, 3, generator=generator())
    assert candidates.shape == (6, 3, CHUNK, ACTION)
    repeated = obs.repeat_interleave(3, 0)
    calm = policy.sample_candidates(obs, 3, temperature=0.0, generator=generator())
    still = policy.sample(repeated, temperature=0.0, generator=generator())
    torch.testing.assert_close(calm.flatten(0, 1), still)
    # Members of an ensemble share out what is drawn together; whose chunk answers what: test_flow_ensemble.
    if not isinstance(policy, FlowEnsemblePolicy):
        flat = policy.sample(repeated, generator=generator())
        torch.testing.assert_close(candidates.flatten(0, 1), flat)


@ALL_POLICIES
def test_noise_comes_from_the_generator_alone(config: PolicyConfig) -> None:
    policy = fitted(config)
    obs, actions, valid = make_data(6)
    state = torch.random.get_rng_state()
    first, again, other = (policy.sample(obs, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    losses = [policy.imitation_loss(obs, actions, valid, generator=generator(seed))[0] for seed in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    # A regression needs no noise.
    assert torch.equal(losses[0], losses[2]) == isinstance(config, DeterministicConfig)
    still = [policy.sample(obs, temperature=0.0, generator=generator(seed)) for seed in (1, 2)]
    assert torch.equal(still[0], still[1])
    assert torch.equal(torch.random.get_rng_state(), state)


@ALL_POLICIES
def test_construction_depends_on_its_seed_alone(config: PolicyConfig) -> None:
    state = torch.random.get_rng_state()
    one, same, other = (make_policy(config, OBS, ACTION, CHUNK, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = list(zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@ALL_POLICIES
def test_imitation_ignores_padding(config: PolicyConfig) -> None:
    policy = fitted(config)
    obs, actions, valid = make_data()
    plain, metrics = policy.imitation_loss(obs, actions, valid, generator=generator())
    assert plain.ndim == 0 and all(not value.requires_grad for value in metrics.values())
    padded = torch.where(valid.unsqueeze(-1), actions, math.nan)
    assert torch.equal(policy.imitation_loss(obs, padded, valid, generator=generator())[0], plain)


@WITH_DENSITY
def test_a_density_at_a_temperature_is_that_of_its_chunks(config: PolicyConfig) -> None:
    policy = fitted(config)
    assert isinstance(policy, LikelihoodPolicy)
    obs, actions, valid = make_data(4)
    torch.testing.assert_close(
        policy.log_prob(obs, actions, valid), policy.log_prob(obs, actions, valid, temperature=1.0)
    )
    # The mean of p / q over chunks from q is 1 for densities p and q alone.
    obs = obs[:1].expand(20_000, OBS)
    with torch.no_grad():
        calm = policy.sample(obs, temperature=0.6, generator=generator())
        ratios = (
            policy.log_prob(obs, calm, temperature=0.5) - policy.log_prob(obs, calm, temperature=0.6)
        ).exp()
    assert ratios.mean().item() == pytest.approx(1.0, abs=5 * ratios.std().item() / math.sqrt(len(obs)))
    assert ratios.std() > 0.1
    for wrong in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="temperature"):
            policy.log_prob(obs, calm, temperature=wrong)


@ALL_POLICIES
def test_imitation_gradients_are_finite(config: PolicyConfig) -> None:
    policy = fitted(config)
    obs, actions, valid = make_data()
    loss, _ = policy.imitation_loss(obs, actions.sign(), valid, generator=generator())
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters())


@ALL_POLICIES
def test_samples_are_differentiable(config: PolicyConfig) -> None:
    policy = fitted(config)
    obs, _, _ = make_data(6)
    policy.sample(obs, generator=generator()).sum().backward()
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


@ALL_POLICIES
def test_policies_learn_a_constant_chunk(config: PolicyConfig) -> None:
    target = torch.tensor([[0.5, -0.5], [0.3, -0.3], [0.1, -0.1], [-0.1, 0.1]])
    obs, _, _ = make_data(256)
    actions = (target + 0.05 * torch.randn(256, CHUNK, ACTION, generator=generator())).clamp(-1, 1)
    valid = torch.ones(256, CHUNK, dtype=torch.bool)
    policy = make_policy(config, OBS, ACTION, CHUNK)
    policy.fit_statistics(obs, actions, valid)
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    source = generator()
    for _ in range(400):
        loss, _ = policy.imitation_loss(obs, actions, valid, generator=source)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    samples = policy.sample(obs, generator=source)
    torch.testing.assert_close(samples.mean(0), target, atol=0.1, rtol=0)
    assert samples.std(0).max() < 0.25


def test_some_policies_have_a_density() -> None:
    kinds = {str(item.id): isinstance(fitted(item.values[0]), LikelihoodPolicy) for item in CONFIGS}  # pyright: ignore[reportArgumentType]
    assert [name for name, has_density in kinds.items() if has_density] == [
        "flow",
        "flow-mixture-base",
        "flow-ensemble",
        "gaussian",
        "gaussian-mixture",
        "flow-linear-mean",
        "gaussian-linear-mean",
        "gaussian_mixture-linear-mean",
        "mylab",
        "mylab-linear-mean",
    ]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FlowMatchingConfig(steps=0), "steps is 0"),
        (lambda: DiffusionConfig(steps=101), "at most 100"),
        (lambda: DiffusionConfig(width=0), "width is 0"),
        (lambda: DistilledFlowConfig(steps=0), "steps is 0"),
        (lambda: GaussianConfig(width=0), "width is 0"),
        (lambda: GaussianConfig(data_noise=1.0), "data_noise is 1.0"),
        (lambda: GaussianConfig(minimum_std=0.0), "minimum_std is 0.0"),
        (lambda: FlowMatchingConfig(minimum_std=-1.0), "minimum_std is -1.0"),
        (lambda: GaussianMixtureConfig(components=0), "components is 0"),
        (lambda: FlowPolicyConfig(base_components=0), "base_components is 0"),
        (lambda: DeterministicConfig(width=0), "width is 0"),
        (lambda: make_policy(FlowPolicyConfig(), 0, 1, 1), "obs_dim is 0"),
    ],
)
def test_bad_configurations_name_the_value(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message):
        build()


def test_cosine_signal_falls_from_one_to_zero() -> None:
    signal = cosine_signal(100)
    assert (signal.diff() < 0).all()
    assert signal[0] > 0.99 and 0 < signal[-1] < 1e-3


def test_ddim_visits_even_levels_down_to_zero() -> None:
    assert ddim_levels(5, 100).tolist() == [80, 60, 40, 20, 0]
    assert ddim_levels(3, 3).tolist() == [2, 1, 0]


def test_normalizer_centres_scales_and_clips() -> None:
    normalizer = ObservationNormalizer(2)
    normalizer.fit(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    torch.testing.assert_close(normalizer(torch.tensor([3.0, 7.0])), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(normalizer(torch.tensor([1e9, -1e9])), torch.tensor([5.0, -5.0]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.zeros(0, 2), "at least one row"),
        (torch.zeros(3, 1), "at least one row of 2"),
        (torch.full((3, 2), math.nan), "NaN"),
    ],
)
def test_normalizer_refuses_bad_observations(rows: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObservationNormalizer(2).fit(rows)
