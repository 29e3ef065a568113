"""What one step of a Gymnasium environment means, for all who take one: rollouts, films, simulated robots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class StepResult:
    """What an environment returned for one action.

    Attributes:
        observation: `[obs]`, after the step.
        reward: Reward of the step.
        terminated: The task ended by itself.
        truncated: The episode ended from outside; False where it terminated too.
        success: Whether the task is solved; None if the environment does not say.
        metrics: Numbers of the task about the episode so far; None if the environment says nothing new.
        finite: Whether observation and reward are finite numbers. A simulation that diverged is a failure.
    """

    observation: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    success: bool | None
    metrics: Mapping[str, float] | None
    finite: bool


def read_step(returned: tuple[Any, Any, Any, Any, Mapping[str, Any]]) -> StepResult:
    """Return what `step` of an environment returned, with what its `info` says in our terms."""
    observation, reward, terminated, truncated, info = returned
    metrics = info.get("episode_metrics")
    return StepResult(
        observation=np.asarray(observation),
        reward=float(reward),
        terminated=bool(terminated),
        truncated=bool(truncated) and not terminated,
        success=success_of(info),
        metrics=None if metrics is None else {name: float(value) for name, value in metrics.items()},
        finite=math.isfinite(float(reward)) and bool(np.isfinite(observation).all()),
    )


def success_of(info: Mapping[str, Any]) -> bool | None:
    """Return what `info` says about success, under either of its usual names; None if it says nothing."""
    outcome = info.get("is_success", info.get("success"))
    return None if outcome is None else bool(outcome)
