"""What the stages share: the loop of updates with its guards, the gate at the end, and their order."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal

from serfn.core.errors import AbortedEpisodesError, ConfigError
from serfn.training.acting import ActingConfig
from serfn.training.gate import GateDecision, Score, decide
from serfn.training.holdout import Holdout
from serfn.training.losses import Metrics
from serfn.training.stages.context import Evaluate, StageContext, TrainingDivergedError
from serfn.training.stages.state import StageName, StageState, Tree

Schedule = Literal["constant", "cosine"]

POLICY_EVERY = 3
"""Critic updates per policy update, as in TD3 with one more: the policy follows values that have settled."""

MAX_SKIPPED = 20
"""Non-finite updates in a row after which the last sound state is restored."""

MAX_ROLLBACKS = 3
"""Restorations per stage after which training gives up."""

_COSINE_FLOOR = 0.05


class Stage(ABC):
    """One stage of the method; all that changes while it runs is in the context, so it can be resumed."""

    name: ClassVar[StageName]

    @property
    @abstractmethod
    def acting(self) -> ActingConfig | None:
        """How the policy acts in the stage's evaluation; None for a stage that leaves the policy as it is."""

    @property
    @abstractmethod
    def total_updates(self) -> int:
        """Number of updates, for progress bars."""

    @abstractmethod
    def begin(self, ctx: StageContext) -> None:
        """Set the agent up; called once per stage, not again on a resume."""

    @abstractmethod
    def train(self, ctx: StageContext) -> None:
        """Run the updates that remain."""


def run_stages(stages: Sequence[Stage], ctx: StageContext) -> None:
    """Run `stages` in order, from where `ctx.state` stands.

    Raises:
        KeyboardInterrupt: The user asked to stop; a checkpoint has been written unless an update was torn
            apart, in which case the one before it counts.
        TrainingDivergedError: Updates stay non-finite.
        ConfigError: The state stands in a stage that is not among `stages`.
    """
    names = [stage.name for stage in stages]
    state = ctx.state
    first = 0
    if state.begun:
        if state.stage not in names:
            raise ConfigError(f"the run stands in stage '{state.stage}', not among {names}; include it")
        first = names.index(state.stage) + state.data.concluded
    for stage in stages[first:]:
        if state.stage != stage.name or state.data.concluded:
            state.enter(stage.name)
        _run_stage(stage, ctx)


def run_updates(
    ctx: StageContext,
    until: int,
    update: Callable[[int], Metrics],
    on_report: Callable[[dict[str, float]], None] = lambda means: None,
) -> None:
    """Do the updates of a stage up to number `until`, with reports, guards and checkpoints between them.

    Args:
        ctx: Context; `ctx.state.step` says how many updates are done.
        until: Number of updates of the stage after which to return.
        update: Does the update of the given number and returns its metrics.
        on_report: Looks at the means of a report, for alarms.

    Raises:
        KeyboardInterrupt: `ctx.hooks.should_stop` asked for it; a checkpoint has been written.
        TrainingDivergedError: More than `MAX_ROLLBACKS` returns to a sound state did not help.
    """
    state, loop = ctx.state, ctx.loop
    while state.step < until:
        if ctx.hooks.should_stop():
            checkpoint(ctx)
            raise KeyboardInterrupt
        state.averages.add(update(state.step))
        state.step += 1
        state.updates += 1
        if state.step % loop.report_every == 0 or state.step == until:
            _restore_after_non_finite(ctx)
            means = state.averages.pop()
            ctx.hooks.report(means)
            on_report(means)
            if state.step % loop.checkpoint_every == 0 or state.step == until:
                checkpoint(ctx)


def checkpoint(ctx: StageContext, *, best: bool = False) -> None:
    """Write a checkpoint and, if the last updates were sound, remember the state as safe to return to."""
    if ctx.agent.skipped_in_a_row == 0:
        ctx.safe_state = copy.deepcopy(ctx.agent.learning_state())
    ctx.hooks.save(best)


def roll_back_policy(ctx: StageContext, policy_state: Tree, reason: str) -> None:
    """Return the policy to an earlier state and record why; critic, replay and noise go on."""
    ctx.agent.load_policy_state(policy_state)
    best = None if ctx.state.best is None else ctx.state.best.mean
    ctx.state.gates.append(GateDecision(ctx.state.stage, False, f"rolled back: {reason}", None, best))
    ctx.hooks.note(f"{ctx.state.stage}: policy rolled back at update {ctx.state.step}: {reason}")


