"""Several flows as one policy: the density of the mixture, whose chunk it is, and that all learn all data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.flows import FlowConfig
from serfn.policies import FlowEnsemblePolicy, FlowPolicyConfig, make_policy
from serfn.policies.encoders.mlp import MLPEncoderConfig

OBS, ACTION, CHUNK, MEMBERS = 5, 2, 4, 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_ensemble(shift: float = 0.3, *, linear_mean: bool = True) -> FlowEnsemblePolicy:
    """Members away from their initialisation and, by `shift`, from each other."""
    config = FlowPolicyConfig(
        FlowConfig(couplings=2, width=16),
        members=MEMBERS,
        encoder=MLPEncoderConfig(width=16),
        linear_mean=linear_mean,
    )
    policy = make_policy(config, OBS, ACTION, CHUNK).double()
    assert isinstance(policy, FlowEnsemblePolicy)
    source = generator(3)
    policy.fit_statistics(*draw_data(64))
    with torch.no_grad():
        for index, flow in enumerate(policy.flows):
            for parameter in flow.flow.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=source, dtype=parameter.dtype))
            flow.flow.whitening.mean += shift * (index - 1)
    return policy


def draw_data(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    source = generator(1)
    obs = 2 + torch.randn(batch, OBS, generator=source, dtype=torch.float64)
    actions = (0.3 * torch.randn(batch, CHUNK, ACTION, generator=source, dtype=torch.float64)).clamp(
        -0.9, 0.9
    )
    valid = torch.arange(CHUNK) < torch.randint(1, CHUNK + 1, (batch, 1), generator=source)
    return obs, actions, valid


def member_log_probs(policy: FlowEnsemblePolicy, obs: Tensor, actions: Tensor, valid: Tensor) -> Tensor:
    """Log-densities [members, batch], each member with the ensemble's regression as if it were alone."""
    assert policy.linear_mean is not None
    u = actions.atanh()
    v = u - policy.linear_mean(policy.normalizer(obs))
    slope = torch.log1p(-actions.square()).sum(-1)
    return torch.stack(
        [
            torch.where(valid, flow.step_log_prob(flow.context(obs), v) - slope, 0.0).sum(-1)
            for flow in policy.flows
        ]
    )


def test_density_is_the_mean_of_the_members_densities_for_prefixes_too() -> None:
    policy = make_ensemble()
    obs, actions, valid = draw_data(16)
    members = member_log_probs(policy, obs, actions, valid)
    assert members.std(0).min() > 0.01
    expected = members.exp().mean(0).log()
    torch.testing.assert_close(policy.log_prob(obs, actions, valid), expected, atol=1e-9, rtol=1e-9)


def test_own_log_prob_agrees_with_the_density_of_the_sample() -> None:
    policy = make_ensemble()
    obs = draw_data(64)[0]
    actions, log_prob = policy.rsample_and_log_prob(obs, generator=generator())
    torch.testing.assert_close(policy.log_prob(obs, actions), log_prob, atol=1e-7, rtol=1e-7)


def whose(policy: FlowEnsemblePolicy, obs: Tensor, v: Tensor) -> Tensor:
    """Member whose calmest v for its observation lies nearest; `obs` broadcasts against `v`."""
    calm = [flow.draw(flow.context(obs), v.shape[:-2], 0.0, generator()) for flow in policy.flows]
    return torch.stack([(v - own).abs().sum((-2, -1)) for own in calm]).argmin(0)


@pytest.mark.parametrize("count", [3000, 3001])
def test_every_member_gives_its_share_of_the_chunks(count: int) -> None:
    policy = make_ensemble(shift=3.0, linear_mean=False)
    obs = draw_data(1)[0].unsqueeze(-2)
    with torch.no_grad():
        nearest = whose(policy, obs, policy.draw(policy.context(obs), (1, count), 0.2, generator()))[0]
    shares = nearest.bincount(minlength=MEMBERS) / count
    torch.testing.assert_close(
        shares, torch.full((MEMBERS,), 1 / 3), atol=0.03 if count % 3 else 1e-9, rtol=0
    )


@pytest.mark.parametrize("leading", [(6,), (6, MEMBERS)])
def test_each_chunk_is_any_members_and_answers_its_own_observation(leading: tuple[int, ...]) -> None:
    policy = make_ensemble(shift=3.0, linear_mean=False)
    obs, source = draw_data(6)[0], generator()
    obs = obs if leading == (6,) else obs.unsqueeze(1)
    with torch.no_grad():
        draws = torch.stack([policy.draw(policy.context(obs), leading, 1e-6, source) for _ in range(300)])
        nearest = whose(policy, obs, draws)
        own = torch.stack([flow.draw(flow.context(obs), leading, 0.0, source) for flow in policy.flows])
    assert torch.pdist(own[0].reshape(6, -1)).min() > 0.01
    answers = own.flatten(1, -3).unbind(1)
    for place, chunks in enumerate(draws.flatten(1, -3).unbind(1)):
        member = nearest.flatten(1)[:, place]
        torch.testing.assert_close(chunks, answers[place][member], atol=1e-4, rtol=0)
        shares = member.bincount(minlength=MEMBERS) / len(member)
        torch.testing.assert_close(shares, torch.full((MEMBERS,), 1 / 3), atol=0.1, rtol=0)
    assert (nearest.sort(-1).values == torch.arange(MEMBERS).repeat_interleave(leading[-1] // MEMBERS)).all()


def test_temperature_zero_is_one_chunk_whatever_the_noise() -> None:
    policy = make_ensemble()
    obs = draw_data(8)[0]
    first, second = (policy.sample(obs, temperature=0.0, generator=generator(seed)) for seed in (1, 2))
    torch.testing.assert_close(first, second, atol=0, rtol=0)


def test_imitation_raises_the_mean_of_the_members_log_densities() -> None:
    policy = make_ensemble()
    policy.data_noise = 0.0
    obs, actions, valid = draw_data(16)
    loss, _ = policy.imitation_loss(obs, actions, valid, generator=generator())
    members = member_log_probs(policy, obs, actions, valid)
    expected = -members.mean(0).sum() / (valid.sum() * ACTION)
    torch.testing.assert_close(loss, expected, atol=1e-9, rtol=1e-9)
    mixture = -policy.log_prob(obs, actions, valid).sum() / (valid.sum() * ACTION)
    assert loss > mixture  # Jensen's bound lies on the side of the loss


def test_a_member_learns_as_if_it_were_alone_however_far_from_the_data() -> None:
    policy = make_ensemble(shift=5.0)
    policy.data_noise = 0.0
    obs, actions, valid = draw_data(16)
    loss, _ = policy.imitation_loss(obs, actions, valid, generator=generator())
    alone = -member_log_probs(policy, obs, actions, valid).sum(1) / (valid.sum() * ACTION)
    for flow, own in zip(policy.flows, alone, strict=True):
        parameters = list(flow.flow.parameters())
        together = torch.autograd.grad(MEMBERS * loss, parameters, retain_graph=True)
        torch.testing.assert_close(together, torch.autograd.grad(own, parameters, retain_graph=True))


def test_no_members_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"members is 0"):
        FlowPolicyConfig(members=0)
