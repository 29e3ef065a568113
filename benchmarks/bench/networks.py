"""One decision of every policy, and updates in two sizes with their share of the GEMM peak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench.timing import Figures, Group, Setting, alternate
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.critics.factory import make_critic
from serfn.critics.mlp import MLPCriticConfig
from serfn.flows import FlowConfig
from serfn.policies import FlowPolicyConfig, PolicyConfig, make_policy
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.training.acting import ActingConfig, BestOfNActor
from serfn.training.agent import Agent, AgentConfig
from serfn.training.batch import TensorBatch
from serfn.training.build import make_agent
from serfn.training.config import TrainConfig
from serfn.training.improvements.bc import BcConfig
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.losses import best_of
from serfn.training.stages.offline import OfflineConfig
from serfn.training.stages.online import AlarmConfig, OnlineConfig

OBS, ACTION, CHUNK, BATCH = 45, 28, 5, 256
TASK = TaskSpec("bench", ObservationSpec(OBS), ActionSpec((-1.0,) * ACTION, (1.0,) * ACTION), 20.0, 400)
SIZES, TINY = ((256, 3), (512, 4)), ((16, 2),)
GEMM = "GEMM 1024"
"""The contestant that says what the machine's matrix products reach at best."""


def acting(setting: Setting) -> dict[str, Group]:
    """Return what one decision costs: as the policy trains, frozen, and as a graph of ONNX Runtime."""
    width, depth = TINY[0] if setting.quick else SIZES[0]
    policies = _policies(width, depth)
    if setting.quick:
        policies = {"flow": policies["flow"]}
    groups = {}
    for candidates in (1, 16) if setting.quick else (1, 16, 32):
        calls: dict[str, Callable[[], object]] = {}
        for name, config in policies.items():
            for way, call in _decisions(config, candidates, width, depth, setting.device).items():
                calls[f"{name}: {way}"] = call
        groups[f"one decision, best of {candidates}, {width}×{depth}"] = alternate(
            calls, setting.rounds(60), drain=_drain(setting)
        )
    return groups


def updates(setting: Setting) -> dict[str, Group]:
    """Return what updates cost, how many products they take, and what share of the GEMM peak they reach."""
    groups = {}
    for width, depth in TINY if setting.quick else SIZES:
        flow = _policies(width, depth)["flow"]
        calls = _updates(flow, width, depth, setting.device)
        other = {"flow matching": "flow_matching", "diffusion": "diffusion"}
        for name, kind in other.items():
            policy = _policies(width, depth)[kind]
            calls[f"imitation, {name}"] = _updates(policy, width, depth, setting.device)["imitation, flow"]
        size = 64 if setting.quick else 1024
        left, right = (torch.rand(size, size, device=setting.device) for _ in range(2))
        calls[GEMM] = lambda left=left, right=right: left @ right
        group = alternate(calls, setting.rounds(20), drain=_drain(setting))
        peak = 2e-9 * size**3 / group[GEMM]["least_ms"]
        groups[f"one update, batch {BATCH}, {width}×{depth}"] = {
            name: _with_share(figures, calls[name], peak) for name, figures in group.items()
        }
    return groups


def learning() -> Iterator[int]:
    """Update critic and policy without end; yield the number of each update after it."""
    width, depth = SIZES[0]
    calls = _updates(_policies(width, depth)["flow"], width, depth, "cpu")
    for number in count():
        calls["critic"]()
        calls["policy"]()
        yield number


def _with_share(figures: Figures, call: Callable[[], object], peak: float) -> Figures:
    with FlopCounterMode(display=False) as counter:
        call()
    gflop = counter.get_total_flops() / 1e9
    return {**figures, "gflop": gflop, "share_of_peak": gflop / figures["least_ms"] / peak}


def _policies(width: int, depth: int) -> dict[str, PolicyConfig]:
    encoder, flow = MLPEncoderConfig(width=width, depth=depth), FlowConfig(width=width)
    named: dict[str, Any] = {
        name: PolicyConfig.registry.find(name)() for name in PolicyConfig.registry.names()
    }
    sized = {
        name: replace(config, width=width) if hasattr(config, "width") else config
        for name, config in named.items()
    }
    return {
        **sized,
        "flow": FlowPolicyConfig(flow, encoder=encoder),
        "flow, mixture base": FlowPolicyConfig(flow, encoder=encoder, base_components=4),
        "flow, 4 members": FlowPolicyConfig(flow, encoder=encoder, members=4),
    }


def _decisions(
    config: PolicyConfig, candidates: int, width: int, depth: int, device: str
) -> dict[str, Callable[[], object]]:
    policy = make_policy(config, OBS, ACTION, CHUNK).to(device).requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    judge = MLPCriticConfig(width=width, depth=depth)
    critic = make_critic(judge, OBS, ACTION, CHUNK, generator=torch.Generator().manual_seed(0))
    critic = critic.to(device).requires_grad_(False)
    observation = np.zeros((1, OBS), np.float32)
    obs = torch.zeros(1, OBS, device=device)

    @torch.no_grad()
    def as_it_trains() -> object:
        return best_of(policy, critic, obs, candidates, 0.7, generator)

    frozen, graph = (BestOfNActor(policy, critic, TASK, ActingConfig(candidates, 0.7)) for _ in range(2))
    calls: dict[str, Callable[[], object]] = {
        "as it trains": as_it_trains,
        "frozen": lambda: frozen.act(observation),
    }
    if graph.prepare() is None:
        calls["graph"] = lambda: graph.act(observation)
    return calls


def _updates(policy: PolicyConfig, width: int, depth: int, device: str) -> dict[str, Callable[[], object]]:
    # Policies without a likelihood can only imitate here.
    improvement = RegularizedConfig() if isinstance(policy, FlowPolicyConfig) else BcConfig()
    config = TrainConfig(
        offline=OfflineConfig(improvement=improvement),
        online=OnlineConfig(improvement=improvement, alarms=AlarmConfig(max_kl=None)),
        chunk_size=CHUNK,
        policy=policy,
        critic=MLPCriticConfig(width=width, depth=depth, v_min=-1.0, v_max=1.0),
        agent=AgentConfig(device=device),
    )
    agent: Agent = make_agent(config, TASK)
    batch = _batch(device)
    agent.policy.fit_statistics(batch.obs, batch.actions, batch.valid)
    agent.freeze_reference(improvement.initial_coefficient)
    return {
        "critic": lambda: agent.critic_step(batch),
        "policy": lambda: agent.policy_step(batch, batch, improvement),
        "imitation, flow": lambda: agent.imitation_step(batch),
    }


def _batch(device: str) -> TensorBatch:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    return TensorBatch(
        obs=normal(BATCH, OBS),
        actions=normal(BATCH, CHUNK, ACTION).tanh(),
        rewards=0.1 * normal(BATCH, CHUNK).tanh(),
        valid=torch.ones(BATCH, CHUNK, dtype=torch.bool, device=device),
        next_obs=normal(BATCH, OBS),
        terminated=torch.zeros(BATCH, dtype=torch.bool, device=device),
        planned=torch.ones(BATCH, CHUNK, dtype=torch.bool, device=device),
    )


def _drain(setting: Setting) -> Callable[[], object]:
    return torch.cuda.synchronize if setting.device.startswith("cuda") else lambda: None
