"""The configuration of a session on a robot: everything besides the policy and the limits file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from serfn.core.errors import ConfigError
from serfn.robot.budget import InteractionBudget
from serfn.robot.chunk_buffer import ExecutionConfig
from serfn.sessions.promotion import PromotionConfig

LearnerPlace = Literal["none", "inline", "process", "elsewhere"]
ResetMode = Literal["scene", "person", "none"]


@dataclass(frozen=True)
class LearningConfig:
    """How the policy is fine-tuned beside the robot.

    Attributes:
        place: `none` only evaluates; `inline` learns in the robot's process while the robot rests between
            rounds; `process` in a second process of this machine, while the robot goes on; `elsewhere` leaves
            the learner to a cluster or to another terminal.
        episodes_per_round: Episodes between two publications of weights; inline, episodes between updates.
        updates_per_episode: Critic updates for each episode; as many as the learner does while one runs.
        policy_delay_rounds: First rounds in which only the critic learns; raise it if the policy gets worse
            as soon as it moves.

    Raises:
        ConfigError: A number is out of range.
    """

    place: LearnerPlace = "process"
    episodes_per_round: int = 2
    updates_per_episode: int = 200
    policy_delay_rounds: int = 1

    def __post_init__(self) -> None:
        for name in ("episodes_per_round", "updates_per_episode"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.policy_delay_rounds < 0:
            raise ConfigError(f"policy_delay_rounds is {self.policy_delay_rounds}; it must be 0 or more")


@dataclass(frozen=True)
class LikelihoodGateConfig:
    """What happens to a chunk that the policy of the session's start finds implausible.

    Attributes:
        action: `off` does not look; `flag` executes and marks it; `resample` draws again and `refuse` holds.
        slack: How far below the least likely demonstrated chunks (5 %) a chunk may lie, in nats per action
            dimension: fine-tuning moves the policy. Raise it where good chunks are flagged.

    Raises:
        ConfigError: A number is out of range.
    """

    action: Literal["off", "flag", "resample", "refuse"] = "flag"
    slack: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.slack < math.inf:
            raise ConfigError(f"slack is {self.slack}; it must be 0 or more")


@dataclass(frozen=True)
class RobotRunConfig:
    """One session on a robot.

    Attributes:
        robot: Which robot, such as `simulated:cube`, `gymnasium:Pendulum-v1` or `orca`.
        robot_options: Options of its adapter.
        limits: Limits file; None takes the robot's own bounds, which only a simulation should do.
        reward: Judge of each step: a registered one, or `package.module:Class` or function; None takes the
            robot if it judges.
        workspace: `package.module:function` that brings wanted positions into the task's workspace.
        task: Instruction or name of the task, recorded with every episode.
        control_hz: Commands per second; None is what the robot is meant for.
        episode_s: Time limit of an episode in seconds; None is that of the policy's task.
        execution: How chunks are executed.
        candidates: Chunks to choose from; None as in training. 1 acts without a critic, and faster.
        temperature: Temperature of sampling; None as in training. Lower it for less random motion.
        n_action_steps: Steps executed of each chunk; None as in training. Fewer replan more often.
        reset: Who puts the scene back: the robot by itself, a person who confirms, or nobody.
        rest_s: Rest between episodes, in which the motors cool.
        budget: Limits of the interaction.
        learning: How the policy is fine-tuned.
        promotion: Which weights may reach the robot.
        gate: Which chunks are flagged, drawn again or refused for their likelihood.
        real_time: Ask the operating system for real-time priority of control and inference.
        seed: Seed of resets, sampling and probes.

    Raises:
        ConfigError: A value is out of range.
    """

    robot: str = "simulated:cube"
    robot_options: dict[str, Any] = field(default_factory=dict)
    limits: Path | None = None
    reward: str | None = None
    workspace: str | None = None
    task: str = ""
    control_hz: float | None = None
    episode_s: float | None = None
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    candidates: int | None = None
    temperature: float | None = None
    n_action_steps: int | None = None
    reset: ResetMode = "scene"
    rest_s: float = 0.0
    budget: InteractionBudget = field(default_factory=InteractionBudget)
    learning: LearningConfig = field(default_factory=LearningConfig)
    promotion: PromotionConfig = field(default_factory=PromotionConfig)
    gate: LikelihoodGateConfig = field(default_factory=LikelihoodGateConfig)
    real_time: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.robot:
            raise ConfigError("the robot has no name; give one, such as simulated:cube")
        for name in ("control_hz", "episode_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; it must be positive and finite")
        if not 0 <= self.rest_s < math.inf:
            raise ConfigError(f"rest_s is {self.rest_s}; it must be 0 or more")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more")
