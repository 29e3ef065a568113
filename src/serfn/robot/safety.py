"""The safety supervisor: every command passes it, and it trusts neither policy, learner nor person.

Each control step it looks at the measurement (`observe`) and turns what is wanted into what may be sent
(`command`). It keeps commands in the envelope, holds the robot when measurements or proposals are missing,
and latches a stop on a fault that the driver reports, over-current, over-temperature, a stall, a robot that
does not answer, or a person's request. A latched supervisor only brakes; a person must release it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Literal

import numpy as np

from serfn.robot.contract import Observation, RobotError, RobotInfo, read_vector
from serfn.robot.envelope import Envelope
from serfn.robot.health import JointHealth, describe, unfit
from serfn.robot.limits import SafetyLimits
from serfn.robot.motors import MotorGuard
from serfn.robot.watchdog import Tier, Watchdog

StopKind = Literal[
    "motor_fault",
    "over_current",
    "over_temperature",
    "stall",
    "stale_observation",
    "no_proposal",
    "robot_error",
    "recording",
    "operator",
]

Workspace = Callable[[np.ndarray, Observation], np.ndarray]
"""A task's own rule: wanted positions `[action]` and the newest observation to the nearest allowed ones."""

_LOG_ENTRIES = 10_000
_CHANGED = 1e-6


class Intervention(IntFlag):
    """What the supervisor did to one command."""

    POSITION = 1
    SPEED = 2
    ACCELERATION = 4
    WORKSPACE = 8
    NOT_FINITE = 16
    NO_PROPOSAL = 32
    STALE_OBSERVATION = 64
    HELD = 128
    STOPPED = 256


UNTOUCHED = Intervention(0)


@dataclass(frozen=True)
class StopCause:
    """Why the supervisor latched.

    Attributes:
        kind: The rule that fired.
        detail: One line for people, with the value and the joint.
        time_s: When, on the loop's clock.
    """

    kind: StopKind
    detail: str
    time_s: float

    @property
    def overload(self) -> bool:
        """Whether the motors must be relieved: the command yields to where the joints are."""
        return self.kind in ("motor_fault", "over_current", "over_temperature", "stall")


@dataclass(frozen=True)
class SafetyEvent:
    """A change in what the supervisor does: bits that appeared, or a latch.

    Attributes:
        time_s: When, on the loop's clock.
        interventions: All bits of that step.
        detail: One line for people.
    """

    time_s: float
    interventions: Intervention
    detail: str


