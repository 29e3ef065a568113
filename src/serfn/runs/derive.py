"""A configuration for a task that nobody has tuned, derived from its demonstrations, with reasons.

Time scales come from the data. What they do not tell is the plain configuration that did best on a sparse
task of 300 steps with 25 human demonstrations: best of 8 at a temperature of 0.7, weighted likelihood of
recorded chunks, KL / D held at 0.1 from the policy of the stage's start, half of each batch demonstrations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from serfn.core.words import number
from serfn.critics.mlp import MLPCriticConfig
from serfn.flows import FlowConfig
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.policies.flow import FlowPolicyConfig
from serfn.runs.facts import Facts
from serfn.training.acting import ActingConfig
from serfn.training.agent import AgentConfig
from serfn.training.config import EvaluationConfig, TrainConfig
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.rewards import RewardConfig
from serfn.training.stages.context import LoopConfig
from serfn.training.stages.critic_warmup import CriticWarmupConfig
from serfn.training.stages.imitation import ImitationConfig
from serfn.training.stages.offline import OfflineConfig
from serfn.training.stages.online import OnlineConfig

_BACKUPS = 30
"""Chunks between the start of an episode and a sparse reward: a value has to travel that far."""

_SHORTEST, _LONGEST = 4, 16
_ABSOLUTE = 0.9
_ROBOT_MINUTES = 105
_USUAL_HZ = 20.0


@dataclass(frozen=True)
class Plan:
    """A configuration and why it is what it is.

    Attributes:
        config: For training; environment, demonstrations and seed are still the defaults.
        reasons: One line for each choice.
    """

    config: TrainConfig
    reasons: tuple[str, ...]


def derive(facts: Facts, budget: Literal["smoke", "demo", "full"]) -> Plan:
    """Return the configuration for demonstrations of any task; equal facts give equal plans.

    Args:
        facts: What the demonstrations tell.
        budget: How much work: `smoke` tries everything, `demo` takes about ten minutes, `full` has 105
            minutes of robot time.
    """
    smoke, full = budget == "smoke", budget == "full"
    time = facts.time_to_success or facts.length
    dense = facts.rewards == "dense"
    chunk, chunk_why = _chunk(facts, time, dense)
    executed = max(1, chunk // 2) if dense else chunk
    horizon = min(max(time // (8 if dense else 3), 20, 2 * chunk), 300)
    # Recorded rewards carry a value as far as chunks of that length would.
    return_steps = time // _BACKUPS if not dense and time // _BACKUPS > chunk else None
    rewards, low, high, rewards_why = _scale(facts)
    absolute = facts.follows > _ABSOLUTE
    noise = min(max(facts.change / 2, 0.003), 0.05)
    width = 64 if facts.steps < 2000 else 128 if facts.steps < 20_000 else 192
    batch = 128 if facts.steps < 20_000 else 256
    passes = 60 if full else 40
    steps = 100 if smoke else min(max(passes * facts.steps // batch, 1000), 6000 if full else 3000)
    failures = facts.success_rate is not None and 0 < facts.success_rate < 1
    minutes = facts.length / (facts.control_hz or _USUAL_HZ) / 60
    episodes = 16 if smoke else 64 if not full else min(max(round(_ROBOT_MINUTES / minutes), 64), 315)

    acting = ActingConfig(candidates=8, temperature=0.7, n_action_steps=executed)
    improvement = RegularizedConfig(
        operator="advantage_weighted", penalty="kl", coefficient=0.1, target_kl=0.1
    )
    config = TrainConfig(
        plant=None,
        chunk_size=chunk,
        rewards=rewards,
        policy=FlowPolicyConfig(
            flow=FlowConfig(couplings=4, width=width),
            base_components=4,
            linear_mean=absolute,
            encoder=MLPEncoderConfig(width=width),
            data_noise=noise,
        ),
        critic=MLPCriticConfig(
            width=max(width, 128),
            depth=3,
            ensemble=2,
            residual_gain=0.1 if absolute else None,
            v_min=low,
            v_max=high,
        ),
        agent=AgentConfig(discount=1 - 1 / horizon, return_steps=return_steps),
        imitation=ImitationConfig(
            steps=steps,
            batch_size=batch,
            successes_only=failures,
            acting=ActingConfig(candidates=1, temperature=0.7, n_action_steps=executed),
        ),
        critic_warmup=CriticWarmupConfig(steps=100 if smoke else 2000 if full else 1000),
        offline=OfflineConfig(
            steps=100 if smoke else 1500 if full else 600,
            schedule="cosine",
            improvement=improvement,
            acting=acting,
        ),
        online=OnlineConfig(
            episodes=episodes,
            updates_per_round=60 if smoke else 1000 if full else 300,
            online_fraction=0.5,
            schedule="cosine",
            evaluate_every=1 if smoke else 2,
            improvement=improvement,
            reference="stage",
            acting=acting,
        ),
        loop=LoopConfig(report_every=20, checkpoint_every=20) if smoke else LoopConfig(),
        evaluation=EvaluationConfig(episodes=8 if smoke else 50, interim_episodes=8 if smoke else 16),
    )
    per_second = "" if facts.control_hz is None else f", {number(facts.length / facts.control_hz)} s"
    success = "nobody says which succeed"
    if facts.success_rate is not None:
        success = f"{facts.success_rate:.0%} succeed"
        if facts.time_to_success is not None:
            success += f", after {facts.time_to_success} steps"
    reach = "8th" if dense else "third"
    commands = "absolute targets: the flow begins from a regression" if absolute else "relative commands"
    reasons = (
        f"data: {facts.episodes} demonstrations, {facts.steps} steps; an episode has "
        f"{facts.length}{per_second}; {success}",
        f"chunk {chunk}, {executed} executed: {chunk_why}"
        + ("; dense rewards correct it half-way" if dense else "; sparse rewards are learnt chunk by chunk"),
        f"discount {number(config.agent.discount)}: {horizon} steps ahead, a {reach} of the way of {time}"
        + (f"; targets take {return_steps} recorded steps" if return_steps else ""),
        f"rewards {facts.rewards.replace('_', ' ')}, {rewards_why}; values in [{low:g}, {high:g}]",
        f"actions: a regression on the observation explains {facts.follows:.0%} ({commands}); "
        f"{facts.saturated:.0%} at a bound",
        f"noise {number(noise)} on imitated actions: half their change in a step ({number(facts.change)} of "
        "a range of 2), within .003 and .05",
        f"networks {width} wide, batches of {batch}: {facts.steps} steps of data",
        f"imitation {steps} updates: {passes} passes within limits"
        + ("; successful demonstrations only" if failures else ""),
        "acting: best of 8 at temperature 0.7; KL/D 0.1 from the stage's start; half demonstrations "
        "(nothing in the data decides these)",
        f"online {episodes} episodes (about {number(episodes * minutes)} min of robot time), "
        f"{config.online.updates_per_round} updates a round",
    )
    return Plan(config, reasons)


def _chunk(facts: Facts, time: int, dense: bool) -> tuple[int, str]:
    # Several decisions have to fit into an episode.
    most = max(1, min(_LONGEST, facts.length // 4))
    wanted, why = facts.memory, f"actions stay predictable for {facts.memory} steps"
    if not dense and time // _BACKUPS > wanted:
        wanted, why = time // _BACKUPS, f"{_BACKUPS} chunks to the reward after {time} steps"
    chunk = min(max(wanted, _SHORTEST), most)
    return chunk, why if chunk == wanted else f"{why}, limited to {chunk}"


def _scale(facts: Facts) -> tuple[RewardConfig, float, float, str]:
    """Scaling, value bounds and a few words."""
    largest = max(abs(facts.reward_low), abs(facts.reward_high))
    scale = 1 / largest if largest > 0 else 1.0
    success = 1.0 if facts.success_ends and facts.reward_high > 0 else 0.0
    if facts.rewards == "none" and facts.success_ends:
        success = 1.0
    failure = -1.0 if facts.failure_ends and facts.reward_low < 0 else 0.0
    low = -1.0 if facts.reward_low < 0 else 0.0
    high = 1.0 if facts.reward_high > 0 or success or low == 0 else 0.0
    words = [f"times {number(scale)}"]
    if success:
        words.append("success is absorbing at 1")
    if failure:
        words.append("other ends at -1: ending early would save costs")
    if facts.rewards == "none":
        words.append("nothing is ever paid: give rewards or successes")
    if facts.rewards == "momentary":
        words.append("success passes again: an episode that ends there would teach more")
    config = RewardConfig(scale=scale, absorbing_success=success, absorbing_failure=failure)
    return config, low, high, ", ".join(words)
