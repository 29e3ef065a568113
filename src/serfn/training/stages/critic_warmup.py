"""Stage 2: fit the critic to the demonstrations under the behaviour-cloning policy, which stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from serfn.training.losses import Metrics
from serfn.training.stages.base import Stage, check_steps, run_updates
from serfn.training.stages.context import StageContext
from serfn.training.stages.state import StageName


@dataclass(frozen=True)
class CriticWarmupConfig:
    """Critic warm-up.

    Attributes:
        steps: Updates. More where the critic's loss still falls at the end of the stage.
        batch_size: Transitions per update; more on a GPU.

    Raises:
        ConfigError: A number is not positive.
    """

    steps: int = 3500
    batch_size: int = 192

    def __post_init__(self) -> None:
        check_steps(steps=self.steps, batch_size=self.batch_size)


class CriticWarmup(Stage):
    """Temporal-difference learning with a frozen policy; no gate, as nothing that acts changes."""

    name: ClassVar[StageName] = "critic_warmup"

    def __init__(self, config: CriticWarmupConfig) -> None:
        self.config = config

    @property
    def acting(self) -> None:
        """No evaluation."""
        return None

    @property
    def total_updates(self) -> int:
        """Number of updates."""
        return self.config.steps

    def begin(self, ctx: StageContext) -> None:
        """Nothing to set up."""

    def train(self, ctx: StageContext) -> None:
        """Run the updates that remain."""
        config, agent = self.config, ctx.agent

        def update(step: int) -> Metrics:
            return agent.critic_step(ctx.demonstration_batch(config.batch_size))

        run_updates(ctx, config.steps, update)
