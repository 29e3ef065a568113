"""Networks of equal size for methods that are compared: widths that give the same number of parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from serfn.core.spec import TaskSpec
from serfn.critics.base import CriticConfig
from serfn.critics.factory import make_critic
from serfn.policies.base import PolicyConfig
from serfn.policies.factory import make_policy
from serfn.training.config import TrainConfig

_WIDEST = 2048


def with_equal_size(config: TrainConfig, reference: TrainConfig, task: TaskSpec) -> TrainConfig:
    """Return `config` with the widths of policy and critic that come closest to the reference in parameters.

    A policy or critic without a `width`, such as the flow, and the critic of the reference stay as they are.

    Args:
        config: Configuration whose widths are chosen.
        reference: Configuration whose sizes are met.
        task: Sizes of observation and action.
    """
    policy: Any = config.policy
    if hasattr(policy, "width"):
        wanted = policy_parameters(reference.policy, task, reference.chunk_size)
        width = _closest_width(
            lambda width: policy_parameters(
                dataclasses.replace(policy, width=width), task, config.chunk_size
            ),
            wanted,
        )
        policy = dataclasses.replace(policy, width=width)
    critic: Any = config.critic
    if hasattr(critic, "width") and (critic, config.chunk_size) != (reference.critic, reference.chunk_size):
        wanted = critic_parameters(reference.critic, task, reference.chunk_size)
        width = _closest_width(
            lambda width: critic_parameters(
                dataclasses.replace(critic, width=width), task, config.chunk_size
            ),
            wanted,
        )
        critic = dataclasses.replace(critic, width=width)
    return dataclasses.replace(config, policy=policy, critic=critic)


def policy_parameters(config: PolicyConfig, task: TaskSpec, chunk_size: int) -> int:
    """Return the number of trained parameters of a policy."""
    return _count(make_policy(config, task.observation.dim, task.action.dim, chunk_size))


def critic_parameters(config: CriticConfig, task: TaskSpec, chunk_size: int) -> int:
    """Return the number of trained parameters of a critic."""
    dims = (task.observation.dim, task.action.dim, chunk_size)
    return _count(make_critic(config, *dims, generator=torch.Generator()))


def _closest_width(parameters: Callable[[int], int], wanted: int) -> int:
    """Return the width whose number of parameters, which grows with it, is closest to `wanted`."""
    low, high = 1, _WIDEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(middle) <= wanted else (low, middle)
    return min((low, high), key=lambda width: abs(parameters(width) - wanted))


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
