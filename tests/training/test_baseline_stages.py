"""Every kind of policy, critic and improvement goes through the four stages, and resumes bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from serfn.core.errors import ConfigError
from serfn.core.spec import TaskSpec
from serfn.critics.mlp import MLPCriticConfig
from serfn.critics.per_step import PerStepCriticConfig
from serfn.policies import (
    DeterministicConfig,
    DistilledFlowConfig,
    FlowMatchingConfig,
    GaussianConfig,
    GaussianMixtureConfig,
    PolicyConfig,
)
from serfn.training.acting import ActingConfig
from serfn.training.build import make_agent
from serfn.training.config import TrainConfig
from serfn.training.improvements.base import ImprovementConfig
from serfn.training.improvements.bc import BcConfig
from serfn.training.improvements.fql import FqlConfig
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.improvements.sac import SacConfig
from serfn.training.improvements.td3_bc import Td3BcConfig
from serfn.training.stages.critic_warmup import CriticWarmupConfig
from serfn.training.stages.imitation import ImitationConfig
from serfn.training.stages.offline import OfflineConfig
from serfn.training.stages.online import AlarmConfig, OnlineConfig

STEP_CRITIC = PerStepCriticConfig(n_step=2, width=16, depth=1, v_min=-1.0, v_max=1.0)
CHUNK_CRITIC = MLPCriticConfig(width=16, depth=1, v_min=-1.0, v_max=1.0)
ALARMS, NO_DENSITY = AlarmConfig(), AlarmConfig(max_kl=None)
PAIRS = {
    "sac": (GaussianConfig(width=8), SacConfig(), CHUNK_CRITIC, ALARMS),
    "td3_bc": (DeterministicConfig(width=8), Td3BcConfig(), CHUNK_CRITIC, NO_DENSITY),
    "fql": (DistilledFlowConfig(steps=2, width=8), FqlConfig(), CHUNK_CRITIC, NO_DENSITY),
    "qc": (FlowMatchingConfig(steps=2, width=8), BcConfig(), CHUNK_CRITIC, NO_DENSITY),
    "mixture": (GaussianMixtureConfig(width=8), RegularizedConfig(), CHUNK_CRITIC, ALARMS),
    "n-step": (GaussianConfig(width=8), RegularizedConfig(), STEP_CRITIC, ALARMS),
}


def config_of(name: str, make: Callable[..., TrainConfig]) -> TrainConfig:
    policy, improvement, critic, alarms = PAIRS[name]
    acting = ActingConfig(candidates=3)
    return make(
        policy=policy,
        critic=critic,
        imitation=ImitationConfig(steps=4, batch_size=8),
        critic_warmup=CriticWarmupConfig(steps=4, batch_size=8),
        offline=OfflineConfig(steps=4, batch_size=8, improvement=improvement, acting=acting),
        online=OnlineConfig(
            episodes=6,
            episodes_per_round=2,
            updates_per_round=4,
            batch_size=8,
            improvement=improvement,
            acting=acting,
            alarms=alarms,
        ),
    )


@pytest.fixture
def make(toy_config: Callable[..., TrainConfig]) -> Callable[[str], TrainConfig]:
    return lambda name: config_of(name, toy_config)


@pytest.mark.parametrize("name", PAIRS)
def test_all_stages_run_and_resume(
    name: str, make: Callable[[str], TrainConfig], surroundings: Any, tmp_path: Path
) -> None:
    config = make(name)
    whole = surroundings.make_session(config, tmp_path / "whole", evaluate=None)
    before = [parameter.clone() for parameter in whole.context.agent.policy.parameters()]
    whole.run()
    after = list(whole.context.agent.policy.parameters())
    assert all(parameter.isfinite().all() for parameter in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert whole.state.episodes == 6 and whole.context.agent.skipped == 0

    surroundings.stop_after = 14
    interrupted = surroundings.make_session(config, tmp_path / "parts", evaluate=None)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    surroundings.stop_after = None
    resumed = surroundings.make_session(config, tmp_path / "parts", evaluate=None)
    resumed.resume()
    resumed.run()
    assert all(
        torch.equal(one, other)
        for one, other in zip(after, resumed.context.agent.policy.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "policy", "message"),
    [
        ("sac", FlowMatchingConfig(width=8), "type 'sac' cannot train a FlowMatchingPolicy"),
        ("fql", GaussianConfig(width=8), "type 'fql' cannot train a GaussianPolicy"),
    ],
)
def test_a_configuration_that_cannot_learn_is_refused_when_it_is_built(
    name: str, policy: PolicyConfig, message: str, make: Callable[[str], TrainConfig], toy_task: TaskSpec
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_agent(dataclasses.replace(make(name), policy=policy), toy_task)


def test_an_alarm_on_the_divergence_needs_a_density(
    make: Callable[[str], TrainConfig], toy_task: TaskSpec
) -> None:
    config = make("qc")
    online = dataclasses.replace(config.online, alarms=AlarmConfig())
    with pytest.raises(ConfigError, match=r"max_kl is 1.0, but a FlowMatchingPolicy has no density"):
        make_agent(dataclasses.replace(config, online=online), toy_task)


def test_the_improvement_of_a_stage_is_told_by_its_type() -> None:
    kinds: list[ImprovementConfig] = [
        RegularizedConfig(),
        SacConfig(),
        Td3BcConfig(),
        FqlConfig(),
        BcConfig(),
    ]
    assert [kind.type for kind in kinds] == ["regularized", "sac", "td3_bc", "fql", "bc"]
