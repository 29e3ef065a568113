"""Stage 3: improve the policy on the demonstrations alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from serfn.training.acting import ActingConfig
from serfn.training.improvements.base import ImprovementConfig
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.losses import Metrics
from serfn.training.stages.base import (
    POLICY_EVERY,
    Schedule,
    Stage,
    check_steps,
    run_updates,
    scheduled_rate,
)
from serfn.training.stages.context import StageContext
from serfn.training.stages.state import StageName


@dataclass(frozen=True)
class OfflineConfig:
    """Offline improvement.

    Attributes:
        steps: Critic updates; `POLICY_EVERY` of them go with one update of the policy. More for many
            demonstrations.
        batch_size: Transitions per update; more on a GPU.
        schedule: How the learning rates of policy and critic change over the stage; `cosine` if the policy
            that it ends with varies from seed to seed.
        improvement: How the policy improves; the reference is the policy at the stage's start.
        acting: How the policy acts in the evaluation.

    Raises:
        ConfigError: A number is not positive.
    """

    steps: int = 1500
    batch_size: int = 192
    schedule: Schedule = "constant"
    improvement: ImprovementConfig = field(default_factory=RegularizedConfig)
    acting: ActingConfig = field(default_factory=ActingConfig)

    def __post_init__(self) -> None:
        check_steps(steps=self.steps, batch_size=self.batch_size)


class Offline(Stage):
    """Critic and policy learn from demonstrations, the policy regularised towards the BC policy."""

    name: ClassVar[StageName] = "offline"

    def __init__(self, config: OfflineConfig) -> None:
        self.config = config

    @property
    def acting(self) -> ActingConfig:
        """Best of N under the critic."""
        return self.config.acting

    @property
    def total_updates(self) -> int:
        """Number of critic updates."""
        return self.config.steps

    def begin(self, ctx: StageContext) -> None:
        """Make the present policy the reference."""
        ctx.agent.freeze_reference(self.config.improvement.initial_coefficient)

    def train(self, ctx: StageContext) -> None:
        """Run the updates that remain."""
        config, agent = self.config, ctx.agent

        def update(step: int) -> Metrics:
            agent.set_learning_rates(scheduled_rate(config.schedule, 1.0, step, config.steps))
            batch = ctx.demonstration_batch(config.batch_size)
            metrics = agent.critic_step(batch)
            if (step + 1) % POLICY_EVERY == 0:
                # All data are demonstrations here, so that the batch serves as both.
                metrics |= agent.policy_step(batch, batch, config.improvement)
            return metrics

        run_updates(ctx, config.steps, update)
