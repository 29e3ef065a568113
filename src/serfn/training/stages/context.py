"""What a stage works on: the run's state, and the callbacks by which the world reaches the learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from serfn.core.errors import ConfigError, SerfnError
from serfn.core.results import EvaluationResult
from serfn.core.spec import TaskSpec
from serfn.critics.base import ChunkCritic
from serfn.data.episode import Episode
from serfn.data.replay import ChunkReplay, WindowStarts, mixed_batch
from serfn.training.acting import ActingConfig, BestOfNActor
from serfn.training.agent import Agent
from serfn.training.batch import TensorBatch
from serfn.training.holdout import Holdout
from serfn.training.stages.state import RunState, StageName, Tree


class TrainingDivergedError(SerfnError):
    """Updates stay non-finite although the last good state was restored."""


@dataclass(frozen=True)
class LoopConfig:
    """Rhythm of reports and checkpoints, common to all stages.

    Attributes:
        report_every: Updates between two rows of metrics; guards and alarms are looked at then. Lower it for
            finer curves.
        checkpoint_every: Updates between two checkpoints, a multiple of `report_every`. Lower it where a kill
            must cost less work.

    Raises:
        ConfigError: A number is below 1, or the two rhythms do not fit.
    """

    report_every: int = 100
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("report_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.checkpoint_every % self.report_every:
            raise ConfigError(
                f"checkpoint_every {self.checkpoint_every} is no multiple of report_every "
                f"{self.report_every}; a checkpoint closes a report"
            )


class Evaluate(Protocol):
    """Runs evaluation episodes and records their outcome."""

    def __call__(self, actor: BestOfNActor, *, stage: StageName, final: bool) -> EvaluationResult:
        """Evaluate `actor`; `final` asks for the full number of episodes."""
        ...


class Collect(Protocol):
    """Runs training episodes on the robot or its stand-in."""

    def __call__(self, actor: BestOfNActor, episodes: int, first_episode: int) -> Sequence[Episode]:
        """Collect `episodes`; the first is number `first_episode` of the run, which seeds it.

        Episodes that were aborted are missing from what is returned.
        """
        ...


@dataclass(frozen=True)
class Hooks:
    """How a stage talks to its surroundings.

    Attributes:
        report: Takes the mean metrics of the updates since the last report.
        save: Writes a checkpoint; True marks the agent as the best one.
        started: Takes the name of a stage and its number of updates when it begins or is resumed.
        finished: Takes the name of a stage when it is over.
        note: Takes one sentence for the user.
        alarm: Takes one sentence about something suspicious, to be shown and kept with the run.
        should_stop: Asked between updates; True ends the run after a checkpoint.
        keep_episodes: Stores the episodes of an online round durably, before anything is learnt from them.
    """

    report: Callable[[dict[str, float]], None]
    save: Callable[[bool], None]
    started: Callable[[StageName, int], None] = lambda name, updates: None
    finished: Callable[[StageName], None] = lambda name: None
    note: Callable[[str], None] = lambda text: None
    alarm: Callable[[str], None] = lambda text: None
    should_stop: Callable[[], bool] = lambda: False
    keep_episodes: Callable[[int, Sequence[Episode]], object] = lambda round_index, episodes: None


@dataclass
class StageContext:
    """Everything a stage needs.

    Attributes:
        agent: The learner.
        demonstrations: Windows of the demonstrations, with learning rewards.
        online: Windows of the online episodes, with learning rewards.
        rng: Source of the draws from replay.
        task: What is being learnt.
        loop: Rhythm of reports and checkpoints.
        state: The run's state.
        hooks: Reports, checkpoints and messages.
        best_policy: `Agent.policy_state` of the best promoted policy; None before the first promotion.
        safe_state: `Agent.learning_state` that non-finite updates fall back to.
        evaluate: Evaluation callback; None skips evaluations and gates.
        collect: Collection callback; the online stage needs it.
        enforce_gates: Return to the best policy when a stage is not promoted.
        holdout: Recorded episodes that nothing is learnt from, by which policies are judged where nobody
            evaluates; None judges nothing then.
        to_learning: Turns a collected episode into one with learning rewards.
    """

    agent: Agent
    demonstrations: ChunkReplay
    online: ChunkReplay
    rng: np.random.Generator
    task: TaskSpec
    loop: LoopConfig
    state: RunState
    hooks: Hooks
    best_policy: Tree | None = None
    safe_state: Tree | None = None
    evaluate: Evaluate | None = None
    collect: Collect | None = None
    enforce_gates: bool = True
    holdout: Holdout | None = None
    to_learning: Callable[[Episode], Episode] = lambda episode: episode

    def actor(self, acting: ActingConfig) -> BestOfNActor:
        """Return an actor over the agent's present policy and critic."""
        critic: ChunkCritic | None = self.agent.critic if acting.candidates > 1 else None
        return BestOfNActor(self.agent.policy, critic, self.task, acting)

    def demonstration_batch(self, size: int, successes_only: bool = False) -> TensorBatch:
        """Draw demonstrations for one update, those that succeed if asked for and there are any."""
        windows = self.agent.critic.needs_window_observations
        starts = "imitable" if successes_only and self.demonstrations.num_imitable_steps > 0 else "all"
        batch = self.demonstrations.sample(size, self.rng, starts=starts, window_observations=windows)
        return self.agent.tensors(batch)

    def mixed_batch(
        self, size: int, online_fraction: float, online_starts: WindowStarts = "all"
    ) -> TensorBatch:
        """Draw demonstrations and online data in a fixed proportion for one update.

        Where a person did everything the policy never replanned; then any online window may be drawn.
        """
        if online_starts == "replans" and self.online.num_replans == 0:
            online_starts = "all"
        batch = mixed_batch(
            self.demonstrations,
            self.online,
            size,
            online_fraction,
            self.rng,
            online_starts=online_starts,
            window_observations=self.agent.critic.needs_window_observations,
        )
        return self.agent.tensors(batch)
