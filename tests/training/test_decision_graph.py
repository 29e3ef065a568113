"""Decisions as graphs are those of PyTorch, for every policy, whatever chooses among its chunks."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.critics.factory import make_critic
from serfn.critics.mlp import MLPCriticConfig
from serfn.flows import FlowConfig
from serfn.policies.base import ChunkPolicy, PolicyConfig
from serfn.policies.factory import make_policy
from serfn.policies.flow import FlowPolicyConfig
from serfn.training.acting import ActingConfig, BestOfNActor
from serfn.training.decision_graph import DecisionGraph, GraphError

OBS, ACTION, CHUNK = 5, 3, 4
TASK = TaskSpec("toy", ObservationSpec(OBS), ActionSpec((-1.0,) * ACTION, (2.0,) * ACTION), 20.0, 50)
SMALL = FlowConfig(couplings=4, width=16)
POLICIES: dict[str, PolicyConfig] = {
    **{name: PolicyConfig.registry.find(name)() for name in PolicyConfig.registry.names()},
    "mixture base and regression": FlowPolicyConfig(flow=SMALL, base_components=3, linear_mean=True),
    "ensemble": FlowPolicyConfig(flow=SMALL, base_components=2, members=2),
}
OBSERVATIONS = np.random.default_rng(0).normal(size=(6, OBS)).astype(np.float32)


def make_actor(config: PolicyConfig, candidates: int, temperature: float = 0.7) -> BestOfNActor:
    policy = make_policy(config, OBS, ACTION, CHUNK, seed=1)
    disturb(policy)
    generator = torch.Generator().manual_seed(2)
    critic = make_critic(
        MLPCriticConfig(width=16, depth=2, residual_gain=0.1), OBS, ACTION, CHUNK, generator=generator
    )
    return BestOfNActor(policy, critic, TASK, ActingConfig(candidates, temperature))


def disturb(policy: ChunkPolicy) -> None:
    """Move all weights, zero-initialised heads included."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("candidates", [1, 6])
@pytest.mark.parametrize("name", POLICIES)
def test_graphs_draw_the_chunks_of_the_policy(name: str, candidates: int) -> None:
    pytest.importorskip("onnxruntime")
    actor = make_actor(POLICIES[name], candidates)
    actor.reset(5)
    expected = [actor.act(row[None]) for row in OBSERVATIONS]
    assert actor.prepare() is None
    actor.reset(5)
    for row, chunk in zip(OBSERVATIONS, expected, strict=True):
        np.testing.assert_allclose(actor.act(row[None]), chunk, atol=1e-5)


@pytest.mark.parametrize("name", ["flow", "diffusion", "ensemble"])
def test_a_stored_graph_decides_for_an_actor_elsewhere(name: str) -> None:
    pytest.importorskip("onnxruntime")
    actor, other = make_actor(POLICIES[name], 6), make_actor(POLICIES[name], 6)
    assert actor.prepare() is None and actor.graph is not None
    assert other.run_by(actor.graph) is None
    for each in (actor, other):
        each.reset(5)
    np.testing.assert_array_equal(actor.act(OBSERVATIONS[:1]), other.act(OBSERVATIONS[:1]))
    note = other.run_by(b"no model")
    assert note is not None and "cannot be run" in note


def test_other_numbers_of_observations_are_decided_without_the_graph() -> None:
    pytest.importorskip("onnxruntime")
    actor = make_actor(POLICIES["flow"], 4)
    actor.reset(5)
    expected = actor.act(OBSERVATIONS)
    assert actor.prepare(2) is None
    actor.reset(5)
    np.testing.assert_array_equal(actor.act(OBSERVATIONS), expected)


def test_a_graph_is_made_for_many_decisions_only() -> None:
    pytest.importorskip("onnxruntime")
    actor = make_actor(POLICIES["flow"], 1)
    assert actor.prepare_for(20, batch=2) is None and actor.graph is None
    assert actor.prepare_for(2000, batch=2) is None and actor.graph is not None


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", ["flow", "ensemble"])
def test_an_actor_follows_the_training_of_its_policy(name: str, prepared: bool) -> None:
    actor = make_actor(POLICIES[name], 4)
    before = actor.act(OBSERVATIONS[:1])
    if prepared:
        pytest.importorskip("onnxruntime")
        assert actor.prepare() is None
    disturb(actor.policy)
    fresh = BestOfNActor(actor.policy, actor.critic, TASK, actor.acting)
    for each in (actor, fresh):
        each.reset(7)
    after = actor.act(OBSERVATIONS[:1])
    np.testing.assert_array_equal(after, fresh.act(OBSERVATIONS[:1]))
    assert not np.allclose(after, before, atol=1e-3)


def test_without_onnx_runtime_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    actor = make_actor(POLICIES["flow"], 1)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    note = actor.prepare()
    assert note is not None and "pip install 'serfn[onnx]'" in note
    assert actor.act(OBSERVATIONS[:1]).shape == (1, CHUNK, ACTION)


def test_a_graph_that_decides_otherwise_is_refused() -> None:
    pytest.importorskip("onnxruntime")
    calls: list[int] = []

    def changing(obs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        calls.append(1)
        return obs * len(calls)

    with pytest.raises(GraphError, match="differs"):
        DecisionGraph.export(changing, 1, OBS)
