"""What a resumed run must know besides the agent and the replay, written to checkpoints and read strictly."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import CheckpointError, ConfigError
from serfn.training.evidence import Trial
from serfn.training.gate import GateDecision, Score
from serfn.training.metrics import MetricAverages

StageName = Literal["imitation", "critic_warmup", "offline", "online"]
STAGES: tuple[StageName, ...] = ("imitation", "critic_warmup", "offline", "online")

Tree = dict[str, Any]
"""Nested dictionaries with string keys; leaves are tensors or values that JSON can write."""


@dataclass
class StageState:
    """What every stage remembers while it runs.

    Attributes:
        concluded: The stage is over, its gate included.
        rollbacks: Returns to the last safe state after non-finite updates.
        candidates: Chunks among which the evaluated policy chooses, where the stage found out; None leaves
            that to the configuration.
    """

    concluded: bool = False
    rollbacks: int = 0
    candidates: int | None = None


@dataclass
class ImitationState(StageState):
    """State of the imitation stage.

    Attributes:
        evaluated: The interim evaluation has been done.
        best_policy: `Agent.policy_state` of the policy that finds held-out episodes likeliest; None without
            held-out episodes.
        best_nll: Their NLL per dimension under it.
        best_step: Updates after which it was looked at.
    """

    evaluated: bool = False
    best_policy: Tree | None = None
    best_nll: float | None = None
    best_step: int = 0


@dataclass(kw_only=True)
class OnlineState(StageState):
    """State of the online stage.

    Attributes:
        sound_policy: `Agent.policy_state` of the policy that collected the last round without too many
            failures.
        best_policy: `Agent.policy_state` of the best evaluated policy, that at the stage's start included.
        best_critic: Weights of the critic that chose for it.
        best_score: Its score; None before the first evaluation.
        best_candidates: Chunks among which it chose.
        trials: What each round says of the critic's choice, where it must show that it helps.
        evaluations: Evaluations so far.
        rounds: Rounds collected.
        closed: Rounds whose updates are done and that were evaluated if due.
        usual_failures: Failures of each round before the policy moved.
        recent_failures: Failures of the latest rounds after that.
        outside: The policy's values were outside their bounds at the last report.
    """

    sound_policy: Tree
    best_policy: Tree
    best_critic: Tree
    best_score: Score | None = None
    best_candidates: int | None = None
    trials: tuple[Trial, ...] = ()
    evaluations: int = 0
    rounds: int = 0
    closed: int = 0
    usual_failures: tuple[int, ...] = ()
    recent_failures: tuple[int, ...] = ()
    outside: bool = False


_KINDS: dict[str, type[StageState]] = {
    "stage": StageState,
    "imitation": ImitationState,
    "online": OnlineState,
}


@dataclass
class RunState:
    """Everything besides the agent and the replay that a resumed run must know.

    Attributes:
        stage: Stage at work.
        step: Updates done in this stage.
        begun: Whether the stage has been set up.
        updates: Updates done in the run.
        episodes: Online episodes run so far, those that the environment aborted included.
        robot_steps: Control steps of those that ended.
        data: State of the stage's own.
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
    data: StageState = field(default_factory=StageState)
    seconds: dict[str, float] = field(default_factory=dict)
    gates: list[GateDecision] = field(default_factory=list)
    best: Score | None = None
    averages: MetricAverages = field(default_factory=MetricAverages)

    def enter(self, stage: StageName) -> None:
        """Start `stage` from its beginning."""
        self.stage, self.step, self.begun, self.data = stage, 0, False, StageState()
        self.averages = MetricAverages()

    @property
    def online(self) -> OnlineState:
        """State of the online stage, which must be at work.

        Raises:
            CheckpointError: Another stage is.
        """
        if not isinstance(self.data, OnlineState):
            raise CheckpointError(f"the run is in stage '{self.stage}', which has no rounds; begin 'online'")
        return self.data

    def state_dict(self) -> Tree:
        """Return all fields as a tree of plain values and tensors."""
        kind = next(name for name, cls in _KINDS.items() if type(self.data) is cls)
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "data": {"kind": kind, **to_dict(self.data)},
            "gates": [gate.to_dict() for gate in self.gates],
            "best": None if self.best is None else self.best.to_dict(),
            "averages": self.averages.state_dict(),
        }

    @classmethod
    def from_state_dict(cls, state: Tree) -> RunState:
        """Inverse of `state_dict`.

        Raises:
            CheckpointError: Something is missing, unknown or of another type.
        """
        names = {item.name for item in dataclasses.fields(cls)}
        if state.keys() != names:
            wrong = ", ".join(sorted(state.keys() ^ names))
            raise CheckpointError(
                f"the checkpoint's run state does not match this serfn in: {wrong}; resume with the serfn "
                "that wrote it"
            )
        averages = MetricAverages()
        averages.load_state_dict(state["averages"])
        try:
            run = from_dict(
                cls, {name: value for name, value in state.items() if name in _PLAIN}, "run state"
            )
            run.best = None if state["best"] is None else from_dict(Score, state["best"], "best")
            run.gates = [GateDecision.from_dict(gate) for gate in state["gates"]]
            run.data = _stage_state(state["data"])
        except ConfigError as error:
            raise CheckpointError(f"the checkpoint is not of this serfn: {error}") from error
        run.averages = averages
        return run


_PLAIN = ("stage", "step", "begun", "updates", "episodes", "robot_steps", "seconds")
"""Fields of `RunState` that are plain values."""


def _stage_state(tree: Tree) -> StageState:
    values = dict(tree)
    kind = values.pop("kind", None)
    if kind not in _KINDS:
        raise ConfigError(f"data.kind is {kind!r}; this serfn knows {', '.join(_KINDS)}")
    return from_dict(_KINDS[kind], values, "data")
