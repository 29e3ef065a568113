"""The same numbers on a GPU as on the CPU, eagerly and from a captured graph."""

from __future__ import annotations

import pytest
import torch

from serfn.flows import FlowConfig
from serfn.policies import (
    DiffusionConfig,
    FlowMatchingConfig,
    FlowPolicy,
    FlowPolicyConfig,
    PolicyConfig,
    make_policy,
)
from serfn.policies.encoders.mlp import MLPEncoderConfig

pytestmark = pytest.mark.gpu
OBS, ACTION, CHUNK = 6, 4, 8


def make_flow_policy(action_dim: int) -> FlowPolicy:
    config = FlowPolicyConfig(FlowConfig(couplings=4, width=32), encoder=MLPEncoderConfig(width=32))
    policy = make_policy(config, OBS, action_dim, CHUNK)
    assert isinstance(policy, FlowPolicy)
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.flow.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=source))
    return policy


@pytest.mark.parametrize("action_dim", [1, ACTION])
def test_density_and_samples_agree_with_the_cpu(action_dim: int) -> None:
    policy = make_flow_policy(action_dim)
    obs = torch.randn(32, OBS, generator=torch.Generator().manual_seed(0))
    actions = policy.sample(obs, generator=torch.Generator().manual_seed(1))
    log_prob = policy.log_prob(obs, actions)
    policy.cuda()
    on_gpu = policy.sample(obs.cuda(), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(on_gpu.cpu(), actions, atol=1e-4, rtol=1e-4)
    on_gpu = policy.log_prob(obs.cuda(), actions.cuda())
    torch.testing.assert_close(on_gpu.cpu(), log_prob, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        FlowPolicyConfig(FlowConfig(couplings=2, width=32), encoder=MLPEncoderConfig(width=32)),
        FlowPolicyConfig(
            FlowConfig(couplings=2, width=32), base_components=3, encoder=MLPEncoderConfig(width=32)
        ),
        FlowMatchingConfig(steps=3, width=32),
        DiffusionConfig(steps=3, width=32),
    ],
)
def test_captured_sampling_equals_eager(config: PolicyConfig) -> None:
    policy = make_policy(config, OBS, ACTION, CHUNK).cuda()
    generator = torch.Generator("cuda").manual_seed(0)
    obs = torch.randn(16, OBS, generator=generator, device="cuda")
    with torch.inference_mode():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            policy.sample(obs, generator=generator)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            captured = policy.sample(obs, generator=generator)
        for seed in (1, 2):
            generator.manual_seed(seed)
            graph.replay()
            replayed = captured.clone()
            expected = policy.sample(obs, generator=torch.Generator("cuda").manual_seed(seed))
            torch.testing.assert_close(replayed, expected, atol=1e-5, rtol=1e-5)