@contextmanager
def checkpoint_on_interrupt(ctx: StageContext) -> Generator[None]:
    """Checkpoint before a callback's interrupt, or failing environment, ends the run.

    That is exact, as callbacks leave agent and state alone.
    """
    try:
        yield
    except (KeyboardInterrupt, AbortedEpisodesError):
        checkpoint(ctx)
        raise


def scheduled_rate(schedule: Schedule, peak: float, step: int, steps: int) -> float:
    """Return the learning rate of update `step` of `steps`; `cosine` decays from `peak` to a twentieth."""
    if schedule == "constant":
        return peak
    return peak * (_COSINE_FLOOR + (1 - _COSINE_FLOOR) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def check_steps(**values: float) -> None:
    """Raise `ConfigError` unless all values are above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{name} is {value}; it must be above 0")


def _run_stage(stage: Stage, ctx: StageContext) -> None:
    state = ctx.state
    ctx.hooks.started(stage.name, stage.total_updates)
    if not state.begun:
        stage.begin(ctx)
        state.begun = True
        checkpoint(ctx)
    stage.train(ctx)
    if stage.acting is not None and ctx.evaluate is not None:
        _pass_gate(stage.acting, ctx.evaluate, ctx)
    elif stage.acting is not None and ctx.holdout is not None:
        _pass_holdout(ctx.holdout, ctx)
    else:
        state.data = StageState(concluded=True)
        checkpoint(ctx)
    ctx.hooks.finished(stage.name)


def _pass_gate(acting: ActingConfig, evaluate: Evaluate, ctx: StageContext) -> None:
    state = ctx.state
    with checkpoint_on_interrupt(ctx):
        chosen = acting.changed(candidates=state.data.candidates)
        result = evaluate(ctx.actor(chosen), stage=state.stage, final=True)
    if ctx.demonstrations.num_imitable_steps > 0 and not result.success_rate:
        told = (
            "none of {} evaluation episodes does"
            if result.success_rate == 0
            else ("the environment tells it of none of {} evaluation episodes")
        )
        ctx.hooks.alarm(
            f"demonstrations succeed, {told.format(len(result.successes))}: look at the time limit, success "
            "rule, control rate and plant of the environment, and at imitation's loss"
        )
    score = Score.of(result.scores)
    decision = decide(state.stage, score, state.best)
    state.gates.append(decision)
    state.data = StageState(concluded=True, candidates=state.data.candidates)
    if decision.promoted:
        state.best = score
        ctx.best_policy = ctx.agent.policy_state()
    elif ctx.enforce_gates and ctx.best_policy is not None:
        ctx.agent.load_policy_state(ctx.best_policy)
    ctx.hooks.note(f"{state.stage}: {'promoted' if decision.promoted else 'not promoted'}, {decision.reason}")
    checkpoint(ctx, best=decision.promoted)


def _pass_holdout(holdout: Holdout, ctx: StageContext) -> None:
    """Judge the policy on held-out episodes: what shows harm is not promoted."""
    state = ctx.state
    figures = holdout.figures(ctx.agent)
    if ctx.best_policy is None:
        harm, reason = None, f"first policy, {figures.imitation_words}"
    else:
        harm = figures.harm
        reason = f"{harm or 'no evidence of harm'}, {figures.words}"
    state.gates.append(GateDecision(state.stage, harm is None, reason, None, None))
    state.data = StageState(concluded=True)
    if harm is None:
        ctx.best_policy = ctx.agent.policy_state()
    elif ctx.enforce_gates and ctx.best_policy is not None:
        ctx.agent.load_policy_state(ctx.best_policy)
    ctx.hooks.note(f"{state.stage}: {'promoted' if harm is None else 'not promoted'}, {reason}")
    checkpoint(ctx, best=harm is None)


def _restore_after_non_finite(ctx: StageContext) -> None:
    """Return to the last safe state after a run of updates whose loss or gradient was not finite."""
    skipped = ctx.agent.skipped_in_a_row
    if skipped < MAX_SKIPPED:
        return
    state = ctx.state
    rollbacks = state.data.rollbacks + 1
    if ctx.safe_state is None or rollbacks > MAX_ROLLBACKS:
        raise TrainingDivergedError(
            f"{state.stage}: {skipped} updates in a row are not finite at update {state.step}, "
            f"after {rollbacks - 1} returns to the last good state; "
            "lower the learning rate or look for extreme values in the data"
        )
    # The noise is not rewound: the same draws would lead to the same place.
    ctx.agent.load_learning_state(ctx.safe_state)
    state.data.rollbacks = rollbacks
    best = None if state.best is None else state.best.mean
    reason = f"rolled back: {skipped} updates in a row were not finite"
    state.gates.append(GateDecision(state.stage, False, reason, None, best))
    ctx.hooks.note(f"{state.stage}: {reason} at update {state.step}")
