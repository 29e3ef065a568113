"""Configurations that are known to work, by task and budget."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, get_args

from serfn.core.errors import ConfigError
from serfn.core.registry import attribute
from serfn.critics.mlp import MLPCriticConfig
from serfn.data.datasets import load_demonstrations
from serfn.flows import FlowConfig
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.policies.flow import FlowPolicyConfig
from serfn.runs.derive import Plan, derive
from serfn.runs.facts import facts
from serfn.tasks.registry import Task, env_of_task, task_of_env
from serfn.tasks.registry import task as find_task
from serfn.training.acting import ActingConfig
from serfn.training.agent import AgentConfig
from serfn.training.config import EvaluationConfig, TrainConfig
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.rewards import RewardConfig
from serfn.training.stages.context import LoopConfig
from serfn.training.stages.critic_warmup import CriticWarmupConfig
from serfn.training.stages.imitation import ImitationConfig
from serfn.training.stages.offline import OfflineConfig
from serfn.training.stages.online import OnlineConfig

Budget = Literal["smoke", "demo", "full"]
"""`smoke` shows in two minutes that everything runs; `demo` improves in about ten; `full` uses 105 min of
robot time."""


def preset(task: str, budget: Budget) -> TrainConfig:
    """Return the configuration for a task: its own preset (`Task.preset`), or a general one.

    Args:
        task: Name of the task, or `package.module:TASK`.
        budget: How much to spend.

    Raises:
        ConfigError: Unknown task or budget.
    """
    if budget not in get_args(Budget):
        raise ConfigError(f"unknown budget {budget!r}; choose one of {', '.join(get_args(Budget))}")
    return _of_task(find_task(task), env_of_task(task), budget)


def _of_task(entry: Task, env: str, budget: Budget) -> TrainConfig:
    """Return a task's own preset, or one of the cube's sizes whose rewards are taken as they are."""
    if entry.preset is not None:
        config = attribute(entry.preset, f"the preset of {entry.env_id}")(env, budget)
        if not isinstance(config, TrainConfig):
            raise ConfigError(f"the preset {entry.preset} returns {config!r}; return a TrainConfig")
        return config
    first, last = (entry.plants[0], entry.plants[-1]) if entry.plants else (None, None)
    return dataclasses.replace(
        cube(env, budget), plant=last, demo_plant=first, rewards=RewardConfig(), agent=AgentConfig()
    )


def preset_for_environment(env: str, budget: Budget, demos: Path | None) -> TrainConfig:
    """Return the configuration for any Gymnasium environment.

    The environment of a task gets that task's preset; elsewhere the demonstrations decide
    (`serfn.runs.derive`). Without any, the general one stands until they are given.

    Args:
        env: Gymnasium id, with the registering package in front if needed (`package:Id`).
        budget: How much to spend.
        demos: Demonstrations of any format; None is left to be refused or recorded later. Bad episodes are
            passed over: it is training that refuses them, or leaves them out.

    Raises:
        ConfigError: Unknown budget.
        DataError: The demonstrations cannot be read.
    """
    if budget not in get_args(Budget):
        raise ConfigError(f"unknown budget {budget!r}; choose one of {', '.join(get_args(Budget))}")
    entry = task_of_env(env)
    if entry is not None:
        return dataclasses.replace(_of_task(entry, env, budget), demos=demos)
    if demos is None:
        return dataclasses.replace(
            preset("cube", budget), env=env, plant=None, rewards=RewardConfig(), agent=AgentConfig()
        )
    return dataclasses.replace(plan(demos, budget).config, env=env, demos=demos)


def has_preset(env: str) -> bool:
    """Whether the environment is that of a task, whose preset is used instead of what data suggest."""
    return task_of_env(env) is not None


def plan(demos: Path, budget: Budget) -> Plan:
    """Return the configuration that demonstrations of any format suggest, with reasons.

    Raises:
        DataError: They cannot be read.
    """
    return derive(facts(load_demonstrations(demos, skip_bad=True)), budget)


def cube(env_id: str, budget: Budget) -> TrainConfig:
    """Cube rotation: 0.24 rad of progress per step (46 rev/min) would count as 1, a drop is absorbing at -1.

    A chunk of 4 steps is 0.2 s; one of 8 steps turns the cube by 24 degrees blindly at 10 rev/min. Two steps
    are executed before the policy replans: the critic sees further than the hand is left to itself. Values
    look 2.5 s ahead: over a longer horizon one chunk hardly moves them, and what the critic makes up outgrows
    what is earned. At this scale a drop costs as much as 14 s of turning at 10 rev/min. Recorded chunks are
    weighted, and the policy is regularised towards the one that collected the round; along the critic's
    gradient it lost the cube (docs/results/cube.md). Most of the critic's batches are online data:
    nominal values are too high for the plant (a variant of the simulated system).
    """
    acting, curious = (
        ActingConfig(candidates=16, temperature=0.5, n_action_steps=2),
        ActingConfig(candidates=16, temperature=0.7, n_action_steps=2),
    )
    offline = RegularizedConfig(operator="advantage_weighted", penalty="kl", coefficient=0.3, target_kl=0.01)
    online = RegularizedConfig(
        operator="advantage_weighted",
        penalty="kl",
        coefficient=0.1,
        target_kl=0.03,
        baseline_samples=2,
    )
    smoke, full = budget == "smoke", budget == "full"
    return TrainConfig(
        env=env_id,
        plant="field",
        demo_episodes=4 if smoke else 160 if full else 80,
        chunk_size=4,
        rewards=RewardConfig(scale=1 / 0.24, absorbing_failure=-1.0),
        policy=FlowPolicyConfig(
            flow=FlowConfig(couplings=4, width=192), encoder=MLPEncoderConfig(width=160), data_noise=0.05
        ),
        critic=MLPCriticConfig(width=288, depth=3, ensemble=2, v_min=-1.0, v_max=1.0),
        agent=AgentConfig(discount=0.98, critic_learning_rate=1e-3, policy_learning_rate=6e-4),
        imitation=ImitationConfig(
            steps=100 if smoke else 6000 if full else 2400,
            batch_size=256,
            acting=dataclasses.replace(curious, candidates=1),
        ),
        critic_warmup=CriticWarmupConfig(steps=100 if smoke else 2000 if full else 1000),
        offline=OfflineConfig(
            steps=100 if smoke else 1500 if full else 300,
            schedule="cosine",
            improvement=offline,
            acting=acting,
        ),
        online=OnlineConfig(
            episodes=16 if smoke else 315 if full else 64,
            updates_per_round=60 if smoke else 1000 if full else 300,
            online_fraction=0.9,
            schedule="cosine",
            policy_delay_rounds=1 if smoke else 2,
            evaluate_every=1 if smoke else 4,
            improvement=online,
            reference="round",
            acting=acting,
            collecting=curious,
        ),
        loop=LoopConfig(report_every=20, checkpoint_every=20) if smoke else LoopConfig(),
        evaluation=EvaluationConfig(episodes=8 if smoke else 50, interim_episodes=16 if full else 8),
    )


def scissors(env_id: str, budget: Budget) -> TrainConfig:
    """Scissors and tape: +1 per stage, the cut as an absorbing reward, a drop as -1; 50 online episodes.

    The wrist is commanded over a metre and must meet the loops within millimetres: the flow begins from a
    regression and from a base that follows the observation, and imitated actions get a fraction of the usual
    noise. Demonstrations are pushed out of their way and measured with noise, so that they show how to come
    back; of four flows that learn from them (full budget) one leads on where another has come to a stand. Two
    seconds of recorded rewards in the critic's targets carry a reward at the end to the start of an episode
    in a few steps.

    The BC policy acts with one sample, later policies with the best of 4 under the critic; all replan after
    half a chunk. Chunks of a low temperature and a higher value cut sooner; the best of 16 at a higher
    temperature is too hasty. The critic reads chunks as residuals, and the policy learns from online chunks
    as they were planned, under the distribution that drew them. It is regularised closely towards the BC
    policy: at KL / D of 0.07 it was no better, and along the Q-gradient it lost its precision
    (docs/results/scissors.md).
    """
    acting = ActingConfig(candidates=4, temperature=0.5, n_action_steps=4)
    improvement = RegularizedConfig(
        operator="advantage_weighted", penalty="kl", coefficient=1.0, target_kl=0.01
    )
    smoke, full = budget == "smoke", budget == "full"
    return TrainConfig(
        env=env_id,
        plant="field",
        demo_episodes=4 if smoke else 120,
        demo_plant="pushed",
        chunk_size=8,
        rewards=RewardConfig(absorbing_success=1.0, absorbing_failure=-1.0),
        policy=FlowPolicyConfig(
            flow=FlowConfig(couplings=4, width=192, minimum_std=0.01),
            base_components=4,
            linear_mean=True,
            members=4 if full else 1,
            encoder=MLPEncoderConfig(width=192),
            data_noise=0.003,
        ),
        critic=MLPCriticConfig(width=192, depth=3, ensemble=2, residual_gain=0.1, v_min=-1.0, v_max=1.0),
        agent=AgentConfig(return_steps=40),
        imitation=ImitationConfig(
            steps=100 if smoke else 5000,
            batch_size=128,
            successes_only=True,
            acting=dataclasses.replace(acting, candidates=1),
        ),
        critic_warmup=CriticWarmupConfig(steps=100 if smoke else 2000),
        offline=OfflineConfig(
            steps=100 if smoke else 1500 if full else 600,
            schedule="cosine",
            improvement=improvement,
            acting=acting,
        ),
        online=OnlineConfig(
            episodes=16 if smoke else 50,
            episodes_per_round=8 if smoke else 10,
            updates_per_round=60 if smoke else 1000 if full else 500,
            schedule="cosine",
            policy_windows="replans",
            policy_delay_rounds=1,
            evaluate_every=1 if smoke else 2,
            improvement=dataclasses.replace(improvement, temperature=acting.temperature),
            acting=acting,
        ),
        loop=LoopConfig(report_every=20, checkpoint_every=20) if smoke else LoopConfig(),
        evaluation=EvaluationConfig(
            episodes=8 if smoke else 50, interim_episodes=8 if smoke else 32 if full else 16
        ),
    )


def valve(env_id: str, budget: Budget) -> TrainConfig:
    """Valve: the cube's sizes; half a turn counts as an absorbing reward of the largest size."""
    return dataclasses.replace(
        cube(env_id, budget), rewards=RewardConfig(scale=1 / 0.24, absorbing_success=1.0)
    )


