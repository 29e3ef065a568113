from __future__ import annotations

import numpy as np
import pytest
import torch

from serfn.core.errors import ConfigError
from serfn.core.spec import ActionSpec
from serfn.flows import FlowConfig
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.policies.flow import FlowPolicy, FlowPolicyConfig
from serfn.robot.gate import LikelihoodGate, calibrate_range
from serfn.training.chunk_likelihood import ChunkLikelihood

SPEC = ActionSpec((-2.0, 0.0), (2.0, 0.5))


@pytest.fixture
def policy() -> FlowPolicy:
    config = FlowPolicyConfig(FlowConfig(couplings=2, width=16), encoder=MLPEncoderConfig(width=16))
    made = FlowPolicy(config, obs_dim=3, action_dim=2, chunk_size=4)
    generator = torch.Generator().manual_seed(2)
    observations = torch.randn(64, 3, generator=generator)
    actions = 0.2 * torch.randn(64, 4, 2, generator=generator)
    made.fit_statistics(observations, actions.tanh(), torch.ones(64, 4, dtype=torch.bool))
    return made


def test_it_is_the_density_of_the_normalised_chunk(policy: FlowPolicy) -> None:
    likelihood, generator = ChunkLikelihood(policy, SPEC), torch.Generator().manual_seed(0)
    obs = torch.randn(5, 3, generator=generator)
    actions = policy.sample(obs, generator=generator).detach()
    chunks = SPEC.denormalize(actions.numpy())
    values = likelihood.batch(obs.numpy(), chunks)
    assert values == pytest.approx(policy.log_prob(obs, actions).detach().numpy(), rel=1e-4, abs=1e-3)
    assert likelihood(obs[2].numpy(), chunks[2]) == pytest.approx(values[2], rel=1e-5)


def test_a_gate_calibrated_on_its_own_chunks_tells_foreign_ones(policy: FlowPolicy) -> None:
    likelihood, generator = ChunkLikelihood(policy, SPEC), torch.Generator().manual_seed(1)
    obs = torch.randn(500, 3, generator=generator)
    chunks = SPEC.denormalize(policy.sample(obs, generator=generator).detach().numpy())
    ordinary = calibrate_range(likelihood.batch(obs.numpy(), chunks), low_quantile=0.01)
    gate = LikelihoodGate(likelihood, ordinary, "refuse")
    accepted = [
        gate.decide(o, lambda c=c: c).actions is not None for o, c in zip(obs.numpy(), chunks, strict=True)
    ]
    assert 0.98 <= np.mean(accepted) <= 1.0
    foreign = np.broadcast_to(np.array([[2.0, 0.0], [-2.0, 0.5]]).repeat(2, 0), (4, 2))
    assert gate.decide(obs[0].numpy(), lambda: foreign).actions is None


def test_another_number_of_dimensions_is_refused(policy: FlowPolicy) -> None:
    with pytest.raises(ConfigError, match="2 action dimensions, the robot 1"):
        ChunkLikelihood(policy, ActionSpec((0.0,), (1.0,)))
