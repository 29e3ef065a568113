"""Quantities that two sides both know are compared where the sides meet.

Demonstrations meet an environment, a policy another environment or a robot, a store another store. What one
of them says is a `Side`; what it does not say is not compared. Every `Finding` names both values and the way
out: a mismatch that would make every number wrong is refused, any other one is said and kept with the run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from serfn.core.errors import ConfigError
from serfn.core.sides import Finding, Place, Quantity, Side
from serfn.core.spec import ActionSpec, ObservationSpec
from serfn.core.words import number

Spec = ObservationSpec | ActionSpec | None

_ROUND_OFF = 1e-4
_SAME_RATE = 1e-3
_SMALL_SHARE = 0.1
"""Share of a range below which what is used of it in every dimension looks like another unit."""

_NUMBERED = re.compile(r"(observation|action)s?\.\d+")


def compare(
    given: Side, met: Side, place: Place, *, accepted: frozenset[Quantity] = frozenset()
) -> list[Finding]:
    """Return what does not agree, in the order in which a person should read it.

    Args:
        given: What comes: demonstrations, a policy, a store, a checkpoint.
        met: Where it comes to: an environment, a robot, another store.
        place: Where they meet; decides what is refused, and which way out is named.
        accepted: Quantities whose mismatch was asked for: it is said, and not refused.
    """
    findings: list[Finding] = []
    for check in _CHECKS:
        findings += check(given, met, place)
    return [
        Finding(found.quantity, found.text) if found.quantity in accepted else found for found in findings
    ]


def settle(findings: Sequence[Finding], error: type[ValueError] = ConfigError) -> tuple[Finding, ...]:
    """Return the findings if none of them is refused.

    Raises:
        ConfigError: Any is refused; the message has the first one. Or `error`, where another one was given.
    """
    for finding in findings:
        if finding.refused:
            raise error(finding.text)
    return tuple(findings)


def _rate(given: Side, met: Side, place: Place) -> Iterator[Finding]:
    if given.control_hz is None or met.control_hz is None:
        return
    if abs(given.control_hz - met.control_hz) <= _SAME_RATE * met.control_hz:
        return
    way_out = _RATE_WAY_OUT[place].format(given=_hz(given.control_hz), met=_hz(met.control_hz))
    yield Finding(
        "control rate",
        f"control rate: {given.name} {_hz(given.control_hz)} steps per second, {met.name} "
        f"{_hz(met.control_hz)}; {way_out}",
        refused=True,
    )


def _time_limit(given: Side, met: Side, place: Place) -> Iterator[Finding]:
    if met.time_limit is not None and given.lengths:
        longer = sum(length > met.time_limit for length in given.lengths)
        if longer:
            longest = max(given.lengths)
            reach = "success is out of reach there" if longer == len(given.lengths) else "they could not end"
            yield Finding(
                "time limit",
                f"time limit: {longer} of {len(given.lengths)} episodes of {given.name} "
                f"({min(given.lengths)} to {longest} steps) are longer than the {met.time_limit} "
                f"steps of {met.name}, and {reach}; "
                f"--set env_options.max_episode_steps={longest} allows as many",
            )
    elif given.time_limit is not None and met.time_limit is not None and place in _SAME_LIMIT:
        seconds = [
            side.time_limit / side.control_hz
            for side in (given, met)
            if side.time_limit is not None and side.control_hz is not None
        ]
        if len(seconds) == 2 and seconds[0] != seconds[1]:
            yield Finding(
                "time limit",
                f"time limit: {given.name} {given.time_limit} steps ({number(seconds[0])} s), {met.name} "
                f"{met.time_limit} ({number(seconds[1])} s); {_LIMIT_WAY_OUT[place]}",
                refused=place == "resume",
            )


def _sizes(given: Side, met: Side, place: Place) -> Iterator[Finding]:
    pairs: tuple[tuple[Quantity, Spec, Spec], ...] = (
        ("observations", given.observation, met.observation),
        ("actions", given.action, met.action),
    )
    for quantity, one, other in pairs:
        if one is not None and other is not None and one.dim != other.dim:
            yield Finding(
                quantity,
                f"{quantity}: {given.name} has {one.dim} dimensions, {met.name} {other.dim}; {_MATCH[place]}",
                refused=True,
            )


def _order(given: Side, met: Side, place: Place) -> Iterator[Finding]:
    if not given.guessed_order or given.observation is None or met.observation is None:
        return
    ours, theirs = _known(given.observation.names), _known(met.observation.names)
    if given.observation.dim != met.observation.dim or ours == theirs:
        return
    keys = list(given.guessed_order)
    wanted = _in_order_of(keys, theirs)
    named = "names none of its own" if not theirs else f"begins with '{theirs[0]}'"
    yield Finding(
        "observation order",
        f"observation order: that of {given.name} is a guess ({', '.join(keys)}), and {met.name} {named}; "
        f"say the order: serfn data convert IN OUT --set 'observations={json.dumps(wanted)}', then "
        "--demos OUT",
        refused=True,
    )


def _names(given: Side, met: Side, place: Place) -> Iterator[Finding]:
    pairs: tuple[tuple[Quantity, Spec, Spec], ...] = (
        ("observation names", given.observation, met.observation),
        ("action names", given.action, met.action),
    )
    for quantity, one, other in pairs:
        if one is None or other is None or one.dim != other.dim:
            continue
        if quantity == "observation names" and given.guessed_order:
            continue
        ours, theirs = _known(one.names), _known(other.names)
        if not ours or not theirs or ours == theirs:
            continue
        wrong = [index for index in range(one.dim) if ours[index] != theirs[index]]
        first = wrong[0]
        where = (
            f"{quantity}: dimension {first} is '{ours[first]}' of {given.name} and '{theirs[first]}' of "
            f"{met.name}"
        )
        if sorted(ours) == sorted(theirs):
            yield Finding(
                quantity,
                f"{where}, the same names in another order; put them in one order: {_MATCH[place]}",
                refused=True,
            )
        else:
            yield Finding(
                quantity,
                f"{where}, {len(wrong)} of {one.dim} differ; see that both mean the same in the same order, "
                f"else {_MATCH[place]}",
                refused=place in ("merge", "store"),
            )


def _units(given: Side, met: Side, place: Place) -> Iterator[Finding]:
    pairs: tuple[tuple[Quantity, Spec, Spec], ...] = (
        ("observation units", given.observation, met.observation),
        ("action units", given.action, met.action),
    )
    for quantity, one, other in pairs:
        if one is None or other is None or not one.units or not other.units:
            continue
        differing = [
            index
            for index, units in enumerate(zip(one.units, other.units, strict=False))
            if all(units) and units[0] != units[1]
        ]
        if differing:
            first = differing[0]
            yield Finding(
                quantity,
                f"{quantity}: dimension {first} is in {one.units[first]} of {given.name} and in "
                f"{other.units[first]} of {met.name}; convert one of them, or {_MATCH[place]}",
                refused=True,
            )


def _bounds(given: Side, met: Side, place: Place) -> Iterator[Finding]:
    one, other = given.action, met.accepts or met.action
    if one is None or other is None or one.dim != other.dim:
        return
    low, high = np.array(other.low), np.array(other.high)
    if given.used is not None:
        ours = given.used
    else:
        ours = np.array([one.low, one.high])
    slack = _ROUND_OFF * (high - low)
    beyond = (ours[0] < low - slack) | (ours[1] > high + slack)
    inside = place in ("evaluate", "merge", "store", "resume") and given.used is None
    narrower = (ours[0] > low + slack) | (ours[1] < high - slack)
    wrong = beyond | narrower if inside else beyond
    if wrong.any():
        first = int(np.argmax(wrong))
        named = f" ('{one.names[first]}')" if one.names else ""
        yield Finding(
            "action bounds",
            f"action bounds: dimension {first}{named} is in {_interval(ours[:, first])} of {given.name} and "
            f"in {_interval((low[first], high[first]))} of {met.name}; {_BOUNDS_WAY_OUT[place]}",
            refused=True,
        )
        return
    span = (ours[1] - ours[0]) / (high - low)
    if (span < _SMALL_SHARE).all():
        largest = int(np.argmax(span))
        yield Finding(
            "action scale",
            f"action scale: {given.name} uses {_interval(ours[:, largest])} where {met.name} has "
            f"{_interval((low[largest], high[largest]))}, {number(100 * float(span[largest]))}% of it at "
            "most; see that both are in the same unit (rad, degrees, normalised), else convert the actions",
        )


def _images(given: Side, met: Side, place: Place) -> Iterator[Finding]:
    for camera in sorted(given.images.keys() & met.images.keys()):
        one, other = tuple(given.images[camera]), tuple(met.images[camera])
        if one != other:
            yield Finding(
                "image sizes",
                f"image sizes: camera '{camera}' has {list(one)} in {given.name} and {list(other)} in "
                f"{met.name} (height, width, channels); {_MATCH[place]}",
                refused=True,
            )
    if place in ("merge", "store") and given.images and met.images:
        different = sorted(given.images.keys() ^ met.images.keys())
        if different:
            yield Finding(
                "image sizes",
                f"image sizes: {given.name} has the cameras {sorted(given.images)}, {met.name} "
                f"{sorted(met.images)}; {_MATCH[place]}",
                refused=True,
            )


def _chunks(given: Side, met: Side, place: Place) -> Iterator[Finding]:
    chunk = given.chunk_size
    if chunk is None:
        return
    steps = given.n_action_steps
    if steps is not None and steps + met.lead_steps > chunk:
        lead = f" and a lead of {met.lead_steps}" if met.lead_steps else ""
        yield Finding(
            "chunk",
            f"chunk: {steps} steps are executed{lead}, but chunks of {given.name} have {chunk}; lower "
            "n_action_steps" + (" or lead_steps" if met.lead_steps else ""),
            refused=True,
        )
    if met.time_limit is not None and chunk > met.time_limit:
        yield Finding(
            "chunk",
            f"chunk: {chunk} steps in {given.name}, episodes of {met.name} have {met.time_limit}; "
            f"--set chunk_size={met.time_limit} or fewer",
        )


def _latency(given: Side, met: Side, place: Place) -> Iterator[Finding]:
    if given.decision_s is None or met.control_hz is None:
        return
    # A loop that waits for the policy is late once a decision takes longer than a step.
    steps = met.lead_steps or 1
    if given.decision_s <= steps / met.control_hz:
        return
    needed = int(np.ceil(given.decision_s * met.control_hz)) + 1
    allowed = f"lead_steps {met.lead_steps} ({number(1e3 * steps / met.control_hz)} ms)"
    if not met.lead_steps:
        allowed = f"one step of {met.name} ({number(1e3 / met.control_hz)} ms)"
    yield Finding(
        "latency",
        f"latency: a decision of {given.name} takes {number(1e3 * given.decision_s)} ms, longer than "
        f"{allowed}; --set execution.mode=asynchronous --set execution.lead_steps={needed}",
    )


def _rewards(given: Side, met: Side, place: Place) -> Iterator[Finding]:
    if given.rewards is None or met.rewards is None or given.rewards.agrees(met.rewards):
        return
    yield Finding(
        "rewards",
        f"rewards: those of {given.name} are {given.rewards}, those of {met.name} {met.rewards}, and one "
        "critic learns from both; record demonstrations with the rewards of the environment, or give it "
        "theirs",
    )


_CHECKS: tuple[Callable[[Side, Side, Place], Iterator[Finding]], ...] = (
    _sizes,
    _rate,
    _units,
    _order,
    _names,
    _bounds,
    _images,
    _time_limit,
    _chunks,
    _latency,
    _rewards,
)

_SAME_LIMIT: tuple[Place, ...] = ("evaluate", "resume")

_RATE_WAY_OUT: dict[Place, str] = {
    "train": "resample with --resample targets (positions) or --resample rates (velocities, forces), or say "
    "with --set control_hz={given} that the environment has that rate",
    "evaluate": "choose an environment of {given} Hz, or say with --hz {given} that this one has that rate",
    "robot": "run the robot at the policy's rate with --set control_hz={given}, or train for {met} Hz",
    "serve": "ask for chunks at {given} steps per second, or serve a policy trained for {met} Hz",
    "merge": "make one rate of both: serfn data convert IN OUT --resample {given} --actions targets",
    "store": "record at {met} Hz, or choose another folder",
    "resume": "resume with the environment of the run, or start a new run",
}
_LIMIT_WAY_OUT: dict[Place, str] = {
    "evaluate": "success rates of both do not compare",
    "resume": "resume with --set env_options.max_episode_steps as it was, or start a new run",
}
_MATCH: dict[Place, str] = {
    "train": "record demonstrations in this environment, or choose others by a mapping (serfn data convert "
    "IN OUT --set 'observations=[…]')",
    "evaluate": "choose an environment that matches the policy",
    "robot": "use a policy trained for it, or map the robot's joints (joint_map)",
    "serve": "send what the policy was trained on",
    "merge": "merge stores of one task and robot",
    "store": "choose another folder",
    "resume": "resume with the environment of the run, or start a new run",
}
_BOUNDS_WAY_OUT: dict[Place, str] = {
    "train": "clip the data or widen the bounds",
    "evaluate": "choose an environment with the bounds of training",
    "robot": "use a policy trained for it, in the same unit",
    "serve": "use a policy trained for it, in the same unit",
    "merge": "merge stores of one task and robot",
    "store": "choose another folder",
    "resume": "resume with the environment of the run, or start a new run",
}


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names that mean something: numbers are only the order that they are in."""
    return () if all(_NUMBERED.fullmatch(name) for name in names) else names


def _in_order_of(keys: list[str], names: tuple[str, ...]) -> list[str]:
    """Return keys in the order in which dimensions of these names come, where all of them are there."""
    bare = [name.rpartition(".")[0] if name.rpartition(".")[2].isdigit() else name for name in names]
    return sorted(keys, key=bare.index) if set(keys) <= set(bare) else keys


def _hz(value: float) -> str:
    return f"{value:g}"


def _interval(bounds: Sequence[float] | np.ndarray) -> str:
    return f"[{number(float(bounds[0]))}, {number(float(bounds[1]))}]"
