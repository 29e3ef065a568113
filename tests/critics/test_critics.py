"""What every chunk critic promises, whatever its architecture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from serfn.core.config import from_dict
from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic, CriticConfig
from serfn.critics.factory import make_critic
from serfn.critics.mlp import MLPCriticConfig
from serfn.critics.per_step import PerStepCriticConfig

OBS, ACTION, CHUNK, BATCH = 5, 2, 4, 7
CONFIGS = {
    "mlp": MLPCriticConfig(width=16, depth=2, ensemble=3),
    "mlp-hl_gauss": MLPCriticConfig(head="hl_gauss", v_min=-1.0, v_max=1.0, bins=21, width=16, ensemble=3),
    "mlp-residuals": MLPCriticConfig(width=16, depth=2, ensemble=3, residual_gain=0.5),
}


@pytest.fixture(params=CONFIGS)
def critic(request: pytest.FixtureRequest) -> ChunkCritic:
    return build(CONFIGS[request.param])


def build(config: MLPCriticConfig, seed: int = 0) -> ChunkCritic:
    return make_critic(config, OBS, ACTION, CHUNK, generator=torch.Generator().manual_seed(seed))


def inputs(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(BATCH, OBS, generator=generator)
    return obs, torch.rand(BATCH, CHUNK, ACTION, generator=generator) * 2 - 1


def prefix_mask() -> Tensor:
    return torch.arange(CHUNK) < torch.tensor([1, 2, 3, 4, 1, 2, 3])[:, None]


def test_shapes_and_finite_values(critic: ChunkCritic) -> None:
    obs, actions = inputs()
    assert critic(obs, actions).shape == (3, BATCH, critic.head.size)
    assert critic.values(obs, actions, prefix_mask()).shape == (3, BATCH)
    assert critic.values(obs * 1e6, actions).isfinite().all()


def test_the_padding_does_not_matter_but_the_executed_actions_do(critic: ChunkCritic) -> None:
    obs, actions = inputs()
    valid = prefix_mask()
    value = critic.values(obs, actions, valid)
    other_padding = torch.where(valid[..., None], actions, -actions + 0.1)
    torch.testing.assert_close(critic.values(obs, other_padding, valid), value)
    for step in range(CHUNK):
        changed = actions.clone()
        changed[:, step] += 0.3
        difference = (critic.values(obs, changed, valid) - value).abs().amax(0)
        assert torch.equal(difference > 1e-7, valid[:, step])


def test_no_mask_means_the_whole_chunk(critic: ChunkCritic) -> None:
    obs, actions = inputs()
    everything = torch.ones(BATCH, CHUNK, dtype=torch.bool)
    torch.testing.assert_close(critic(obs, actions), critic(obs, actions, everything))


def test_a_partial_chunk_differs_from_a_full_one_that_holds_its_last_action(critic: ChunkCritic) -> None:
    obs, actions = inputs()
    actions[:, 2:] = actions[:, 1:2]
    partial = (torch.arange(CHUNK) < 2).expand(BATCH, CHUNK)
    assert not torch.allclose(critic.values(obs, actions), critic.values(obs, actions, partial))


def test_one_members_loss_leaves_the_others_without_gradient(critic: ChunkCritic) -> None:
    obs, actions = inputs()
    critic.head.loss(critic(obs, actions), torch.zeros(BATCH))[1].sum().backward()
    for name, parameter in critic.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad[1].abs().sum() > 0, name
        assert not parameter.grad[[0, 2]].any(), name


def test_an_ensemble_equals_its_members_run_alone(
    critic: ChunkCritic, request: pytest.FixtureRequest
) -> None:
    config = CONFIGS[request.node.callspec.params["critic"]]
    obs, actions = inputs()
    values = critic.values(obs, actions, prefix_mask())
    assert not torch.allclose(values[0], values[1])
    for member in range(3):
        fields: dict[str, Any] = {**vars(config), "ensemble": 1}
        single = build(MLPCriticConfig(**fields))
        single.load_state_dict(
            {
                name: tensor if name in dict(critic.named_buffers()) else tensor[member : member + 1]
                for name, tensor in critic.state_dict().items()
            }
        )
        torch.testing.assert_close(single.values(obs, actions, prefix_mask())[0], values[member])


def test_weights_come_from_the_generator_alone() -> None:
    for config in CONFIGS.values():
        before = torch.random.get_rng_state()
        first, same, other = build(config, 1), build(config, 1), build(config, 2)
        assert torch.equal(torch.random.get_rng_state(), before)
        obs, actions = inputs()
        assert torch.equal(first(obs, actions), same(obs, actions))
        assert not torch.equal(first(obs, actions), other(obs, actions))


def test_normalisation_belongs_to_the_critic_and_its_checkpoint(critic: ChunkCritic) -> None:
    obs, actions = inputs()
    before = critic.values(obs, actions)
    mean, std = torch.arange(OBS, dtype=torch.float32), torch.full((OBS,), 2.0)
    critic.set_normalization(mean, std)
    torch.testing.assert_close(critic.values(obs * std + mean, actions), before)
    assert torch.equal(critic.state_dict()["obs_std"], std)
    with pytest.raises(ValueError, match="least std is 0"):
        critic.set_normalization(mean, torch.zeros(OBS))
    with pytest.raises(ValueError, match=r"must be \(5,\)"):
        critic.set_normalization(mean[:2], std)


def test_double_precision_agrees(critic: ChunkCritic) -> None:
    obs, actions = inputs()
    single = critic.values(obs, actions, prefix_mask())
    double = critic.double().values(obs.double(), actions.double(), prefix_mask())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("how", "reduced"), [("mean", torch.mean), ("min", torch.amin)])
def test_the_ensemble_has_one_value_as_configured(
    how: Literal["mean", "min"], reduced: Callable[..., Tensor]
) -> None:
    critic = build(dataclasses.replace(CONFIGS["mlp"], aggregate=how))
    obs, actions = inputs()
    expected = reduced(critic.values(obs, actions, prefix_mask()), dim=0)
    torch.testing.assert_close(critic.value(obs, actions, prefix_mask()), expected)
    several = torch.stack([actions, -actions, actions.flip(0)], 1)
    values = critic.candidate_values(obs, several)
    assert values.shape == (BATCH, 3)
    torch.testing.assert_close(values[:, 1], critic.value(obs, -actions))


def test_the_critic_learns_which_action_pays(critic: ChunkCritic) -> None:
    generator = torch.Generator().manual_seed(3)
    obs = torch.randn(64, OBS, generator=generator)
    actions = torch.rand(64, CHUNK, ACTION, generator=generator) * 2 - 1
    target = 0.5 + 0.4 * actions[:, 0, 0]
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        critic.head.loss(critic(obs, actions), target).mean().backward()
        optimizer.step()
    assert (critic.values(obs, actions) - target).square().mean().item() < 0.1 * target.var().item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ensemble": 0}, "ensemble is 0"),
        ({"residual_gain": 0.0}, "residual_gain is 0"),
        ({"v_min": 1.0, "v_max": 0.0}, "not below v_max"),
        ({"head": "hl_gauss"}, "needs v_min and v_max"),
        ({"head": "hl_gauss", "v_min": 0.0, "v_max": 1.0, "bins": 4}, "bins is 4"),
    ],
)
def test_impossible_configurations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLPCriticConfig(**options)


@pytest.mark.parametrize("kind", [MLPCriticConfig, PerStepCriticConfig])
def test_residuals_do_not_see_what_the_observation_explains(kind: type[MLPCriticConfig]) -> None:
    """Chunks that follow the observation linearly are read as noise of one size, whatever they follow."""
    config = kind(width=16, depth=2, residual_gain=0.5)
    critic, generator = build(config), torch.Generator().manual_seed(1)
    obs = 2 * torch.rand(4000, OBS, generator=generator) - 1
    slopes = 0.1 * torch.randn(OBS, CHUNK * ACTION, generator=generator)
    noise = torch.randn(4000, CHUNK, ACTION, generator=generator)
    valid = torch.ones(4000, CHUNK, dtype=torch.bool)
    followed = (obs @ slopes).unflatten(1, (CHUNK, ACTION))
    critic.fit_actions(obs, followed + 0.02 * noise, valid)
    assert critic.residuals is not None
    actions = followed + 0.02 * noise
    read = critic.residuals(obs, actions)
    torch.testing.assert_close(read, 0.5 * noise, atol=0.15, rtol=0.0)
    torch.testing.assert_close(critic.residuals(obs, actions[:, :1]), read[:, :1])
    # The same critic, given what is left, is the one that reads chunks as they are.
    plain = build(dataclasses.replace(config, residual_gain=None))
    plain.load_state_dict({k: v for k, v in critic.state_dict().items() if not k.startswith("residuals.")})
    torch.testing.assert_close(critic.values(obs, actions), plain.values(obs, read))


def test_residuals_are_read_within_bounds() -> None:
    critic = build(CONFIGS["mlp-residuals"])
    obs, actions = inputs()
    critic.fit_actions(obs, torch.zeros_like(actions), prefix_mask())
    assert critic.residuals is not None
    # Nothing moved in the data: the spread's floor of .01, and the clip at 10 of it, times the gain.
    assert torch.equal(critic.residuals(obs, torch.full_like(actions, 0.5)), torch.full_like(actions, 5.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mlp"}, r"'critic\.kind' is now 'critic\.type'"),
        ({"type": "transformer"}, r"'critic\.type=transformer' is gone: there is no transformer critic"),
        ({"attention_heads": 4}, r"'critic\.attention_heads' is gone"),
        ({"n_step": 2}, r"unknown option 'critic\.n_step'"),
    ],
)
def test_former_options_name_the_present_ones(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(CriticConfig, options, "critic")
