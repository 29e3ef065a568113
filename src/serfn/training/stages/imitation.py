"""Stage 1: maximise the likelihood of demonstrated chunks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from serfn.core.errors import ConfigError
from serfn.training.acting import ActingConfig
from serfn.training.losses import Metrics
from serfn.training.stages.base import (
    Stage,
    check_steps,
    checkpoint,
    checkpoint_on_interrupt,
    run_updates,
    scheduled_rate,
)
from serfn.training.stages.context import StageContext
from serfn.training.stages.state import ImitationState, StageName


@dataclass(frozen=True)
class ImitationConfig:
    """Imitation.

    Attributes:
        steps: Updates. More for many demonstrations; compare the evaluation after the stage.
        batch_size: Chunks per update; more on a GPU.
        learning_rate: Learning rate at the start, from which it decays. Lower it if the loss is not finite.
        successes_only: Imitate the demonstrations that succeed; the others still teach the critic. Set it if
            some of yours fail. Without effect where none succeeds or the task does not tell.
        acting: How the policy acts in the evaluation; there is no critic yet, so with one candidate.

    Raises:
        ConfigError: A number is not positive, or the evaluation asks for a critic.
    """

    steps: int = 2000
    batch_size: int = 256
    learning_rate: float = 1e-3
    successes_only: bool = False
    acting: ActingConfig = field(default_factory=lambda: ActingConfig(candidates=1))

    def __post_init__(self) -> None:
        check_steps(steps=self.steps, batch_size=self.batch_size, learning_rate=self.learning_rate)
        if self.acting.candidates != 1:
            raise ConfigError(
                f"acting.candidates of imitation is {self.acting.candidates}; no critic is trained yet, use 1"
            )


class Imitation(Stage):
    """Maximum likelihood on the demonstrations.

    Args:
        config: What the stage does.
        evaluate_interim: Also evaluate the policy on the seeds of the online stage's interim evaluations, so
            that these are compared with imitation on equal terms.
    """

    name: ClassVar[StageName] = "imitation"

    def __init__(self, config: ImitationConfig, *, evaluate_interim: bool = False) -> None:
        self.config = config
        self._evaluate_interim = evaluate_interim

    @property
    def acting(self) -> ActingConfig:
        """One sample, at the configured temperature."""
        return self.config.acting

    @property
    def total_updates(self) -> int:
        """Number of updates."""
        return self.config.steps

    def begin(self, ctx: StageContext) -> None:
        """Only the stage's own state: statistics are fitted when the agent is built."""
        ctx.state.data = ImitationState()

    def train(self, ctx: StageContext) -> None:
        """Run the updates that remain, then the interim evaluation."""
        config, agent = self.config, ctx.agent

        def update(step: int) -> Metrics:
            agent.set_policy_learning_rate(scheduled_rate("cosine", config.learning_rate, step, config.steps))
            return agent.imitation_step(ctx.demonstration_batch(config.batch_size, config.successes_only))

        state = ctx.state.data
        if not isinstance(state, ImitationState):
            return
        run_updates(ctx, config.steps, update, lambda means: _look_at_held_out(ctx, state))
        if state.best_policy is not None and state.best_step < config.steps:
            agent.load_policy_state(state.best_policy)
            ctx.hooks.note(
                f"imitation: held-out episodes are likeliest after {state.best_step} of {config.steps} "
                "updates, from where on it overfits; that policy is kept"
            )
            state.best_step = config.steps
        if state.evaluated:
            return
        if self._evaluate_interim and ctx.evaluate is not None:
            with checkpoint_on_interrupt(ctx):
                ctx.evaluate(ctx.actor(self.acting), stage=self.name, final=False)
            state.evaluated = True
            checkpoint(ctx)


def _look_at_held_out(ctx: StageContext, state: ImitationState) -> None:
    """Remember the policy under which held-out episodes are likeliest."""
    if ctx.holdout is None:
        return
    nll = ctx.holdout.nll(ctx.agent.policy)
    ctx.hooks.report({"policy/held_out_nll": nll})
    if state.best_nll is None or nll < state.best_nll:
        state.best_policy, state.best_nll, state.best_step = ctx.agent.policy_state(), nll, ctx.state.step
