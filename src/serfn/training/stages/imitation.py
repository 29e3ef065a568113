"""Stage 1: maximise the likelihood of demonstrated chunks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from serfn.core.errors import ConfigError
from serfn.training.acting import ActingConfig
from serfn.training.losses import Metrics
from serfn.training.stages.base import Schedule, Stage, check_steps, run_updates, scheduled_rate
from serfn.training.stages.context import StageContext, StageName


@dataclass(frozen=True)
class ImitationConfig:
    """Imitation.

    Attributes:
        steps: Updates.
        batch_size: Chunks per update.
        learning_rate: Adam step size at the start.
        schedule: How it changes.
        average_decay: The stage ends with an exponential average of the weights over about `1 / (1 - decay)`
            steps (over fewer at first): single steps of stochastic gradients are better or worse at driving a
            robot without it showing in the likelihood (Block et al. 2024, arXiv 2310.11428). 0 is off.
        observation_noise: Standard deviation of Gaussian noise on the imitated observations, in standard
            deviations of each; makes actions change less with what sensors cannot tell.
        successes_only: Imitate the demonstrations that succeed; the others still teach the critic. Without
            effect where no demonstration succeeds or the task does not tell.
        acting: How the policy acts in the evaluation; there is no critic yet, so with one candidate.

    Raises:
        ConfigError: A number is not positive, or the evaluation asks for a critic.
    """

    steps: int = 2000
    batch_size: int = 256
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    average_decay: float = 0.0
    observation_noise: float = 0.0
    successes_only: bool = False
    acting: ActingConfig = field(default_factory=lambda: ActingConfig(candidates=1))

    def __post_init__(self) -> None:
        check_steps(steps=self.steps, batch_size=self.batch_size, learning_rate=self.learning_rate)
        if not 0 <= self.average_decay < 1:
            raise ConfigError(
                f"average_decay is {self.average_decay}; it must lie in [0, 1), 0.999 is usual, 0 is off"
            )
        if not 0 <= self.observation_noise < 1:
            raise ConfigError(
                f"observation_noise is {self.observation_noise}; it must lie in [0, 1), 0.02 is usual"
            )
        if self.acting.candidates != 1:
            raise ConfigError(
                f"acting.candidates of imitation is {self.acting.candidates}; no critic is trained yet, use 1"
            )


class Imitation(Stage):
    """Maximum likelihood on the demonstrations.

    Kept in `RunState.stage_data`: the `average` of the weights, if there is one.
    """

    name: ClassVar[StageName] = "imitation"

    def __init__(self, config: ImitationConfig) -> None:
        self.config = config

    @property
    def acting(self) -> ActingConfig:
        """One sample, at the configured temperature."""
        return self.config.acting

    @property
    def total_updates(self) -> int:
        """Number of updates."""
        return self.config.steps

    def begin(self, ctx: StageContext) -> None:
        """Start the average of the weights; statistics were fitted when the agent was built."""
        if self.config.average_decay:
            ctx.state.stage_data = {"average": ctx.agent.policy_weights()}

    def train(self, ctx: StageContext) -> None:
        """Run the updates that remain."""
        config, agent = self.config, ctx.agent
        average = ctx.state.stage_data.get("average")

        def update(step: int) -> Metrics:
            agent.set_policy_learning_rate(
                scheduled_rate(config.schedule, config.learning_rate, step, config.steps)
            )
            batch = ctx.prior_batch(config.batch_size, config.successes_only)
            if config.observation_noise:
                batch = agent.with_observation_noise(batch, config.observation_noise)
            metrics = agent.imitation_step(batch)
            if average is not None:
                # The initial weights leave the average within its first steps.
                agent.average_policy(average, 1 - min(config.average_decay, step / (step + 10)))
            return metrics

        run_updates(ctx, config.steps, update)
        if average is not None:
            agent.load_policy_weights(average)
