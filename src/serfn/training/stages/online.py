"""Stage 4: improve on the robot, in rounds of a few episodes followed by updates on mixed replay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from serfn.core.errors import ConfigError
from serfn.core.words import number
from serfn.data.episode import Episode
from serfn.training.acting import ActingConfig
from serfn.training.evidence import Trial, gain_of_choice, scores_of, share_of_choice
from serfn.training.gate import Score, clearly_worse
from serfn.training.improvements.base import ImprovementConfig
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.losses import Metrics
from serfn.training.stages.base import (
    POLICY_EVERY,
    Schedule,
    Stage,
    check_steps,
    checkpoint,
    checkpoint_on_interrupt,
    roll_back_policy,
    run_updates,
    scheduled_rate,
)
from serfn.training.stages.context import Collect, StageContext
from serfn.training.stages.state import OnlineState, StageName

_FAILURE_ROUNDS = 2
"""Rounds over which failures are averaged: one bad round alone is often chance."""

_VALUE_MARGIN = 0.05
"""How far values may leave their known bounds before a warning, as a fraction of the interval."""


@dataclass(frozen=True)
class AlarmConfig:
    """When the online stage distrusts its own policy and returns to an earlier one.

    An evaluation clearly below the best one returns to the policy of that one. The other alarms return less
    far: to the policy that collected the last round without too many failures.

    Attributes:
        max_kl: Largest sampled KL / D from the reference; None switches the alarm off. Lower it for a robot
            that must not change its ways abruptly; policies without a density need None.
        max_failures: Failures per round, on average over two rounds, beyond the mean of the rounds before the
            policy moved; None switches the alarm off. Lower it where failures are costly.

    Raises:
        ConfigError: A limit is not positive.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"max_divergence": "max_kl"}

    max_kl: float | None = 1.0
    max_failures: int | None = 3

    def __post_init__(self) -> None:
        if self.max_kl is not None and not self.max_kl > 0:
            raise ConfigError(f"max_kl is {self.max_kl}; it must be above 0, or none")
        if self.max_failures is not None and self.max_failures < 1:
            raise ConfigError(f"max_failures is {self.max_failures}; it must be at least 1, or none")


