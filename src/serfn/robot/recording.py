"""What the control loop records: exactly what was executed, step by step, handed to a sink.

The records hold plain arrays. `runtime` turns them into the episodes of the experience store; the robot layer
knows neither the store nor its files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

EndReason = Literal[
    "terminated",
    "time_limit",
    "success",
    "failure",
    "discard",
    "paused",
    "operator_stop",
    "fault",
    "interrupted",
]


@dataclass(frozen=True)
class EpisodeHeader:
    """What is known when an episode begins.

    Attributes:
        index: Number of the episode in this session, from 0.
        robot: Name of the robot.
        task: Instruction or name of the task; may be empty.
        seed: Seed of the scene's reset, if there was one.
        policy_version: Number of the policy that acts at the start.
    """

    index: int
    robot: str
    task: str = ""
    seed: int | None = None
    policy_version: int = 0


@dataclass(frozen=True, eq=False)
class StepRecord:
    """One control step: what was seen, wanted and done.

    Attributes:
        step: Number of the step, from 0.
        time_s: Time of the observation since the start of the episode.
        observation: `[obs]` float32.
        images: Images `[height, width, channels]` uint8 by key.
        action: `[action]` float32, as executed: after the supervisor, as the robot says it was sent.
        proposed: `[action]` float32, what the policy asked for, also while a person acts; the executed action
            where the policy had nothing finite to propose.
        reward: Reward of the step.
        chunk_start: A new chunk, a person or a hold began here: the critic's chunks may start here.
        intervention: A person acted.
        safety: Bits of `serfn.robot.safety.Intervention`: what the supervisor changed, 0 if nothing.
        policy_version: Number of the policy that the executed chunk came from.
        stage: Last stage label of the operator, 0 before the first.
    """

    step: int
    time_s: float
    observation: np.ndarray
    action: np.ndarray
    proposed: np.ndarray
    reward: float
    chunk_start: bool
    intervention: bool
    safety: int
    policy_version: int
    stage: int = 0
    images: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class EpisodeEnding:
    """How an episode ended, with the observation after its last step.

    Attributes:
        reason: Why; `fault` and `operator_stop` come from the supervisor's latch.
        detail: One line for people.
        terminated: The task ended by itself; never set together with a cut from outside.
        truncated: The recording was cut: time limit, operator, fault.
        success: Whether the task was solved; None if nobody said.
        success_source: `referee` or `operator`; None if nobody said.
        time_s: Time of the terminal observation since the start of the episode.
        observation: `[obs]` float32.
        images: Terminal images by key.
        metrics: Numbers of the task about the episode.
        keep: False if a person discarded the episode.
    """

    reason: EndReason
    detail: str
    terminated: bool
    truncated: bool
    success: bool | None
    success_source: str | None
    time_s: float
    observation: np.ndarray
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    keep: bool = True


class EpisodeSink(Protocol):
    """Takes the records of one episode after the other: `begin`, then `step` for each, then `end`.

    The loop calls it from the control thread unless it is wrapped in `QueuedSink`; a sink that touches disk
    or network must be wrapped. An exception ends the episode as a fault.
    """

    def begin(self, header: EpisodeHeader) -> None:
        """An episode begins."""
        ...

    def step(self, record: StepRecord) -> None:
        """One step was executed; its arrays belong to the sink and will not change."""
        ...

    def end(self, ending: EpisodeEnding) -> None:
        """The episode is over; returning means that it is safe with the sink."""
        ...
