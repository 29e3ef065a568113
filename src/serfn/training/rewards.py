"""The one place where rewards are scaled, so that every value has known bounds.

With step rewards in [-1, 1] multiplied by `1 - γ`, a discounted sum lies in [-1, 1] whatever the horizon. An
ending is an absorbing state whose every further step pays the same: its discounted sum is that payment
itself, which is added to the last reward with one more discount.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from serfn.core.errors import ConfigError
from serfn.data.episode import Episode


@dataclass(frozen=True)
class RewardConfig:
    """How a task's rewards become learning rewards ``r' = (1 - γ) · clip(scale · r, -1, 1)``.

    Attributes:
        scale: Factor that brings the task's step rewards into [-1, 1]; beyond, they are clipped. Set it for
            every task of your own: 1 over its largest reward.
        absorbing_success: Reward of every step after a termination with success, in [-1, 1]: success as an
            absorbing state. 1 where success ends an episode, else lingering pays more.
        absorbing_failure: Reward of every step after any other termination, in [-1, 1]; negative for what
            must not happen, such as a drop.

    Raises:
        ConfigError: A value is out of range.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "success_value": "absorbing_success",
        "failure_value": "absorbing_failure",
    }

    scale: float = 1.0
    absorbing_success: float = 0.0
    absorbing_failure: float = 0.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ConfigError(f"reward scale is {self.scale}; it must be above 0")
        for name in ("absorbing_success", "absorbing_failure"):
            if not -1 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}; it must lie in [-1, 1], as the step rewards do"
                )

    @property
    def value_bounds(self) -> tuple[float, float]:
        """Interval that contains every discounted sum of learning rewards."""
        return -1.0, 1.0


def learning_rewards(episode: Episode, config: RewardConfig, discount: float) -> Episode:
    """Return `episode` with learning rewards; the original keeps the task's.

    Args:
        episode: Episode with the rewards of the task.
        config: Scaling.
        discount: γ per control step.
    """
    rewards = (1 - discount) * np.clip(config.scale * episode.rewards.astype(np.float64), -1.0, 1.0)
    if episode.terminated:
        rewards[-1] += discount * (config.absorbing_success if episode.success else config.absorbing_failure)
    return dataclasses.replace(episode, rewards=rewards.astype(np.float32))
