"""What a stage works on: the run's state, and the callbacks by which the world reaches the learner."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

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
from serfn.training.gate import GateDecision, Score
from serfn.training.metrics import MetricAverages

StageName = Literal["imitation", "critic_warmup", "offline", "online"]
STAGES: tuple[StageName, ...] = ("imitation", "critic_warmup", "offline", "online")

Tree = dict[str, Any]


class TrainingDivergedError(SerfnError):
    """Updates stay non-finite although the last good state was restored."""


@dataclass(frozen=True)
class LoopConfig:
    """Rhythm of reports, checkpoints and guards, common to all stages.

    Attributes:
        report_every: Updates between two rows of metrics; guards and alarms are looked at then.
        checkpoint_every: Updates between two checkpoints, a multiple of `report_every`.
        max_skipped: Non-finite updates in a row after which the last good state is restored.
        max_rollbacks: Restorations per stage after which training gives up.

    Raises:
        ConfigError: A number is below 1, or the two rhythms do not fit.
    """

    report_every: int = 100
    checkpoint_every: int = 1000
    max_skipped: int = 20
    max_rollbacks: int = 3

    def __post_init__(self) -> None:
        for name in ("report_every", "checkpoint_every", "max_skipped", "max_rollbacks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.checkpoint_every % self.report_every:
            raise ConfigError(
                f"checkpoint_every {self.checkpoint_every} is no multiple of report_every "
                f"{self.report_every}; a checkpoint closes a report"
            )


@dataclass
class RunState:
    """Everything besides the agent and the replay that a resumed run must know.

    Attributes:
        stage: Stage at work.
        step: Updates done in this stage.
        begun: Whether the stage has been set up.
        updates: Updates done in the run.
        episodes: Online episodes collected in the run.
        robot_steps: Control steps of those episodes.
        stage_data: Values of the stage's own, plain or tensors.
        seconds: Wall-clock seconds spent per stage.
        gates: Decisions so far, oldest first.
        best: Score of the best promoted policy.
        averages: Metrics since the last report.
    """

    stage: StageName = "imitation"
    step: int = 0
    begun: bool = False
    updates: int = 0
    episodes: int = 0
    robot_steps: int = 0
    stage_data: Tree = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    gates: list[GateDecision] = field(default_factory=list)
    best: Score | None = None
    averages: MetricAverages = field(default_factory=MetricAverages)

    def enter(self, stage: StageName) -> None:
        """Start `stage` from its beginning."""
        self.stage, self.step, self.begun, self.stage_data = stage, 0, False, {}
        self.averages = MetricAverages()

    def state_dict(self) -> Tree:
        """Return all fields as a tree of plain values and tensors."""
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {
            **plain,
            "gates": [gate.to_dict() for gate in self.gates],
            "best": None if self.best is None else dataclasses.asdict(self.best),
            "averages": self.averages.state_dict(),
        }

    @classmethod
    def from_state_dict(cls, state: Tree) -> RunState:
        """Inverse of `state_dict`."""
        averages = MetricAverages()
        averages.load_state_dict(state["averages"])
        return cls(
            **{
                **state,
                "gates": [GateDecision.from_dict(gate) for gate in state["gates"]],
                "best": None if state["best"] is None else Score(**state["best"]),
                "averages": averages,
            }
        )


class Evaluate(Protocol):
    """Runs evaluation episodes and records their outcome."""

    def __call__(self, actor: BestOfNActor, *, stage: StageName, final: bool) -> EvaluationResult:
        """Evaluate `actor`; `final` asks for the full number of episodes."""
        ...


class Collect(Protocol):
    """Runs training episodes on the robot or its stand-in."""

    def __call__(self, actor: BestOfNActor, episodes: int, first_episode: int) -> Sequence[Episode]:
        """Collect `episodes`; the first is number `first_episode` of the run, which seeds it."""
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
        prior: Demonstrations, with learning rewards.
        online: Own experience, with learning rewards.
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
        to_learning: Turns a collected episode into one with learning rewards.
    """

    agent: Agent
    prior: ChunkReplay
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
    to_learning: Callable[[Episode], Episode] = lambda episode: episode

    def actor(self, acting: ActingConfig) -> BestOfNActor:
        """Return an actor over the agent's present policy and critic."""
        critic: ChunkCritic | None = self.agent.critic if acting.candidates > 1 else None
        return BestOfNActor(self.agent.policy, critic, self.task, acting, how=self.agent.config.aggregate)

    def prior_batch(self, size: int, successes_only: bool = False) -> TensorBatch:
        """Draw demonstrations for one update, those that succeed if asked for and there are any."""
        windows = self.agent.critic.needs_window_observations
        starts = "imitable" if successes_only and self.prior.num_imitable_steps > 0 else "all"
        batch = self.prior.sample(size, self.rng, starts=starts, window_observations=windows)
        return self.agent.tensors(batch)

    def mixed_batch(
        self, size: int, online_fraction: float, online_starts: WindowStarts = "all"
    ) -> TensorBatch:
        """Draw demonstrations and own experience in a fixed proportion for one update.

        Where a person did everything nothing was decided; then any own window may be drawn.
        """
        if online_starts == "decisions" and self.online.num_decisions == 0:
            online_starts = "all"
        batch = mixed_batch(
            self.prior,
            self.online,
            size,
            online_fraction,
            self.rng,
            online_starts=online_starts,
            window_observations=self.agent.critic.needs_window_observations,
        )
        return self.agent.tensors(batch)
