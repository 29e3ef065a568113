"""One check per cause: a function of a `Case` that returns a `Diagnosis`, or None where nothing is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serfn.core.config import to_dict
from serfn.reports.doctor.case import Case
from serfn.reports.statistics import difference_interval, wilson_interval

FEW = 8
"""Episodes below which nothing is said about them."""

_CLIPPED = 0.02
_SMALL_REWARD = 0.01
_CHANGED = 0.2
_CORRECTED = 0.25
_BLIND_S = 0.6
_FLAT = 1e-4
_NARROW = 0.25
_LATE = 0.5
_NO_GAIN_MINUTES = 30.0


@dataclass(frozen=True)
class Diagnosis:
    """One finding.

    Attributes:
        name: Short name of the cause.
        figure: What was measured, in one sentence.
        remedy: What to look at or to change, with the option or key.
    """

    name: str
    figure: str
    remedy: str

    @property
    def text(self) -> str:
        """Both in one line."""
        return f"{self.name}: {self.figure}; {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping that JSON can write."""
        return to_dict(self)


def labels_alike(case: Case) -> Diagnosis | None:
    """All episodes have the same label, or none has any: success teaches nothing."""
    rows = [episode.success for episode in case.episodes]
    if len(rows) < FEW or len(set(rows)) > 1:
        return None
    return {
        True: Diagnosis(
            "all successes",
            f"each of {len(rows)} episodes is labelled a success",
            "there is nothing left to learn from labels: make the task harder, or check who labels",
        ),
        False: Diagnosis(
            "no success",
            f"none of {len(rows)} episodes is a success",
            "the policy cannot learn from labels alone: take over and finish the task by hand (key t), "
            "record "
            "more demonstrations, or give a reward that grows on the way (--reward)",
        ),
        None: Diagnosis(
            "no labels",
            f"nobody said of any of {len(rows)} episodes whether it succeeded",
            "label by keys s and f, afterwards by serfn robot relabel, or name a judge with --reward",
        ),
    }[rows[0]]


def labels_corrected(case: Case) -> Diagnosis | None:
    """Labels contradict what was said when the episode ended."""
    corrected = sum(episode.corrected for episode in case.episodes)
    if len(case.episodes) < FEW or corrected < _CORRECTED * len(case.episodes):
        return None
    return Diagnosis(
        "labels contradict",
        f"{corrected} of {len(case.episodes)} episodes were labelled otherwise after their end",
        "the learner saw the first word for a while: agree on what success means, or correct the judge",
    )


def reward_scale(case: Case) -> Diagnosis | None:
    """Rewards are cut off by the scale, or hardly reach the critic."""
    scale = case.option("rewards.scale")
    rewards = np.abs(case.demonstrated_rewards)
    if scale is None or rewards.size == 0 or rewards.max() == 0:
        return None
    clipped, largest = float((rewards * scale > 1 + 1e-6).mean()), float(rewards.max())
    if clipped <= _CLIPPED and largest * scale >= _SMALL_REWARD:
        return None
    what = (
        f"{clipped:.0%} of the demonstrated steps are clipped at rewards.scale {scale:g}"
        if clipped > _CLIPPED
        else f"the largest demonstrated reward is {largest * scale:.2g} at rewards.scale {scale:g}; 1 is full"
    )
    return Diagnosis("reward scale", what, f"--set rewards.scale={1 / largest:.3g}")


def time_limit(case: Case) -> Diagnosis | None:
    """Episodes end before a demonstration would."""
    if case.limit_steps is None or len(case.demonstrated) == 0:
        return None
    longer = sum(length > case.limit_steps for length in case.demonstrated)
    if longer * 4 < len(case.demonstrated):
        return None
    return Diagnosis(
        "time limit",
        f"{longer} of {len(case.demonstrated)} demonstrations are longer than {case.limit_steps} steps, "
        "the limit",
        f"raise it to {max(case.demonstrated)} steps or more (--set episode_s=… on a robot)",
    )


