"""From configuration and demonstrations to an agent and its replay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from serfn.core.errors import ConfigError, DataError
from serfn.core.seeding import torch_seed
from serfn.core.spec import TaskSpec
from serfn.critics.factory import make_critic
from serfn.data.episode import Episode
from serfn.data.replay import ChunkReplay
from serfn.data.statistics import observation_statistics
from serfn.policies.base import ChunkPolicy
from serfn.policies.factory import make_policy
from serfn.policies.squashed import SquashedPolicy
from serfn.training.agent import Agent
from serfn.training.config import TrainConfig
from serfn.training.rewards import learning_rewards
from serfn.training.stages.base import Stage
from serfn.training.stages.critic_warmup import CriticWarmup
from serfn.training.stages.imitation import Imitation
from serfn.training.stages.offline import Offline
from serfn.training.stages.online import Online
from serfn.training.stages.state import STAGES, StageName


def make_stages(config: TrainConfig, names: Sequence[StageName] = STAGES) -> list[Stage]:
    """Return the stages of these names, always in the method's order.

    Raises:
        ConfigError: A name is unknown or there are none.
    """
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        raise ConfigError(f"stages are {list(names)}; choose from {', '.join(STAGES)}")
    stages: dict[StageName, Stage] = {
        "imitation": Imitation(config.imitation, evaluate_interim=config.online.evaluate_every > 0),
        "critic_warmup": CriticWarmup(config.critic_warmup),
        "offline": Offline(config.offline),
        "online": Online(config.online),
    }
    return [stages[name] for name in STAGES if name in names]


def make_agent(config: TrainConfig, task: TaskSpec) -> Agent:
    """Build an agent with initial weights from the run's seed; its statistics are not fitted yet.

    Raises:
        ConfigError: The device is not available, or the architecture does not fit the task.
    """
    device = torch.device(config.agent.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is '{config.agent.device}', but this PyTorch sees {torch.cuda.device_count()} CUDA "
            "devices; use cpu"
        )
    dims = (task.observation.dim, task.action.dim, config.chunk_size)
    generator = torch.Generator().manual_seed(torch_seed(config.seed, "critic"))
    try:
        policy = make_policy(config.policy, *dims, seed=torch_seed(config.seed, "policy"))
        critic = make_critic(config.critic, *dims, generator=generator)
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"policy or critic cannot be built for '{task.id}': {reason}") from error
    _check_fit(config, policy)
    return Agent(
        policy,
        critic,
        config.agent,
        value_bounds=config.value_bounds,
        seed=torch_seed(config.seed, "agent"),
    )


def _check_fit(config: TrainConfig, policy: ChunkPolicy) -> None:
    """Raise `ConfigError` unless the stages can train this kind of policy."""
    config.offline.improvement.check_policy(policy)
    config.online.improvement.check_policy(policy)
    if config.online.alarms.max_kl is not None and not isinstance(policy, SquashedPolicy):
        raise ConfigError(
            f"online.alarms.max_kl is {config.online.alarms.max_kl}, but a "
            f"{type(policy).__name__} has no density; set it to none"
        )


def make_demonstration_replay(
    config: TrainConfig, task: TaskSpec, demonstrations: Sequence[Episode]
) -> ChunkReplay:
    """Put demonstrations with learning rewards into a replay that holds all of them.

    Raises:
        DataError: There are none, or they do not fit the task or the chunk size.
    """
    longest = max((episode.length for episode in demonstrations), default=0)
    if longest < config.chunk_size:
        raise DataError(
            f"the longest of {len(demonstrations)} demonstrations has {longest} steps, fewer than a chunk of "
            f"{config.chunk_size}; reduce chunk_size or record longer episodes"
        )
    steps = sum(episode.length for episode in demonstrations)
    replay = make_replay(config, task, steps)
    for episode in demonstrations:
        task.action.check(episode.actions)
        replay.add(learning_rewards(episode, config.rewards, config.agent.discount))
    return replay


def make_replay(config: TrainConfig, task: TaskSpec, capacity_steps: int) -> ChunkReplay:
    """Return an empty replay whose windows carry what the critic's targets need."""
    return ChunkReplay(
        task.action,
        task.observation.dim,
        config.chunk_size,
        capacity_steps,
        return_steps=config.agent.return_steps,
    )


def fit_statistics(agent: Agent, replay: ChunkReplay, demonstrations: Sequence[Episode]) -> None:
    """Fit normalisers, regressions and the policy's whitening to all windows of the demonstrations."""
    windows = agent.tensors(replay.windows(np.arange(len(replay))))
    agent.policy.fit_statistics(windows.obs, windows.actions, windows.valid)
    statistics = observation_statistics(demonstrations)
    mean = torch.from_numpy(statistics.mean).to(agent.device, agent.dtype)
    std = torch.from_numpy(statistics.std).to(agent.device, agent.dtype)
    for critic in (agent.critic, agent.target_critic):
        critic.set_normalization(mean, std)
        critic.fit_actions(windows.obs, windows.actions, windows.valid)
    agent.freeze_reference(0.0)
