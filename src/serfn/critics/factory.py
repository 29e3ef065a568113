"""From a configuration to a critic."""

from __future__ import annotations

import torch

from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic, CriticConfig


def make_critic(
    config: CriticConfig, obs_dim: int, action_dim: int, chunk_size: int, *, generator: torch.Generator
) -> ChunkCritic:
    """Build the critic that `config` describes, on the CPU and in float32.

    Args:
        config: Architecture.
        obs_dim: Size of an observation.
        action_dim: Size of an action.
        chunk_size: Steps of a chunk.
        generator: Source of the initial weights.

    Raises:
        ConfigError: What `config` builds is no critic.
        ValueError: The architecture does not fit these sizes.
    """
    critic = config.build(obs_dim, action_dim, chunk_size, generator=generator)
    if not isinstance(critic, ChunkCritic):
        raise ConfigError(f"critic.type '{config.type}' builds a {type(critic).__name__}, not a ChunkCritic")
    return critic
