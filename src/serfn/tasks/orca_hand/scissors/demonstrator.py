"""The demonstrator of the scissors task: a scripted expert that looks, decides its phase, and moves.

It acts on the observation and keeps no clock: the phase and the next command follow from where hand, scissors
and tape are *now*, so that a policy without memory can learn them, and a missed insertion or a slipped blade
is answered as a person would: by looking again. Where a way back begins, hand or scissors show it until it
ends: a thumb that has missed its loop stays bent, blades that have met no tape stay closed. All that it
remembers is the opening angle that its fingers were last told, which the tracking errors of the observation
show too. Its style is drawn per episode, so that a set of demonstrations has several modes, and its hand
trembles.

Wrist commands lead the measured wrist towards a goal by a bounded distance, hence at a bounded speed. Finger
commands lie on the solved curve of `postures`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.model import JOINTS, NUM_JOINTS
from serfn.tasks.orca_hand.scissors.geometry import (
    CASE,
    HAND_AXES,
    WRIST_CENTRE_M,
    approach_rotation,
    rotation_angles,
)
from serfn.tasks.orca_hand.scissors.postures import GRIP_INDICES, GRIP_JOINTS, grip_postures
from serfn.tasks.orca_hand.scissors.reading import Reading, read
from serfn.tasks.orca_hand.scissors.state import CUT_AT_M, NUM_MOTORS

Approach = Literal["front", "above"]
Order = Literal["turn_first", "move_first"]
Opening = Literal["early", "late"]
Phase = Literal[
    "approach", "insert", "hook", "withdraw", "squeeze", "lift",
    "transport", "align", "advance", "close", "release",
]  # fmt: skip

NOISE_LEVELS = (0.0, 0.5, 1.0)
SPEEDS = (1.0, 1.5)

STANDOFF_M = 0.085
"""Distance along the scissors' normal at which the fingers stand before the loops."""
OVER_INSERTION_M = 0.010
FUNNEL_M, PLAY_M, PLAY_RAD = (-0.06, -0.02), (0.003, 0.010), (0.08, 0.4)
"""How far the hand may be aside and askew, before the loops and inside them, by depth along their normal."""
BEFORE_TAPE_M = 0.09
LIFT_M = 0.13
OPEN_RAD, WIDE_RAD, SQUEEZE_RAD, CLOSED_RAD = 0.40, 0.52, -0.25, -0.5
OPENING_STEP_RAD, CLOSING_LEAD_RAD = 0.025, 0.6

_THUMB_TIP = JOINTS.index("thumb_dip")
_HOOK_RAD = {"thumb_dip": 0.7, "index_pip": -0.15, "middle_pip": -0.15, "index_mcp": 0.04, "middle_mcp": 0.04}
"""The thumb bends around its loop; the fingers stretch, or their loop works its way towards the palm."""

_ASIDE_RAD = {"ring_abd": 0.3, "ring_mcp": -0.3, "pinky_abd": 0.5, "pinky_mcp": -0.3}


TREMOR_MEMORY = 0.85
_GAIN = 0.5
# The wrist follows its own tremor: a lead of half the amplitude moves it by about the amplitude.
_TREMOR = np.concatenate([np.repeat(_GAIN * np.array([0.0015, 0.012]), 3), np.full(NUM_JOINTS, 0.02)])


@dataclass(frozen=True)
class Style:
    """How one episode is demonstrated.

    Attributes:
        approach: where the hand comes from: along the loops' normal, or from above.
        order: what comes first on the way to the tape.
        opening: whether the scissors open on that way or only before the tape.
        speed: factor on all speeds.
        noise: level of tremor and of errors in judging poses; 0 is perfect.

    Raises:
        ConfigError: an unknown name, a speed that is not positive or a negative noise.
    """

    approach: Approach = "front"
    order: Order = "turn_first"
    opening: Opening = "late"
    speed: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("approach", Approach), ("order", Order), ("opening", Opening)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"unknown {name} {getattr(self, name)!r}; choose one of {', '.join(get_args(known))}"
                )
        if self.speed <= 0 or self.noise < 0:
            raise ConfigError(f"speed must be positive and noise not negative, got {self}")


