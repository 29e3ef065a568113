"""What one side says about the quantities that another side knows too; see `serfn.core.agreement`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from serfn.core.config import to_dict
from serfn.core.rewards import RewardKind
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec

Place = Literal["train", "evaluate", "robot", "serve", "merge", "store", "resume"]
"""Where two sides meet: demonstrations and an environment, a policy and another environment, a policy and a
robot, a policy and a client, two stores, new episodes and a store, a checkpoint and its environment."""

Quantity = Literal[
    "control rate",
    "time limit",
    "observations",
    "observation names",
    "observation order",
    "observation units",
    "actions",
    "action names",
    "action units",
    "action bounds",
    "action scale",
    "image sizes",
    "chunk",
    "latency",
    "rewards",
    "bad episodes",
]


@dataclass(frozen=True)
class Finding:
    """One mismatch.

    Attributes:
        quantity: What was compared.
        text: Both values and the way out, in one sentence.
        refused: Whether it makes going on pointless.
    """

    quantity: Quantity
    text: str
    refused: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return a mapping that JSON can write."""
        return to_dict(self)


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side says; None, empty or 0 where it does not.

    Attributes:
        name: What it is, as it stands in a sentence, such as `environment 'Door-v1'`.
        control_hz: Control steps per second.
        time_limit: Longest episode in control steps.
        lengths: Control steps of each recorded episode.
        observation: Size, names and units of observations.
        action: Bounds, names and units of actions.
        used: Lowest and highest recorded action, `[2, action]`.
        accepts: Bounds of what may be commanded, where they are wider than those of `action`.
        guessed_order: Names of the parts of an observation whose order is a guess.
        images: Shape `(height, width, channels)` by camera.
        chunk_size: Control steps of a chunk.
        n_action_steps: Control steps executed of each chunk.
        lead_steps: Control steps between the observation and the first executed action.
        decision_s: Seconds that one decision takes.
        rewards: What its rewards look like.
    """

    name: str
    control_hz: float | None = None
    time_limit: int | None = None
    lengths: Sequence[int] = ()
    observation: ObservationSpec | None = None
    action: ActionSpec | None = None
    used: np.ndarray | None = None
    accepts: ActionSpec | None = None
    guessed_order: tuple[str, ...] = ()
    images: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    chunk_size: int | None = None
    n_action_steps: int | None = None
    lead_steps: int = 0
    decision_s: float | None = None
    rewards: RewardKind | None = None

    @classmethod
    def of_task(cls, name: str, task: TaskSpec, *, rate_known: bool = True) -> Side:
        """Return what a task's specification says; a rate that is only a default is left out."""
        return cls(
            name=name,
            control_hz=task.control_hz if rate_known else None,
            time_limit=task.max_episode_steps,
            observation=task.observation,
            action=task.action,
        )