def blind_time(case: Case) -> Diagnosis | None:
    """The policy replans too seldom to react."""
    steps = case.option("online.acting.n_action_steps") or case.option("chunk_size")
    if steps is None or case.control_hz is None or steps / case.control_hz <= _BLIND_S:
        return None
    return Diagnosis(
        "reacts late",
        f"{steps} steps of each chunk are executed without looking: {steps / case.control_hz:.2g} s",
        f"if that is too late: --set online.acting.n_action_steps={int(_BLIND_S * case.control_hz / 2) or 1}",
    )


def executed_otherwise(case: Case) -> Diagnosis | None:
    """What is executed is not what the policy asked for."""
    rows = [episode for episode in case.episodes if episode.by_person < 1]
    if len(rows) < FEW:
        return None
    share = float(np.mean([episode.changed for episode in rows]))
    if share <= _CHANGED:
        return None
    return Diagnosis(
        "executed otherwise",
        f"{share:.0%} of the policy's steps were executed otherwise than it asked, by over 1 % of a range",
        "the supervisor or the driver limits them: compare limits and max_speed with the demonstrations' own "
        "motion (serfn robot limits), or lower the temperature",
    )


def critic_flat(case: Case) -> Diagnosis | None:
    """The critic gives all chunks the same value."""
    high, low = case.latest("policy/q_max"), case.latest("policy/q_min")
    if not high or not low or np.mean(high) - np.mean(low) > _FLAT:
        return None
    return Diagnosis(
        "critic is flat",
        f"values of the policy's chunks lie within {np.mean(high) - np.mean(low):.1g} of each other",
        "look at rewards.scale and at whether any episode was rewarded; more steps of critic warm-up",
    )


def critic_outside(case: Case) -> Diagnosis | None:
    """Values are beyond what rewards can add up to."""
    low, high = case.option("critic.v_min"), case.option("critic.v_max")
    greatest, least = case.latest("policy/q_max"), case.latest("policy/q_min")
    if low is None or high is None or not greatest or not least:
        return None
    margin = 0.05 * (high - low)
    if max(greatest) <= high + margin and min(least) >= low - margin:
        return None
    return Diagnosis(
        "critic exploited",
        f"values reach {min(least):.3g} to {max(greatest):.3g}, beyond {low:g} to {high:g}",
        "the policy runs after the critic's errors: more return steps (agent.return_steps), a larger "
        "improvement.coefficient or a smaller target_kl",
    )


def step_size(case: Case) -> Diagnosis | None:
    """The penalty holds the policy still, or does not hold it."""
    moved = case.latest("policy/kl")
    if len(moved) < 2:
        return None
    mean, limit = float(np.mean(moved)), case.option("online.alarms.max_kl")
    if not math.isfinite(mean) or (limit is not None and mean >= 0.8 * limit):
        return Diagnosis(
            "KL at its limit",
            f"KL / D to the reference is {mean:.2g}, where {limit} ends in a rollback",
            "lower improvement.target_kl or the policy's learning rate",
        )
    target = case.option("online.improvement.target_kl")
    if mean > (1e-5 if target is None else 0.02 * target):
        return None
    return Diagnosis(
        "policy stands still",
        f"KL / D to the reference is {mean:.1g}"
        + ("" if target is None else f", where {target:g} is the target"),
        "raise agent.policy_learning_rate or lower improvement.coefficient",
    )


def variety(case: Case) -> Diagnosis | None:
    """The robot repeats one motion: nothing new is tried."""
    if len(case.episodes) < FEW or not case.demonstrated_spread:
        return None
    spread = float(np.mean([episode.spread for episode in case.episodes[-FEW:]]))
    if spread >= _NARROW * case.demonstrated_spread:
        return None
    return Diagnosis(
        "little variety",
        f"actions of the last {FEW} episodes vary {spread / case.demonstrated_spread:.0%} as much as the "
        "demonstrations'",
        "raise the temperature of online.collecting, and look at films: has the robot stopped moving?",
    )