@dataclass(frozen=True)
class _Intent:
    """What a phase wants: a goal of the wrist, the largest lead of its command (m, rad), and the fingers."""

    phase: Phase
    position: np.ndarray
    angles: np.ndarray
    lead_m: float
    lead_rad: float
    opening: float
    hook: bool
    gain: float = _GAIN


class ScissorsDemonstrator:
    """One episode's demonstrator.

    Attributes:
        style: how it works.
        phase: what it was doing in the last step.
    """

    def __init__(self, style: Style, rng: np.random.Generator) -> None:
        """Draw the errors of judgement of the episode: they stay, while the tremor changes."""
        self.style, self.phase, self._rng = style, "approach", rng
        self._grip = grip_postures()
        noise, draw = style.noise, rng.standard_normal
        self._insertion_error_m = noise * 0.001 * draw(3)
        self._insertion_error_rad = noise * 0.012 * draw(3)
        self._tape_error_rad = noise * 0.03 * draw(2)
        self._cut_at_m = CUT_AT_M + noise * rng.uniform(-0.006, 0.006)
        self._lift_m = LIFT_M + noise * rng.uniform(-0.01, 0.02)
        self._tremor = np.zeros(NUM_MOTORS)
        self._tremor_step = noise * np.sqrt(1 - TREMOR_MEMORY**2) * _TREMOR
        self._opening = 0.0

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the targets [23] of wrist (m, rad) and hand (rad) for an environment observation [89]."""
        now = read(observation)
        intent = self._before_retrieval(now) if not now.retrieved else self._after_retrieval(now)
        self.phase, self._opening = intent.phase, intent.opening
        move = _bounded(intent.gain * (intent.position - now.wrist[:3]), intent.lead_m)
        turn = _bounded(intent.gain * (intent.angles - now.wrist[3:]), intent.lead_rad)
        shake = self._tremor_step * self._rng.standard_normal(NUM_MOTORS)
        self._tremor = TREMOR_MEMORY * self._tremor + shake
        wrist = now.wrist + np.concatenate([move, turn])
        return np.concatenate([wrist, self._fingers(intent)]) + self._tremor

    def _before_retrieval(self, now: Reading) -> _Intent:
        """Stand before the loops, go in along their normal, hook the thumb, squeeze, pull out of the case.

        A thumb that bends without being in its loop has missed it: the hand goes back and stretches it.
        """
        scissors, normal = now.scissors_rotation, now.scissors_rotation[:, 1]
        hand = scissors @ self._grip.scissors_in_hand(max(now.angle, 0.0)).T
        centre = now.scissors_position + hand @ (WRIST_CENTRE_M - self._grip.pivot_m)
        x, depth, z = scissors.T @ (now.wrist[:3] - centre)
        aside, askew = float(np.hypot(x, z)), _angle_between(hand, now.hand_rotation)
        hooked = self._hooked(now)
        opening, speed = float(np.clip(now.angle, 0.0, OPEN_RAD)), self.style.speed
        if hooked > 0.3 and not now.thumb_inside:
            # Back with a bent thumb, which is stretched where nothing is in its way.
            goal, near = now.wrist[:3] - 0.03 * normal, depth > FUNNEL_M[0]
            lead = 0.0085 * speed if near else 0.0
            return _Intent("withdraw", goal, now.wrist[3:], lead, 0.0, opening, hook=near)
        if depth > 0.001 and aside < 0.012 and (hooked > 0.3 or depth > 0.005):
            return self._grasp(now, hooked, opening)
        angles = rotation_angles(hand @ HAND_AXES.T) + self._insertion_error_rad
        centre = centre + scissors @ self._insertion_error_m
        if depth > -0.10 and aside < 0.03:
            return self._enter(now, centre, angles, depth=depth, aside=aside, askew=askew, opening=opening)
        goal = centre - STANDOFF_M * normal
        way = goal - now.wrist[:3]
        if self.style.approach == "above":
            goal[2] += np.clip(np.hypot(way[0], way[1]) - 0.015, 0.0, 0.10)
        else:
            goal -= normal * np.clip(np.linalg.norm(way - normal * (normal @ way)) - 0.012, 0.0, 0.07)
        return _Intent("approach", goal, angles, 0.025 * speed, 0.1 * speed, opening, hook=False)

    def _enter(
        self,
        now: Reading,
        centre: np.ndarray,
        angles: np.ndarray,
        *,
        depth: float,
        aside: float,
        askew: float,
        opening: float,
    ) -> _Intent:
        """Go in through a funnel: the further aside or askew, the further back.

        `centre` [3] and `angles` [3] are where the wrist is to hold the loops; the hand stands `depth` from
        there along their normal, `aside` (m) and `askew` (rad).
        """
        normal, speed = now.scissors_rotation[:, 1], self.style.speed
        # Loops that the fingertips already touch turn with them: following would turn them further.
        if depth > -0.05:
            angles = now.wrist[3:] + 0.2 * (angles - now.wrist[3:])
        play_m, play_rad = np.interp(depth, FUNNEL_M, PLAY_M), np.interp(depth, FUNNEL_M, PLAY_RAD)
        back = float(np.clip(max(15 * (aside - play_m), 0.5 * (askew - play_rad)), 0.0, STANDOFF_M))
        phase: Phase = "insert" if back < 0.01 else "approach"
        way = centre + (OVER_INSERTION_M if phase == "insert" else -back) * normal - now.wrist[:3]
        # Aside counts twice, so that it is worked off before the way in is over.
        along = normal @ way * normal
        goal = now.wrist[:3] + 2 * (way - along) + along
        return _Intent(phase, goal, angles, 0.0085 * speed, 0.1 * speed, opening, hook=False)

    def _grasp(self, now: Reading, hooked: float, opening: float) -> _Intent:
        still = (now.wrist[:3], now.wrist[3:], 0.0, 0.0)
        if hooked < 0.6:
            return _Intent("hook", *still, opening=opening, hook=True)
        if not now.grasped:
            return _Intent("squeeze", *still, opening=SQUEEZE_RAD, hook=True)
        return self._lift(now)

    def _lift(self, now: Reading) -> _Intent:
        goal = now.wrist[:3] + 0.03 * now.scissors_rotation[:, 0]
        return _Intent("lift", goal, now.wrist[3:], 0.010 * self.style.speed, 0.0, SQUEEZE_RAD, hook=True)

    def _after_retrieval(self, now: Reading) -> _Intent:
        """Carry the scissors before the tape, open them, go around the tape, close.

        All goals are poses of the scissors; the measured pose of the scissors in the hand says where the
        wrist must be.
        """
        scissors, style, speed = now.scissors_rotation, self.style, self.style.speed
        above_case = now.scissors_position - now.case_position
        if above_case[2] < CASE.rest_height_m + self._lift_m and np.hypot(*above_case[:2]) < 0.08:
            return self._lift(now)
        goal_rotation = approach_rotation(
            now.tape_yaw + self._tape_error_rad[0], now.tape_pitch + self._tape_error_rad[1]
        )
        hand = goal_rotation @ scissors.T @ now.hand_rotation
        arm = now.hand_rotation.T @ (now.scissors_position - now.wrist[:3])
        angles = rotation_angles(hand @ HAND_AXES.T)
        axis = goal_rotation[:, 0]
        at_tape = now.tape_position + self._cut_at_m * axis - hand @ arm
        offset = goal_rotation.T @ (now.scissors_position - now.tape_position) - [self._cut_at_m, 0.0, 0.0]
        before, aside = offset[0], float(np.hypot(*offset[1:]))
        askew = _angle_between(goal_rotation, scissors)
        if now.angle < 0.03 and before < 0.06 and aside < 0.06:
            # Closed beside the tape: nothing fits between the blades, so they leave before they open again.
            goal = now.wrist[:3] + 0.03 * axis
            return _Intent("release", goal, now.wrist[3:], 0.0085 * speed, 0.0, SQUEEZE_RAD, hook=True)
        around = before < 0.012 and aside < 0.010
        closing = now.angle < 0.15 and before < 0.020 and aside < 0.015
        if before > -0.025 and (around or closing):
            opening = max(now.angle - CLOSING_LEAD_RAD, CLOSED_RAD)
            return _Intent("close", at_tape, angles, 0.005, 0.02, opening, hook=True, gain=0.35)
        wider = min(self._opening + OPENING_STEP_RAD * speed, WIDE_RAD if now.angle < 0.3 else OPEN_RAD)
        open_enough = now.angle > 0.18
        standoff = BEFORE_TAPE_M
        if open_enough and before < 0.1 and aside < 0.03:
            # A funnel: the further aside or askew, the further back.
            standoff = float(np.clip(max(15 * (aside - 0.003), 2 * (askew - 0.04)), 0.0, BEFORE_TAPE_M))
            standoff = 0.0 if standoff < 0.02 else standoff
        goal = at_tape + standoff * axis
        if (before < 0.1 and aside < 0.03) or np.linalg.norm(offset - [BEFORE_TAPE_M, 0.0, 0.0]) < 0.03:
            phase: Phase = "align" if standoff else "advance"
            return _Intent(phase, goal, angles, 0.0085 * speed, 0.04 * speed, wider, hook=True)
        away = float(np.linalg.norm(goal - now.wrist[:3]))
        if style.order == "turn_first" and askew > 0.2:
            goal = np.append(now.wrist[:2], np.clip(goal[2], now.wrist[2], now.wrist[2] + 0.1))
        if style.order == "move_first" and away > 0.03:
            angles = now.wrist[3:]
        opens = self._opening > 0.0 or (style.opening == "early" and askew + 2 * away < 0.55)
        opening = wider if opens else SQUEEZE_RAD
        return _Intent("transport", goal, angles, 0.025 * speed, 0.04 * speed, opening, hook=True)

    def _fingers(self, intent: _Intent) -> np.ndarray:
        """Return the joint targets [17] in rad."""
        targets = _posture(_HOOK_RAD if intent.hook else {}) + _posture(_ASIDE_RAD)
        targets[GRIP_INDICES] += self._grip.posture(intent.opening)
        return targets

    def _hooked(self, now: Reading) -> float:
        """Return how far the thumb's tip is bent around its loop, 0 to 1."""
        straight = self._grip.posture(max(now.angle, 0.0))[GRIP_JOINTS.index("thumb_dip")]
        return float((now.joints[_THUMB_TIP] - straight) / _HOOK_RAD["thumb_dip"])


def make_demonstrator(rng: np.random.Generator) -> ScissorsDemonstrator:
    """Draw the demonstrator of one episode: every mode, speed and noise level with equal probability."""
    return ScissorsDemonstrator(draw_style(rng), rng)


def draw_style(rng: np.random.Generator) -> Style:
    """Draw the style of one episode."""
    return Style(
        approach=get_args(Approach)[rng.integers(2)],
        order=get_args(Order)[rng.integers(2)],
        opening=get_args(Opening)[rng.integers(2)],
        speed=SPEEDS[rng.integers(len(SPEEDS))],
        noise=NOISE_LEVELS[rng.integers(len(NOISE_LEVELS))],
    )


def _posture(angles_rad: dict[str, float]) -> np.ndarray:
    posture = np.zeros(NUM_JOINTS)
    for name, value in angles_rad.items():
        posture[JOINTS.index(name)] = value
    return posture


def _bounded(vector: np.ndarray, length: float) -> np.ndarray:
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-12))


def _angle_between(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.arccos(np.clip((np.sum(first * second) - 1) / 2, -1.0, 1.0)))
