"""The one place where rewards are scaled, so that every value has known bounds.

With step rewards in [-1, 1] multiplied by `1 - γ`, a discounted sum lies in [-1, 1] whatever the horizon. An
ending is an absorbing state whose every further step pays the same: its discounted sum is that payment
itself, which is added to the last reward with one more discount.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from serfn.core.errors import ConfigError
from serfn.data.episode import Episode


@dataclass(frozen=True)
class RewardConfig:
    """How a task's rewards become learning rewards ``r' = (1 - γ) · clip(scale · r, -1, 1)``.

    Attributes:
        scale: Factor that brings the task's step rewards into [-1, 1]; beyond, they are clipped.
        success_value: What every step after a termination with success would pay, in [-1, 1].
        failure_value: What every step after any other termination would pay, in [-1, 1].

    Raises:
        ConfigError: A value is out of range.
    """

    scale: float = 1.0
    success_value: float = 0.0
    failure_value: float = 0.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ConfigError(f"reward scale is {self.scale}; it must be above 0")
        for name in ("success_value", "failure_value"):
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
        rewards[-1] += discount * (config.success_value if episode.success else config.failure_value)
    return dataclasses.replace(episode, rewards=rewards.astype(np.float32))
