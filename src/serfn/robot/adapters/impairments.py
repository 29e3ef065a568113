"""What makes a simulated robot as unpleasant as a real one: latency, jitter, lost frames, and faults."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from serfn.core.errors import ConfigError
from serfn.robot.clock import Clock
from serfn.robot.contract import Observation, RobotError, RobotInfo

FaultKind = Literal["freeze", "stuck_joint", "nan", "timeout", "over_current", "over_temperature"]

_TOO_MUCH = 1e6


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong for a while.

    Attributes:
        kind: `freeze`: all measured positions repeat; `stuck_joint`: those of `joint` do; `nan`: they are not
            numbers; `timeout`: the robot does not answer; `over_current`, `over_temperature`: of `joint`.
        begin_s: Begin, in seconds since the scene's last reset.
        end_s: End.
        joint: Index of the joint.

    Raises:
        ConfigError: The times are not ordered or the joint is negative.
    """

    kind: FaultKind
    begin_s: float
    end_s: float = math.inf
    joint: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.begin_s < self.end_s:
            raise ConfigError(f"the fault lasts from {self.begin_s} to {self.end_s} s; order the times")
        if self.joint < 0:
            raise ConfigError(f"the fault's joint is {self.joint}; it must be 0 or more")


@dataclass(frozen=True)
class Impairments:
    """How far a simulated robot falls short of a perfect one.

    Attributes:
        sensor_latency_s: Age of what is measured.
        actuator_delay_steps: Whole control steps until a command takes effect.
        jitter_s: Reading takes up to this much longer, uniformly.
        drop_probability: Probability that a reading repeats the last one.
        timeout_s: How long a robot that does not answer keeps its caller waiting.
        faults: What goes wrong, and when.

    Raises:
        ConfigError: A number is negative, or a probability above 1.
    """

    sensor_latency_s: float = 0.0
    actuator_delay_steps: int = 0
    jitter_s: float = 0.0
    drop_probability: float = 0.0
    timeout_s: float = 0.01
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        for name in ("sensor_latency_s", "actuator_delay_steps", "jitter_s", "drop_probability", "timeout_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more and finite")
        if self.drop_probability > 1:
            raise ConfigError(f"drop_probability is {self.drop_probability}; it must be at most 1")


class ImpairedChannel:
    """Passes measurements from a perfect robot to its reader, and spoils them.

    Args:
        impairments: How.
        info: The robot; it needs a `time_key`.
        clock: Clock of the loop.
        generator: Source of jitter and lost frames.
    """

    def __init__(
        self, impairments: Impairments, info: RobotInfo, clock: Clock, generator: np.random.Generator
    ) -> None:
        self._impairments = impairments
        self._info = info
        self._clock = clock
        self._generator = generator
        self.reset()

    def reset(self) -> None:
        """Begin anew: faults are timed from now."""
        self._start_s = self._clock.now()
        self._history: deque[tuple[float, Observation]] = deque(maxlen=64)
        self._last: Observation | None = None
        self._stuck: dict[str, float] = {}

    def check_answer(self) -> None:
        """Wait and raise while the robot does not answer.

        Raises:
            RobotError: A `timeout` is on.
        """
        if self._active("timeout"):
            self._clock.sleep_until(self._clock.now() + self._impairments.timeout_s)
            raise RobotError(f"no answer within {self._impairments.timeout_s:g} s")

    def read(self, observation: Observation) -> Observation:
        """Return what the reader gets instead of the perfect `observation` of now.

        Raises:
            RobotError: A `timeout` is on.
        """
        self.check_answer()
        settings, now_s = self._impairments, self._clock.now()
        if settings.jitter_s:
            self._clock.sleep_until(now_s + self._generator.uniform(0.0, settings.jitter_s))
        self._history.append((now_s, observation))
        if (
            self._last is not None
            and settings.drop_probability
            and self._generator.random() < settings.drop_probability
        ):
            return self._last
        while len(self._history) > 1 and self._history[1][0] <= now_s - settings.sensor_latency_s + 1e-9:
            self._history.popleft()
        self._last = self._spoil(dict(self._history[0][1]))
        return self._last

    def _spoil(self, observation: Observation) -> Observation:
        info = self._info
        for fault in self._impairments.faults:
            if not self._is_on(fault):
                continue
            positions = info.position_keys or info.state_keys
            match fault.kind:
                case "freeze" | "stuck_joint":
                    keys = positions if fault.kind == "freeze" else positions[fault.joint : fault.joint + 1]
                    for key in keys:
                        observation[key] = self._stuck.setdefault(key, observation[key])
                case "nan":
                    observation.update(dict.fromkeys(positions, math.nan))
                case "over_current":
                    observation[info.current_keys[fault.joint]] = _TOO_MUCH
                case "over_temperature":
                    observation[info.temperature_keys[fault.joint]] = _TOO_MUCH
        return observation

    def _active(self, kind: FaultKind) -> bool:
        return any(fault.kind == kind and self._is_on(fault) for fault in self._impairments.faults)

    def _is_on(self, fault: Fault) -> bool:
        return fault.begin_s <= self._clock.now() - self._start_s + 1e-9 < fault.end_s