def diagnostic(env_id: str, budget: Budget) -> TrainConfig:
    """A point around an obstacle: reward at the goal, a collision absorbing at -1, seconds of training.

    Demonstrations pass on either side and nothing between: the flow's base has several components.
    """
    acting = ActingConfig(candidates=16, temperature=1.0)
    improvement = RegularizedConfig(operator="mpo", penalty="kl", coefficient=0.1, target_kl=0.1)
    smoke, full = budget == "smoke", budget == "full"
    return TrainConfig(
        env=env_id,
        plant="field",
        demo_episodes=20 if smoke else 80,
        chunk_size=10,
        rewards=RewardConfig(absorbing_success=1.0, absorbing_failure=-1.0),
        policy=FlowPolicyConfig(
            flow=FlowConfig(couplings=2, width=20),
            base_components=4,
            encoder=MLPEncoderConfig(width=128, depth=3),
            data_noise=0.03,
        ),
        critic=MLPCriticConfig(width=64, depth=2, ensemble=2, v_min=-1.0, v_max=1.0),
        agent=AgentConfig(
            discount=0.98,
            polyak=0.02,
            target_temperature=1.0,
            policy_learning_rate=3e-4,
            critic_learning_rate=1e-3,
        ),
        imitation=ImitationConfig(
            steps=60 if smoke else 1000,
            batch_size=128,
            learning_rate=2e-3,
            acting=ActingConfig(candidates=1, temperature=1.0),
        ),
        critic_warmup=CriticWarmupConfig(steps=60 if smoke else 300, batch_size=128),
        offline=OfflineConfig(
            steps=60 if smoke else 300, batch_size=128, improvement=improvement, acting=acting
        ),
        online=OnlineConfig(
            episodes=16 if smoke else 192 if full else 72,
            updates_per_round=20 if smoke else 100,
            batch_size=128,
            evaluate_every=1 if smoke else 3,
            improvement=improvement,
            acting=acting,
        ),
        loop=LoopConfig(report_every=20, checkpoint_every=20)
        if smoke
        else LoopConfig(report_every=100, checkpoint_every=500),
        evaluation=EvaluationConfig(episodes=8 if smoke else 50, interim_episodes=8 if smoke else 32),
    )