class SafetySupervisor:
    """Turns wanted positions into commands that are safe to send.

    `counts` has the number of steps per intervention and tier, and of stops; `events` the newest changes.

    Args:
        info: The robot.
        limits: What to enforce.
        control_hz: Commands per second.
        workspace: A task's own rule on positions; its result passes the envelope like any other.

    Raises:
        ConfigError: The limits do not fit the robot.
    """

    def __init__(
        self,
        info: RobotInfo,
        limits: SafetyLimits,
        control_hz: float,
        workspace: Workspace | None = None,
    ) -> None:
        limits.check(info)
        self.info = info
        self.limits = limits
        self.counts: Counter[str] = Counter()
        self.events: deque[SafetyEvent] = deque(maxlen=_LOG_ENTRIES)
        self._workspace = workspace
        columns = (limits.column(name, info) for name in ("low", "high", "max_speed", "max_acceleration"))
        self._envelope = Envelope(*columns, period_s=1.0 / control_hz)
        self._motors = MotorGuard(info, limits)
        self._health_keys = info.state_keys + info.current_keys + info.temperature_keys
        self._moving_keys = info.position_keys or info.state_keys
        self._cause: StopCause | None = None
        self._last_bits = UNTOUCHED
        self._before = self._envelope.position
        self._observation: Observation = {}
        self._restart(0.0)

    @property
    def cause(self) -> StopCause | None:
        """Why the robot is stopped; None while it may move."""
        return self._cause

    @property
    def at_rest(self) -> bool:
        """Whether the last two commands were equal."""
        return self._envelope.at_rest

    @property
    def position(self) -> np.ndarray:
        """The last command `[action]`."""
        return self._envelope.position.copy()

    def start(self, observation: Observation, now_s: float) -> np.ndarray:
        """Begin an episode where the robot is, and return that position `[action]`.

        Raises:
            RobotError: The supervisor is latched, or a joint is outside its limits by more than the tolerance
                or not measured.
        """
        if self._cause is not None:
            raise RobotError(f"the robot is stopped ({self._cause.detail}); remove the cause and release it")
        info = self.info
        if info.position_keys:
            self._refuse_far_outside(read_vector(observation, info.position_keys))
        if keys := info.target_keys or info.position_keys:
            start = read_vector(observation, keys)
        else:
            start = self._envelope.position if info.rest is None else np.array(info.rest)
        self._refuse_far_outside(start)
        self._envelope.start(start)
        self._restart(now_s)
        self.observe(observation, now_s)
        return self.position

    def observe(self, observation: Observation | None, now_s: float) -> bool:
        """Check a measurement; None if the robot did not answer.

        Returns:
            Whether the measurement is new and sound, so that a policy may act on it.
        """
        if observation is None:
            return False
        time_key = self.info.time_key
        measured_s = now_s if time_key is None else float(observation[time_key])
        if not measured_s > self._measured_s:
            return False
        if not np.isfinite(read_vector(observation, self._health_keys)).all():
            self.counts["observation:not_finite"] += 1
            return False
        repeats = self._repeats(read_vector(observation, self._moving_keys), now_s)
        # Where the robot tells its own time, repeated readings of a later time say that nothing moved.
        self._nothing_moves = repeats and time_key is not None
        if not repeats or self._nothing_moves:
            self._measured_s = measured_s
            if broken := self._motors.check(observation, self._envelope.position, now_s):
                self.stop(*broken, now_s)
        if repeats:
            self.counts["observation:frozen"] += 1
            return False
        self._observation = observation
        self._observation_dog.feed(min(measured_s, now_s))
        return True

    def check_health(self, health: Mapping[str, JointHealth], now_s: float) -> None:
        """Stop if a driver reports a motor that must not be driven; note those that go on with a warning."""
        if bad := unfit(health):
            joint = next(iter(bad))
            self.stop("motor_fault", describe(joint, bad[joint], self.info.name), now_s)
        for joint, known in health.items():
            if known.drives and known.state != "ok" and self._warned.get(joint) != known:
                self._warned[joint] = known
                self.counts["motor:warning"] += 1
                text = describe(joint, known, self.info.name)
                self.events.append(SafetyEvent(now_s, UNTOUCHED, text))

    def blind(self, now_s: float) -> bool:
        """Whether the newest sound measurement is too old to act on."""
        return self._observation_dog.tier(now_s) >= Tier.HOLD

    def command(self, wanted: np.ndarray | None, now_s: float) -> tuple[np.ndarray, Intervention]:
        """Return what may be sent instead of `wanted`.

        Args:
            wanted: Positions `[action]`, any values; None if there is no proposal.
            now_s: Time on the loop's clock.

        Returns:
            The command `[action]`, a new float64 array inside the envelope, and what was changed.
        """
        bits, self._before = UNTOUCHED, self._envelope.position
        if wanted is None:
            bits |= Intervention.NO_PROPOSAL | Intervention.HELD
        elif wanted.shape != self._envelope.low.shape or not np.isfinite(wanted).all():
            wanted = None
            bits |= Intervention.NOT_FINITE | Intervention.HELD
        else:
            self._proposal_dog.feed(now_s)
        bits |= self._check_watchdogs(now_s)
        if wanted is None or bits & (Intervention.HELD | Intervention.STOPPED):
            command = self._stand_still()
        else:
            command, changes = self._follow(wanted)
            bits |= changes
        self._note(bits, now_s)
        return command, bits

    def hold(self, now_s: float) -> tuple[np.ndarray, Intervention]:
        """Brake and hold on purpose, as in a pause; neither this nor missing proposals are counted."""
        self._before = self._envelope.position
        self._proposal_dog.feed(now_s)
        bits = self._check_watchdogs(now_s)
        self._note(bits, now_s)
        return self._stand_still(), bits | Intervention.HELD

    def approach(self, target: np.ndarray, now_s: float) -> np.ndarray:
        """Return the next command on the way to rest at `target` `[action]`; stands still when latched."""
        self._before = self._envelope.position
        self._proposal_dog.feed(now_s)
        if self._check_watchdogs(now_s) & (Intervention.HELD | Intervention.STOPPED):
            return self._stand_still()
        return self._envelope.advance(target, settle=True)

    def stop(self, kind: StopKind, detail: str, now_s: float) -> None:
        """Latch; the first cause stays."""
        if self._cause is None:
            self._cause = StopCause(kind, detail, now_s)
            self.counts[f"stop:{kind}"] += 1
            self.events.append(SafetyEvent(now_s, Intervention.STOPPED, f"{kind}: {detail}"))

    def release(self) -> None:
        """Undo the latch, after a person has removed the cause."""
        self._cause = None

    def not_read(self, error: Exception, now_s: float) -> None:
        """Note that the robot gave no measurement; latches when that lasts as long as one may be old."""
        self.counts["robot:not_read"] += 1
        if self._observation_dog.tier(now_s) is Tier.STOP:
            self.stop("robot_error", f"the robot does not answer: {error}", now_s)

    def sent(self, now_s: float) -> None:
        """Note that the robot took the last command."""
        self._sent_dog.feed(now_s)

    def not_sent(self, error: Exception, now_s: float) -> None:
        """Take back the last command, which the robot did not take; latches when that lasts."""
        self.counts["robot:not_sent"] += 1
        self._envelope.start(self._before)
        if self._sent_dog.tier(now_s) is Tier.STOP:
            self.stop("robot_error", f"the robot takes no commands: {error}", now_s)

    def _restart(self, now_s: float) -> None:
        """Count absences from now on."""
        self._observation_dog = Watchdog(self.limits.observation_watchdog, now_s)
        self._proposal_dog = Watchdog(self.limits.policy_watchdog, now_s)
        self._sent_dog = Watchdog(self.limits.observation_watchdog, now_s)
        self._measured_s = -math.inf
        self._nothing_moves = False
        self._warned: dict[str, JointHealth] = {}
        self._seen, self._seen_command, self._seen_s = np.empty(0), self.position, now_s
        self._motors.reset()

    def _refuse_far_outside(self, position: np.ndarray) -> None:
        envelope, slack = self._envelope, self.limits.start_tolerance
        # Written so that NaN counts as outside.
        outside = ~((position >= envelope.low - slack) & (position <= envelope.high + slack))
        if outside.any():
            joint = int(np.argmax(outside))
            raise RobotError(
                f"joint '{self.info.action.names[joint]}' starts at {position[joint]:.3f}, outside "
                f"[{envelope.low[joint]:.3f}, {envelope.high[joint]:.3f}]; move it inside by hand"
            )

    def _follow(self, wanted: np.ndarray) -> tuple[np.ndarray, Intervention]:
        bits, envelope = UNTOUCHED, self._envelope
        if self._workspace is not None:
            allowed = self._workspace(wanted, self._observation)
            if allowed.shape != wanted.shape or not np.isfinite(allowed).all():
                return envelope.brake(), Intervention.WORKSPACE | Intervention.HELD
            # Huge proposals may differ by more than a number can be.
            with np.errstate(over="ignore"):
                if np.abs(allowed - wanted).max() > _CHANGED:
                    bits |= Intervention.WORKSPACE
            wanted = allowed
        before = envelope.position
        inside = np.clip(wanted, envelope.low, envelope.high)
        command = envelope.advance(wanted)
        if (np.abs(inside - wanted) > _CHANGED).any():
            bits |= Intervention.POSITION
        changed = np.abs(command - inside) > _CHANGED
        too_fast = changed & (np.abs(inside - before) > envelope.max_step)
        if too_fast.any():
            bits |= Intervention.SPEED
        if (changed & ~too_fast).any():
            bits |= Intervention.ACCELERATION
        return command, bits

    def _stand_still(self) -> np.ndarray:
        """Brake; under overload, command the joints to where they are, so that the motors stop pushing."""
        keys = self.info.position_keys
        if self._cause is None or not self._cause.overload or not keys or not self._observation:
            return self._envelope.brake()
        return self._envelope.advance(read_vector(self._observation, keys), settle=True)

    def _check_watchdogs(self, now_s: float) -> Intervention:
        bits = UNTOUCHED
        tier = self._observation_dog.tier(now_s)
        if tier > Tier.OK:
            self.counts[f"observation:{tier.name.lower()}"] += 1
            bits |= Intervention.STALE_OBSERVATION
        if tier >= Tier.HOLD:
            bits |= Intervention.HELD
        if tier is Tier.STOP:
            age_s = self._observation_dog.age_s(now_s)
            if self._nothing_moves:
                still_s = now_s - self._seen_s
                why = "the motors are off or blocked, or the sensors are stuck"
                self.stop("stall", f"no joint has moved for {still_s:.2f} s though commanded: {why}", now_s)
            else:
                self.stop("stale_observation", f"no sound measurement for {age_s:.2f} s", now_s)
        tier = self._proposal_dog.tier(now_s)
        if tier > Tier.OK:
            self.counts[f"proposal:{tier.name.lower()}"] += 1
        if tier is Tier.STOP:
            age_s = self._proposal_dog.age_s(now_s)
            self.stop("no_proposal", f"nothing to execute for {age_s:.2f} s", now_s)
        return bits if self._cause is None else bits | Intervention.STOPPED

    def _repeats(self, measured: np.ndarray, now_s: float) -> bool:
        """Whether measurements repeat bit for bit although the command has moved."""
        moved = np.abs(self._envelope.position - self._seen_command).max() > self.limits.frozen_distance
        if moved and np.array_equal(measured, self._seen):
            return now_s - self._seen_s >= self.limits.frozen_s
        if not np.array_equal(measured, self._seen):
            self._seen, self._seen_command, self._seen_s = measured, self.position, now_s
        return False

    def _note(self, bits: Intervention, now_s: float) -> None:
        for flag in bits:
            self.counts[str(flag.name).lower()] += 1
        if bits & ~self._last_bits:
            names = " ".join(str(flag.name).lower() for flag in bits)
            self.events.append(SafetyEvent(now_s, bits, names))
        self._last_bits = bits