def learner_slow(case: Case) -> Diagnosis | None:
    """The learner does not keep up with the robot."""
    if case.session is None or case.run is None:
        return None
    learning = case.session.config.get("learning", {})
    if learning.get("place") in (None, "none", "inline") or len(case.episodes) < FEW:
        return None
    wanted = learning.get("updates_per_episode", 0) * len(case.episodes)
    done = int(case.run.status.get("updates", 0))
    if not wanted or done >= _LATE * wanted:
        return None
    return Diagnosis(
        "learner is slow",
        f"{done} updates for {len(case.episodes)} episodes, where {wanted} were asked for",
        "give it a core of its own, another machine (serfn robot learn), or fewer updates_per_episode",
    )


def weights_stay(case: Case) -> Diagnosis | None:
    """New weights are refused, or promoted and never act."""
    if case.session is None:
        return None
    for robot, said in case.session.promotions.items():
        judged = [row for row in said if row.get("version", 1) > 1]
        promoted = [int(row["version"]) for row in judged if row.get("promoted")]
        rows = [row for row in case.session.episodes.get(robot, ()) if not row.discard]
        if len(judged) >= 5 and not promoted:
            return Diagnosis(
                "weights are refused",
                f"none of {len(judged)} published policies may act on '{robot}'; the last: "
                f"{judged[-1].get('reason', 'no reason')}",
                "smaller steps (improvement.target_kl), or wider promotion limits if you trust them",
            )
        if (
            promoted
            and len(rows) >= FEW
            and max(row.policy_version for row in rows[-FEW // 2 :]) < promoted[0]
        ):
            return Diagnosis(
                "weights do not arrive",
                f"policy {promoted[-1]} was promoted, the last episodes of '{robot}' acted with "
                f"{rows[-1].policy_version}",
                "the robot's process must follow the learner: look at its notes and at the connection",
            )
    return None


def interrupted(case: Case) -> Diagnosis | None:
    """Many episodes were cut by a crash."""
    cut = sum(episode.interrupted for episode in case.episodes)
    if len(case.episodes) < FEW or cut * 10 < len(case.episodes):
        return None
    return Diagnosis(
        "episodes are cut",
        f"{cut} of {len(case.episodes)} episodes were interrupted",
        "find out what ends the process: power, cable, memory",
    )


def no_gain(case: Case) -> Diagnosis | None:
    """Robot time passes and nothing gets better."""
    if case.session is None:
        return _no_gain_evaluated(case)
    rows = [episode for episode in case.episodes if episode.success is not None]
    if not rows or case.episodes[-1].minutes < _NO_GAIN_MINUTES or len(rows) < 3 * FEW:
        return None
    third = len(rows) // 3
    before = sum(bool(row.success) for row in rows[:third])
    after = sum(bool(row.success) for row in rows[-third:])
    if after > before:
        return None
    low, high = (wilson_interval(count, third) for count in (before, after))
    return Diagnosis(
        "no improvement",
        f"{after} of the last {third} episodes succeed ({high.low:.0%} to {high.high:.0%}), of the first "
        f"{before} ({low.low:.0%} to {low.high:.0%}), {case.episodes[-1].minutes:.0f} minutes apart",
        "the findings above come first; without any, the task may need more demonstrations or other rewards",
    )


def _no_gain_evaluated(case: Case) -> Diagnosis | None:
    if case.run is None:
        return None
    before, online = case.run.interim()
    if before is None or len(online) < 3 or online[-1].robot_minutes < _NO_GAIN_MINUTES / 2:
        return None
    best = max(online[1:], key=lambda point: point.result.mean_score)
    gain = difference_interval(best.result.scores, before.result.scores)
    if gain.low > 0 or best.result.mean_score > before.result.mean_score:
        return None
    return Diagnosis(
        "no improvement",
        f"none of {len(online) - 1} evaluations in {online[-1].robot_minutes:.0f} minutes of robot time is "
        f"above the BC policy's {before.result.mean_score:.3g}",
        "the findings above come first; see docs/studies.md for what the studies gained in that time",
    )


CHECKS: Sequence[Callable[[Case], Diagnosis | None]] = (
    labels_alike,
    labels_corrected,
    interrupted,
    time_limit,
    blind_time,
    executed_otherwise,
    reward_scale,
    critic_flat,
    critic_outside,
    step_size,
    variety,
    learner_slow,
    weights_stay,
    no_gain,
)
"""All checks, in the order in which a person should look at what they find."""