@dataclass(frozen=True)
class OnlineConfig:
    """Online improvement.

    Attributes:
        episodes: Episodes to collect: the budget of robot time, with `robot_minutes`.
        robot_minutes: Robot time after which to stop earlier; None leaves it to `episodes`.
        episodes_per_round: Episodes collected between updates. Fewer learn sooner from what happened, more
            wait less often.
        updates_per_round: Critic updates after each collection; `POLICY_EVERY` of them go with one update of
            the policy. Raise it to get more out of few episodes, until values leave their bounds.
        batch_size: Transitions per update; more on a GPU.
        online_fraction: Share of online data in the critic's batches; the rest are demonstrations. Raise it
            where demonstrations come from another system than the robot.
        policy_online_fraction: Share of online data in the batches that improve the policy.
        policy_windows: Which windows of online data improve it: `all`, or those that start at `replans` and
            so hold one chunk as it was chosen. Others hold the end of one and the beginning of the next,
            which on a robot that lags behind its commands is a motion that no chunk asks for.
        schedule: How the learning rates of policy and critic change within a round. `cosine` lets them decay,
            so that what collects the next round is not one noisy iterate.
        policy_delay_rounds: First rounds in which only the critic learns; raise it if the policy gets worse
            as soon as it moves.
        evaluate_every: Rounds between interim evaluations, the first of which comes before any round, so that
            later ones are compared with it; 0 evaluates at the end of the stage only. On a robot each costs
            its time.
        improvement: How the policy improves.
        reference: Which policy the penalty regularises it towards: that of the `stage`'s start, or that of
            the `round`'s start, which collected the latest episodes. The first bounds how far it gets in all;
            the second how far it gets from where the critic has just been told the truth.
        acting: How the policy acts when it is evaluated and when it is used.
        critic_chooses: Whether it always acts with `acting.candidates`, or `by_evidence`: a part of every
            round is collected with one sample, and what earns more there acts and gets more episodes. Where
            demonstrations come from another system than the robot the critic's choice may be worth nothing.
        collecting: How it acts while it collects episodes, for example at a higher temperature to explore;
            None is `acting`.
        alarms: When to return to an earlier policy.

    Raises:
        ConfigError: A number is out of range.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "policy_starts": "policy_windows",
        "policy_windows=decisions": "policy_windows=replans",
    }

    episodes: int = 315
    robot_minutes: float | None = None
    episodes_per_round: int = 8
    updates_per_round: int = 1300
    batch_size: int = 192
    online_fraction: float = 0.5
    policy_online_fraction: float = 1.0
    policy_windows: Literal["all", "replans"] = "all"
    schedule: Schedule = "constant"
    policy_delay_rounds: int = 1
    evaluate_every: int = 4
    improvement: ImprovementConfig = field(default_factory=RegularizedConfig)
    reference: Literal["stage", "round"] = "stage"
    acting: ActingConfig = field(default_factory=ActingConfig)
    critic_chooses: Literal["always", "by_evidence"] = "always"
    collecting: ActingConfig | None = None
    alarms: AlarmConfig = field(default_factory=AlarmConfig)

    def __post_init__(self) -> None:
        check_steps(
            episodes=self.episodes,
            episodes_per_round=self.episodes_per_round,
            updates_per_round=self.updates_per_round,
            batch_size=self.batch_size,
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
    """Rounds of collection, updates and, now and then, an evaluation; `OnlineState` is what it remembers."""

    name: ClassVar[StageName] = "online"

    def __init__(self, config: OnlineConfig) -> None:
        self.config = config

    @property
    def acting(self) -> ActingConfig:
        """Best of N under the critic, unless the state says otherwise."""
        return self.config.acting

    @property
    def _by_evidence(self) -> bool:
        return self.config.critic_chooses == "by_evidence" and self.config.acting.candidates > 1

    @property
    def total_updates(self) -> int:
        """Number of critic updates if no robot-time limit ends the stage earlier."""
        rounds = math.ceil(self.config.episodes / self.config.episodes_per_round)
        return rounds * self.config.updates_per_round

    def begin(self, ctx: StageContext) -> None:
        """Make the present policy the reference, and the policy to return to."""
        if ctx.collect is None:
            raise ConfigError(
                "the online stage needs a way to collect episodes; pass collect, or leave the stage out"
            )
        ctx.agent.freeze_reference(self.config.improvement.initial_coefficient)
        agent = ctx.agent
        ctx.state.data = OnlineState(
            candidates=1 if self._by_evidence else None,
            best_candidates=1 if self._by_evidence else None,
            sound_policy=agent.policy_state(),
            best_policy=agent.policy_state(),
            best_critic=agent.critic_state(),
        )

    def train(self, ctx: StageContext) -> None:
        """Run the rounds that remain."""
        data, per_round = ctx.state.online, self.config.updates_per_round
        if data.rounds == data.evaluations == 0:
            self._evaluate_start(ctx)
        while True:
            if ctx.state.step == data.rounds * per_round:
                if data.closed < data.rounds:
                    self._close_round(ctx)
                if self._finished(ctx):
                    return
                self._collect_round(ctx)
            run_updates(
                ctx,
                data.rounds * per_round,
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
        config, state, data = self.config, ctx.state, ctx.state.online
        count = min(config.episodes_per_round, config.episodes - state.episodes)
        if ctx.collect is None:
            raise ConfigError("the online stage needs a way to collect episodes")
        with checkpoint_on_interrupt(ctx):
            episodes = self._collect(ctx, ctx.collect, count)
        # Fewer than asked for where some were aborted, more where robots went on.
        state.episodes += max(count, len(episodes))
        if not episodes:
            return checkpoint(ctx)
        ctx.hooks.keep_episodes(data.rounds, episodes)
        add_online_episodes(ctx, episodes)
        data.rounds += 1
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

    def _collect(self, ctx: StageContext, collect: Collect, count: int) -> Sequence[Episode]:
        """Collect a round; by evidence, with one sample in a part of it and with the critic's choice else."""
        how, first, data = self.config.collecting or self.config.acting, ctx.state.episodes, ctx.state.online
        if not self._by_evidence:
            return collect(ctx.actor(how), count, first)
        choosing = share_of_choice(gain_of_choice(data.trials), count)
        single = count - choosing
        one = collect(ctx.actor(how.changed(candidates=1)), single, first) if single else ()
        best = collect(ctx.actor(how), choosing, first + single) if choosing else ()
        data.trials = (*data.trials, Trial(scores_of(one), scores_of(best)))
        gain = gain_of_choice(data.trials)
        helps = gain is not None and gain.mean > 0
        data.candidates = self.config.acting.candidates if helps else 1
        if gain is not None:
            ctx.hooks.report({"online/gain_of_choice": gain.mean, "online/choosing": float(choosing)})
        return [*one, *best]

    def _update(self, ctx: StageContext, step: int) -> Metrics:
        config, agent = self.config, ctx.agent
        in_round = step - (ctx.state.online.rounds - 1) * config.updates_per_round
        agent.set_learning_rates(scheduled_rate(config.schedule, 1.0, in_round, config.updates_per_round))
        batch = ctx.mixed_batch(config.batch_size, config.online_fraction)
        metrics = agent.critic_step(batch)
        if self._policy_moves(ctx) and (step + 1) % POLICY_EVERY == 0:
            if (config.policy_online_fraction, config.policy_windows) != (config.online_fraction, "all"):
                batch = ctx.mixed_batch(
                    config.batch_size, config.policy_online_fraction, config.policy_windows
                )
            # Only a penalty on the likelihood of demonstrations reads them.
            imitated = (
                ctx.demonstration_batch(config.batch_size)
                if config.improvement.imitates_demonstrations
                else batch
            )
            metrics |= agent.policy_step(batch, imitated, config.improvement)
        return metrics

    def _policy_moves(self, ctx: StageContext) -> bool:
        return ctx.state.online.rounds > self.config.policy_delay_rounds

    def _watch(self, ctx: StageContext, means: dict[str, float]) -> None:
        """Look at the divergence from the reference and at values outside their bounds."""
        alarms, data = self.config.alarms, ctx.state.online
        if not self._policy_moves(ctx):
            return
        self._watch_values(ctx, means)
        if alarms.max_kl is None:
            return
        divergence = means.get("policy/kl")
        if divergence is None:
            batch = ctx.agent.tensors(ctx.online.sample(self.config.batch_size, ctx.rng))
            divergence = ctx.agent.divergence(batch).item()
            ctx.hooks.report({"policy/kl": divergence})
        # Written so that NaN raises the alarm.
        if not divergence <= alarms.max_kl:
            reason = f"KL / D to the reference is {number(divergence)}, above {alarms.max_kl:g}"
            roll_back_policy(ctx, data.sound_policy, reason)

    def _watch_values(self, ctx: StageContext, means: dict[str, float]) -> None:
        """Raise an alarm when values leave their bounds; once, until they have come back."""
        low, high = ctx.agent.value_bounds
        margin = _VALUE_MARGIN * (high - low)
        least, greatest = means.get("policy/q_min", low), means.get("policy/q_max", high)
        outside = least < low - margin or greatest > high + margin
        if outside and not ctx.state.online.outside:
            ctx.hooks.alarm(
                f"values of the policy reach {number(least)} to {number(greatest)}, outside their bounds "
                f"{number(low)} to {number(high)}: the critic is exploited"
            )
        ctx.state.online.outside = outside

    def _watch_failures(self, ctx: StageContext, failures: int) -> None:
        """Compare the failures of the last rounds with what was usual when the policy entered the stage."""
        alarms, data = self.config.alarms, ctx.state.online
        if data.rounds <= self.config.policy_delay_rounds + 1:
            data.usual_failures = (*data.usual_failures, failures)
            return
        usual = float(np.mean(data.usual_failures))
        if alarms.max_failures is None or failures < usual + alarms.max_failures:
            data.sound_policy = ctx.agent.policy_state()
        recent = data.recent_failures = (*data.recent_failures, failures)[-_FAILURE_ROUNDS:]
        if alarms.max_failures is None or len(recent) < _FAILURE_ROUNDS:
            return
        mean = float(np.mean(recent))
        if mean >= usual + alarms.max_failures:
            reason = (
                f"{number(mean)} episodes of each of the last {len(recent)} rounds failed, "
                f"{number(usual)} are usual"
            )
            roll_back_policy(ctx, data.sound_policy, reason)
            data.recent_failures = ()

    def _evaluate_start(self, ctx: StageContext) -> None:
        """Evaluate the policy that the stage begins with on the seeds on which later ones are judged.

        Some initial states are easier than others: only on the same ones does a change show. Where gates are
        enforced, that policy is the one to beat.
        """
        score = self._evaluate(ctx) if self.config.evaluate_every > 0 else None
        if score is None:
            return
        if ctx.enforce_gates:
            self._judge(ctx, score)
        checkpoint(ctx)

    def _close_round(self, ctx: StageContext) -> None:
        """Evaluate if it is time, and judge the policy by it."""
        every, data = self.config.evaluate_every, ctx.state.online
        due = every > 0 and (data.rounds % every == 0 or self._finished(ctx))
        score = self._evaluate(ctx) if due else None
        if score is not None:
            self._judge(ctx, score)
        data.closed = data.rounds
        checkpoint(ctx)

    def _evaluate(self, ctx: StageContext) -> Score | None:
        """Return the score of the present policy on the interim seeds; None if nobody evaluates."""
        if ctx.evaluate is None:
            return None
        with checkpoint_on_interrupt(ctx):
            acting = self.acting.changed(candidates=ctx.state.data.candidates)
            result = ctx.evaluate(ctx.actor(acting), stage=self.name, final=False)
        ctx.state.online.evaluations += 1
        return Score.of(result.scores)

    def _judge(self, ctx: StageContext, score: Score) -> None:
        """Remember the best policy; return to it from one that is clearly worse, and at the end in any case.

        Each evaluation is noisy, so the best one is partly luck; the gate judges on seeds that it never saw.
        """
        data = ctx.state.online
        best = data.best_score
        if best is None or score.mean >= best.mean:
            data.best_score, data.best_policy = score, ctx.agent.policy_state()
            data.best_critic, data.best_candidates = ctx.agent.critic_state(), data.candidates
            return
        if self._finished(ctx):
            ctx.agent.load_policy_state(data.best_policy)
            ctx.agent.load_critic_state(data.best_critic)
            data.candidates = data.best_candidates
            ctx.hooks.note(
                f"{self.name}: ends with its best evaluated policy, {number(best.mean)}; the last one was "
                f"evaluated at {number(score.mean)}"
            )
        elif clearly_worse(score, best, data.evaluations - 1):
            # The critic goes on: it has learnt what was wrong with the policy that is left.
            reason = f"evaluated at {number(score.mean)}, clearly below {number(best.mean)}"
            roll_back_policy(ctx, data.best_policy, reason)
            data.sound_policy = data.best_policy


def add_online_episodes(ctx: StageContext, episodes: Sequence[Episode]) -> None:
    """Put collected episodes into the online replay; a resumed run does so with the stored ones, in order."""
    for episode in episodes:
        ctx.online.add(ctx.to_learning(episode))
