"""The configuration of a training run: everything that decides its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serfn.core.errors import ConfigError
from serfn.critics.base import CriticConfig
from serfn.critics.mlp import MLPCriticConfig
from serfn.data.resample import ActionKind
from serfn.policies.base import PolicyConfig
from serfn.policies.flow import FlowPolicyConfig
from serfn.training.agent import AgentConfig
from serfn.training.rewards import RewardConfig
from serfn.training.stages.context import LoopConfig
from serfn.training.stages.critic_warmup import CriticWarmupConfig
from serfn.training.stages.imitation import ImitationConfig
from serfn.training.stages.offline import OfflineConfig
from serfn.training.stages.online import OnlineConfig


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluations during training.

    Attributes:
        episodes: Episodes of the final evaluation of a stage; more give a narrower interval.
        interim_episodes: Episodes of an interim evaluation of the online stage.
        seed: First evaluation seed; the same seeds serve all evaluations of a run. Interim evaluations have
            seeds of their own, so that what was selected on them is judged on fresh ones.
        simulations: Environments that run side by side in collection and evaluation. Numbers depend on it.

    Raises:
        ConfigError: A number is out of range.
    """

    episodes: int = 50
    interim_episodes: int = 16
    seed: int = 1000
    simulations: int = 8

    def __post_init__(self) -> None:
        for name in ("episodes", "interim_episodes", "simulations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluation {name} is {getattr(self, name)}; it must be at least 1")
        if self.seed < 0:
            raise ConfigError(f"evaluation seed is {self.seed}; it must be 0 or more")


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        env: Gymnasium id of the environment in which the policy is fine-tuned and evaluated, with the
            registering package in front if needed (`package:Id`); None learns from `demos` alone.
        plant: Plant (variant of the simulated system) of one of our tasks; None for other environments, or
            for the task's default.
        env_options: Further keyword arguments of the environment.
        control_hz: Control steps per second of the environment; None is what it says, else what the
            demonstrations say, else 20.
        demos: Demonstrations, see docs/data.md; None collects them (our tasks only).
        resample: Bring demonstrations of another rate to that of the environment, taking their actions as
            `targets` (positions) or `rates` (velocities, forces), see `serfn.data.resample`; None refuses.
        skip_bad: Leave out demonstrations that cannot be used, and say how many; else the first is refused.
        demo_episodes: Number of demonstrations to collect when `demos` is None.
        demo_plant: Plant of our tasks in which they are collected.
        seed: Seed of everything; run several before believing a difference.
        chunk_size: Control steps per chunk: what the policy plans at once and the critic values. A fifth of a
            second is a good start.
        replay_steps: Steps of online data that are kept; the oldest go first.
        rewards: Scaling of the task's rewards.
        policy: Kind and architecture of the policy.
        critic: Kind and architecture of the critic, with the bounds of its values.
        agent: Optimisation.
        imitation: Stage 1.
        critic_warmup: Stage 2.
        offline: Stage 3.
        online: Stage 4.
        loop: Rhythm of reports and checkpoints.
        evaluation: Evaluations.
        enforce_gates: Return to the best policy when a stage is not promoted. Switch it off to study a stage
            that makes the policy worse.

    Raises:
        ConfigError: A number is out of range, the critic's bounds are missing or exclude reachable values,
            its targets cannot take in `agent.return_steps`, or more steps are executed than chunks have.
    """

    env: str | None = "serfn/OrcaCubeRotation-v0"
    plant: str | None = None
    env_options: dict[str, Any] = field(default_factory=dict)
    control_hz: float | None = None
    demos: Path | None = None
    resample: ActionKind | None = None
    skip_bad: bool = False
    demo_episodes: int = 40
    demo_plant: str | None = "nominal"
    seed: int = 0
    chunk_size: int = 8
    replay_steps: int = 200_000
    rewards: RewardConfig = field(default_factory=RewardConfig)
    policy: PolicyConfig = field(default_factory=FlowPolicyConfig)
    critic: CriticConfig = field(default_factory=lambda: MLPCriticConfig(v_min=-1.0, v_max=1.0))
    agent: AgentConfig = field(default_factory=AgentConfig)
    imitation: ImitationConfig = field(default_factory=ImitationConfig)
    critic_warmup: CriticWarmupConfig = field(default_factory=CriticWarmupConfig)
    offline: OfflineConfig = field(default_factory=OfflineConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    enforce_gates: bool = True

    def __post_init__(self) -> None:
        if self.env == "":
            raise ConfigError("env is empty; give a Gymnasium id, or none to learn from demos alone")
        for name in ("chunk_size", "replay_steps", "demo_episodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more")
        if self.control_hz is not None and not 0 < self.control_hz < math.inf:
            raise ConfigError(f"control_hz is {self.control_hz}; it must be positive and finite")
        self._check_return_steps()
        self._check_action_steps()
        low, high = self.value_bounds
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ConfigError(f"critic value bounds are [{low}, {high}]; both must be finite")

    def _check_return_steps(self) -> None:
        steps = self.agent.return_steps
        if steps is None:
            return
        if steps < self.chunk_size:
            raise ConfigError(
                f"agent.return_steps is {steps}, fewer than the chunk_size of {self.chunk_size}; raise it "
                "or set it to none"
            )

    def _check_action_steps(self) -> None:
        online = self.online
        ways = {
            "imitation.acting": self.imitation.acting,
            "offline.acting": self.offline.acting,
            "online.acting": online.acting,
            "online.collecting": online.collecting or online.acting,
        }
        for name, acting in ways.items():
            if (acting.n_action_steps or 1) > self.chunk_size:
                raise ConfigError(
                    f"{name}.n_action_steps is {acting.n_action_steps}, more than the chunk_size of "
                    f"{self.chunk_size}; lower it or set it to none"
                )

    @property
    def value_bounds(self) -> tuple[float, float]:
        """Interval to which targets are clipped: the critic's bounds, else those of the rewards."""
        low, high = self.rewards.value_bounds
        return (
            low if self.critic.v_min is None else self.critic.v_min,
            high if self.critic.v_max is None else self.critic.v_max,
        )
