"""The fast form of a flow is the same map."""

from __future__ import annotations

import pytest
import torch

from serfn.flows import ConditionalChunkFlow
from serfn.flows.frozen import FrozenChunkFlow, freeze
from tests.flows.test_chunk_flow import draw, make_flow


@pytest.mark.parametrize("action_dim", [2, 3, 5])
@pytest.mark.parametrize("couplings", [2, 6])
def test_chunks_and_log_determinants_are_those_of_the_flow(action_dim: int, couplings: int) -> None:
    flow = make_flow(action_dim, couplings=couplings)
    frozen = freeze(flow)
    assert isinstance(frozen, FrozenChunkFlow)
    z, context = draw(7, 6, 4, action_dim), draw(7, 1, 3, seed=1)
    u, log_det = flow(z, flow.condition(context))
    got, got_log_det = frozen(z, frozen.condition(context))
    torch.testing.assert_close(got, u, atol=1e-12, rtol=0)
    torch.testing.assert_close(got_log_det, log_det, atol=1e-12, rtol=0)


def test_training_goes_on_without_the_frozen_flow() -> None:
    flow = make_flow(3)
    z, context = draw(4, 4, 3), draw(4, 3, seed=1)
    frozen = freeze(flow)
    before = frozen(z, frozen.condition(context))[0]
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(frozen(z, frozen.condition(context))[0], before, atol=0, rtol=0)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_a_flow_of_one_action_dimension_is_copied() -> None:
    flow = make_flow(1)
    frozen = freeze(flow)
    assert isinstance(frozen, ConditionalChunkFlow)
    assert frozen is not flow
    z, conditions = draw(4, 4, 1), flow.condition(draw(4, 3, seed=1))
    torch.testing.assert_close(frozen(z, conditions)[0], flow(z, conditions)[0], atol=0, rtol=0)
