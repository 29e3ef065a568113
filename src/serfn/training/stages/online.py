"""Stage 4: improve on the robot, in rounds of a few episodes followed by updates on mixed replay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from serfn.core.errors import ConfigError
from serfn.core.words import number
from serfn.data.episode import Episode
from serfn.training.acting import ActingConfig
from serfn.training.batch import TensorBatch
from serfn.training.gate import Score, clearly_worse
from serfn.training.improvement import Improvement, ImprovementConfig
from serfn.training.losses import Metrics
from serfn.training.stages.base import (
    Schedule,
    Stage,
    check_steps,
    checkpoint,
    checkpoint_on_interrupt,
    roll_back_policy,
    run_updates,
    scheduled_rate,
)
from serfn.training.stages.context import StageContext, StageName

_BEST_QUANTILE = 0.75


@dataclass(frozen=True)
class AlarmConfig:
    """When the online stage distrusts its own policy and returns to an earlier one.

    An evaluation clearly below the best one returns to the policy of that one. The other alarms return less
    far: to the policy that collected the last round without too many failures.

    Attributes:
        max_divergence: Largest sampled KL / D from the reference; None switches the alarm off.
        max_failures: Failures per round, on average over `failure_rounds` rounds, beyond the mean of the
            rounds before the policy moved; None switches the alarm off.
        failure_rounds: Rounds over which failures are averaged: one bad round alone is often chance.
        value_margin: How far the policy's values may leave their known bounds before a warning, as a fraction
            of the interval between the bounds.

    Raises:
        ConfigError: A limit is not positive.
    """

    max_divergence: float | None = 1.0
    max_failures: int | None = 3
    failure_rounds: int = 2
    value_margin: float = 0.05

    def __post_init__(self) -> None:
        if self.max_divergence is not None and not self.max_divergence > 0:
            raise ConfigError(f"max_divergence is {self.max_divergence}; it must be above 0, or none")
        if self.max_failures is not None and self.max_failures < 1:
            raise ConfigError(f"max_failures is {self.max_failures}; it must be at least 1, or none")
        if self.failure_rounds < 1:
            raise ConfigError(f"failure_rounds is {self.failure_rounds}; it must be at least 1, 2 is usual")
        if not self.value_margin >= 0:
            raise ConfigError(f"value_margin is {self.value_margin}; it must be 0 or more")


@dataclass(frozen=True)
class OnlineConfig:
    """Online improvement.

    Attributes:
        episodes: Episodes to collect.
        robot_minutes: Robot time after which to stop earlier; None leaves it to `episodes`.
        episodes_per_round: Episodes collected between updates.
        updates_per_round: Critic updates after each collection.
        batch_size: Transitions per update.
        online_fraction: Share of own experience in the critic's batches; the rest are demonstrations.
        policy_online_fraction: Share of own experience in the batches that improve the policy.
        policy_starts: Which windows of own experience improve it: `all`, or those that start at `decisions`
            and so hold one chunk as it was chosen. Others hold the end of one and the beginning of the next,
            which on a robot that lags behind its commands is a motion that no chunk asks for.
        schedule: How the step sizes of policy and critic change within a round. `cosine` cools them down, so
            that what collects the next round is not one noisy iterate.
        policy_every: Critic updates per policy update.
        policy_delay_rounds: First rounds in which only the critic learns.
        evaluate_every: Rounds between evaluations, the first of which comes before any round, so that later
            ones are compared with it; 0 evaluates at the end of the stage only.
        imitate_best: Under the `nll` anchor, imitate own successes (or the best quarter) beside
            the demonstrations that succeed.
        improvement: How the policy improves.
        reference: Which policy the anchor holds it to: that of the `stage`'s start, or that of the `round`'s
            start, which collected the latest episodes. The first bounds how far it gets in all; the second
            how far it gets from where the critic has just been told the truth.
        acting: How the policy acts when it is evaluated and when it is used.
        collecting: How it acts while it collects episodes, for example warmer; None is `acting`.
        alarms: When to return to an earlier policy.

    Raises:
        ConfigError: A number is out of range.
    """

    episodes: int = 315
    robot_minutes: float | None = None
    episodes_per_round: int = 8
    updates_per_round: int = 1300
    batch_size: int = 192
    online_fraction: float = 0.5
    policy_online_fraction: float = 1.0
    policy_starts: Literal["all", "decisions"] = "all"
    schedule: Schedule = "constant"
    policy_every: int = 3
    policy_delay_rounds: int = 1
    evaluate_every: int = 4
    imitate_best: bool = False
    improvement: Improvement = field(default_factory=ImprovementConfig)
    reference: Literal["stage", "round"] = "stage"
    acting: ActingConfig = field(default_factory=ActingConfig)
    collecting: ActingConfig | None = None
    alarms: AlarmConfig = field(default_factory=AlarmConfig)

    def __post_init__(self) -> None:
        check_steps(
            episodes=self.episodes,
            episodes_per_round=self.episodes_per_round,
            updates_per_round=self.updates_per_round,
            batch_size=self.batch_size,
            policy_every=self.policy_every,
        )
        if self.robot_minutes is not None:
            check_steps(robot_minutes=self.robot_minutes)
        for name in ("online_fraction", "policy_online_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")
        for name in ("policy_delay_rounds", "evaluate_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more")


class Online(Stage):
    """Rounds of collection, updates and, now and then, an evaluation.

    Kept in `RunState.stage_data`: `rounds` collected and `closed`, `usual_failures` of the rounds before the
    policy moved and `recent_failures` after, `returns` of all episodes, the `calm_policy` that collected the
    last round without too many failures, the number of `evaluations`, the `best_policy` of all, that at the
    stage's start included, with its `best_score` and the `best_critic` that chose for it, and whether values
    were `outside` their bounds at the last report.
    """

    name: ClassVar[StageName] = "online"

    def __init__(self, config: OnlineConfig) -> None:
        self.config = config

    @property
    def acting(self) -> ActingConfig:
        """Best of N under the critic."""
        return self.config.acting

    @property
    def total_updates(self) -> int:
        """Number of critic updates if no robot-time limit ends the stage earlier."""
        return (
            math.ceil(self.config.episodes / self.config.episodes_per_round) * self.config.updates_per_round
        )

    def begin(self, ctx: StageContext) -> None:
        """Make the present policy the reference, and the policy to return to."""
        if ctx.collect is None:
            raise ConfigError(
                "the online stage needs a way to collect episodes; pass collect, or leave the stage out"
            )
        ctx.agent.freeze_reference(self.config.improvement.strength)
        ctx.state.stage_data = {
            "rounds": 0,
            "closed": 0,
            "usual_failures": [],
            "recent_failures": [],
            "returns": [],
            "calm_policy": ctx.agent.policy_state(),
            "best_policy": ctx.agent.policy_state(),
            "best_critic": ctx.agent.critic_state(),
            "best_score": None,
            "evaluations": 0,
            "outside": False,
        }

    def train(self, ctx: StageContext) -> None:
        """Run the rounds that remain."""
        data, per_round = ctx.state.stage_data, self.config.updates_per_round
        if data["rounds"] == data["evaluations"] == 0:
            self._evaluate_start(ctx)
        while True:
            if ctx.state.step == data["rounds"] * per_round:
                if data["closed"] < data["rounds"]:
                    self._close_round(ctx)
                if self._finished(ctx):
                    return
                self._collect_round(ctx)
            run_updates(
                ctx,
                data["rounds"] * per_round,
                lambda step: self._update(ctx, step),
                lambda means: self._watch(ctx, means),
            )

    def _finished(self, ctx: StageContext) -> bool:
        config, state = self.config, ctx.state
        minutes = state.robot_steps / ctx.task.control_hz / 60
        return state.episodes >= config.episodes or (
            config.robot_minutes is not None and minutes >= config.robot_minutes
        )

    def _collect_round(self, ctx: StageContext) -> None:
        config, state, data = self.config, ctx.state, ctx.state.stage_data
        count = min(config.episodes_per_round, config.episodes - state.episodes)
        if ctx.collect is None:
            raise ConfigError("the online stage needs a way to collect episodes")
        with checkpoint_on_interrupt(ctx):
            episodes = ctx.collect(ctx.actor(config.collecting or config.acting), count, state.episodes)
        ctx.hooks.keep_episodes(data["rounds"], episodes)
        add_online_episodes(ctx, episodes)
        data["rounds"] += 1
        state.episodes += len(episodes)
        state.robot_steps += sum(episode.length for episode in episodes)
        failures = sum(episode.terminated and not episode.success for episode in episodes)
        ctx.hooks.report(
            {
                "online/episodes": float(state.episodes),
                "online/return": float(np.mean([episode.return_ for episode in episodes])),
                "online/length": float(np.mean([episode.length for episode in episodes])),
                "online/failures": float(failures),
            }
        )
        self._watch_failures(ctx, failures)
        if config.reference == "round":
            ctx.agent.freeze_reference()
        checkpoint(ctx)

    def _update(self, ctx: StageContext, step: int) -> Metrics:
        config, agent = self.config, ctx.agent
        in_round = step - (ctx.state.stage_data["rounds"] - 1) * config.updates_per_round
        agent.set_learning_rates(scheduled_rate(config.schedule, 1.0, in_round, config.updates_per_round))
        batch = ctx.mixed_batch(config.batch_size, config.online_fraction)
        metrics = agent.critic_step(batch)
        if self._policy_moves(ctx) and (step + 1) % config.policy_every == 0:
            if (config.policy_online_fraction, config.policy_starts) != (config.online_fraction, "all"):
                batch = ctx.mixed_batch(
                    config.batch_size, config.policy_online_fraction, config.policy_starts
                )
            metrics |= agent.policy_step(batch, self._demonstrations(ctx, batch), config.improvement)
        return metrics

    def _policy_moves(self, ctx: StageContext) -> bool:
        return ctx.state.stage_data["rounds"] > self.config.policy_delay_rounds

    def _demonstrations(self, ctx: StageContext, batch: TensorBatch) -> TensorBatch:
        """Return what the `nll` anchor imitates; other improvements need none."""
        config, agent = self.config, ctx.agent
        if not config.improvement.imitates_demonstrations:
            return batch
        if not (config.imitate_best and ctx.online.num_imitable_steps):
            return ctx.prior_batch(config.batch_size)
        half = config.batch_size // 2
        return ctx.prior_batch(config.batch_size - half, successes_only=True).joined(
            agent.tensors(ctx.online.sample(half, ctx.rng, starts="imitable"))
        )

    def _watch(self, ctx: StageContext, means: dict[str, float]) -> None:
        """Look at the divergence from the reference and at values outside their bounds."""
        alarms, data = self.config.alarms, ctx.state.stage_data
        if not self._policy_moves(ctx):
            return
        self._watch_values(ctx, means)
        if alarms.max_divergence is None:
            return
        divergence = means.get("policy/kl")
        if divergence is None:
            batch = ctx.agent.tensors(ctx.online.sample(self.config.batch_size, ctx.rng))
            divergence = ctx.agent.divergence(batch).item()
            ctx.hooks.report({"policy/kl": divergence})
        # Written so that NaN raises the alarm.
        if not divergence <= alarms.max_divergence:
            reason = f"KL / D to the reference is {number(divergence)}, above {alarms.max_divergence:g}"
            roll_back_policy(ctx, data["calm_policy"], reason)

    def _watch_values(self, ctx: StageContext, means: dict[str, float]) -> None:
        """Raise an alarm when values leave their bounds; once, until they have come back."""
        low, high = ctx.agent.value_bounds
        margin = self.config.alarms.value_margin * (high - low)
        least, greatest = means.get("policy/q_min", low), means.get("policy/q_max", high)
        outside = least < low - margin or greatest > high + margin
        if outside and not ctx.state.stage_data.get("outside"):
            ctx.hooks.alarm(
                f"values of the policy reach {number(least)} to {number(greatest)}, outside their bounds "
                f"{number(low)} to {number(high)}: the critic is exploited"
            )
        ctx.state.stage_data["outside"] = outside

    def _watch_failures(self, ctx: StageContext, failures: int) -> None:
        """Compare the failures of the last rounds with what was usual when the policy entered the stage."""
        alarms, data = self.config.alarms, ctx.state.stage_data
        if data["rounds"] <= self.config.policy_delay_rounds + 1:
            data["usual_failures"].append(failures)
            return
        usual = float(np.mean(data["usual_failures"]))
        if alarms.max_failures is None or failures < usual + alarms.max_failures:
            data["calm_policy"] = ctx.agent.policy_state()
        recent = data["recent_failures"] = [*data["recent_failures"], failures][-alarms.failure_rounds :]
        if alarms.max_failures is None or len(recent) < alarms.failure_rounds:
            return
        mean = float(np.mean(recent))
        if mean >= usual + alarms.max_failures:
            rounds = "the last round" if len(recent) == 1 else f"each of the last {len(recent)} rounds"
            reason = f"{number(mean)} episodes of {rounds} failed, {number(usual)} are usual"
            roll_back_policy(ctx, data["calm_policy"], reason)
            data["recent_failures"] = []

    def _evaluate_start(self, ctx: StageContext) -> None:
        """Evaluate the policy that the stage begins with on the starts on which later ones are judged.

        A set of starts is easier or harder than another: only on the same ones does a change show. Where
        gates are enforced, that policy is the one to beat.
        """
        score = self._evaluate(ctx) if self.config.evaluate_every > 0 else None
        if score is None:
            return
        if ctx.enforce_gates:
            self._judge(ctx, score)
        checkpoint(ctx)

    def _close_round(self, ctx: StageContext) -> None:
        """Evaluate if it is time, and judge the policy by it."""
        every, data = self.config.evaluate_every, ctx.state.stage_data
        due = every > 0 and (data["rounds"] % every == 0 or self._finished(ctx))
        score = self._evaluate(ctx) if due else None
        if score is not None:
            self._judge(ctx, score)
        data["closed"] = data["rounds"]
        checkpoint(ctx)

    def _evaluate(self, ctx: StageContext) -> Score | None:
        """Return the score of the present policy on the interim starts; None if nobody evaluates."""
        if ctx.evaluate is None:
            return None
        with checkpoint_on_interrupt(ctx):
            result = ctx.evaluate(ctx.actor(self.config.acting), stage=self.name, final=False)
        ctx.state.stage_data["evaluations"] += 1
        return Score.of(result.scores)

    def _judge(self, ctx: StageContext, score: Score) -> None:
        """Remember the best policy; return to it from one that is clearly worse, and at the end in any case.

        Each evaluation is noisy, so the best one is partly luck; the gate judges on starts that it never saw.
        """
        data = ctx.state.stage_data
        best = None if data["best_score"] is None else Score(**data["best_score"])
        if best is None or score.mean >= best.mean:
            data["best_score"], data["best_policy"] = score.to_dict(), ctx.agent.policy_state()
            data["best_critic"] = ctx.agent.critic_state()
            return
        if self._finished(ctx):
            ctx.agent.load_policy_state(data["best_policy"])
            ctx.agent.load_critic_state(data["best_critic"])
            ctx.hooks.note(
                f"{self.name}: ends with its best evaluated policy, {number(best.mean)}; the last one was "
                f"evaluated at {number(score.mean)}"
            )
        elif clearly_worse(score, best, data["evaluations"] - 1):
            # The critic goes on: it has learnt what was wrong with the policy that is left.
            reason = f"evaluated at {number(score.mean)}, clearly below {number(best.mean)}"
            roll_back_policy(ctx, data["best_policy"], reason)
            data["calm_policy"] = data["best_policy"]


def add_online_episodes(ctx: StageContext, episodes: Sequence[Episode]) -> None:
    """Put collected episodes into the online replay, the successes and best ones marked as worth imitating.

    Where the task does not tell success, the best are those in the upper quarter of returns so far. A resumed
    run calls this again with the stored episodes, in the same order.
    """
    returns: list[float] = ctx.state.stage_data["returns"]
    for episode in episodes:
        returns.append(episode.return_)
        worth = episode.success
        if worth is None:
            worth = episode.return_ >= float(np.quantile(returns, _BEST_QUANTILE))
        ctx.online.add(ctx.to_learning(episode), imitable=worth)
