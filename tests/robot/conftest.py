"""A rig around the fake robot: scripted policy, sink and operator on a clock that never sleeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.adapters.impairments import Fault, Impairments
from serfn.robot.chunk_buffer import ExecutionConfig
from serfn.robot.clock import ManualClock
from serfn.robot.contract import OperatorEvent
from serfn.robot.control_loop import ControlLoop, EpisodeReport, LoopConfig
from serfn.robot.inference import ChunkInference, InlineInference
from serfn.robot.limits import SafetyLimits, StallLimits, default_limits
from serfn.robot.recording import EpisodeEnding, EpisodeHeader, EpisodeSink, StepRecord
from serfn.robot.safety import SafetySupervisor
from serfn.robot.supervised import SupervisedRobot

JOINTS = 3
HZ = 20.0


@dataclass
class MemorySink:
    """Keeps the records of the last episode."""

    header: EpisodeHeader | None = None
    steps: list[StepRecord] = field(default_factory=list)
    ending: EpisodeEnding | None = None

    def begin(self, header: EpisodeHeader) -> None:
        self.header, self.steps, self.ending = header, [], None

    def step(self, record: StepRecord) -> None:
        self.steps.append(record)

    def end(self, ending: EpisodeEnding) -> None:
        assert self.ending is None, "an episode ends once"
        self.ending = ending

    def column(self, name: str) -> np.ndarray:
        return np.array([getattr(record, name) for record in self.steps])


@dataclass
class WaveActor:
    """A slow wave in all joints, so that chunks continue each other; keeps what it was shown."""

    chunk_size: int = 8
    version: int = 7
    begun: int = 0
    n_action_steps: int = 8
    seen: list[np.ndarray] = field(default_factory=list)

    def plan(self, steps: np.ndarray) -> np.ndarray:
        return 0.5 * np.sin(0.2 * steps)[:, None] * np.ones(JOINTS)

    def act(self, observations: np.ndarray) -> np.ndarray:
        self.seen.append(observations[0].copy())
        steps = self.begun + np.arange(self.chunk_size)
        self.begun += self.chunk_size
        return self.plan(steps)[None]

    def reset(self, seed: int) -> None:
        self.begun = 0


class ScriptedOperator:
    """Asks for things at given polls; every control step polls once."""

    def __init__(self, script: dict[int, OperatorEvent]) -> None:
        self._script, self._polls = script, -1

    def poll(self) -> Sequence[OperatorEvent]:
        self._polls += 1
        return [self._script[self._polls]] if self._polls in self._script else []


@dataclass
class Rig:
    """Everything that a test looks at after a run."""

    clock: ManualClock
    robot: FakeRobot
    supervisor: SafetySupervisor
    supervised: SupervisedRobot
    loop: ControlLoop
    sink: MemorySink
    announced: list[str]
    actor: WaveActor

    def run(self, seed: int | None = 1) -> EpisodeReport:
        """One episode between opening and closing, with a new script of faults."""
        with self.supervised:
            self.robot.reset_scene()
            return self.loop.run_episode(EpisodeHeader(0, self.robot.name, seed=seed))

    def assert_inside_envelope(self) -> None:
        """No command to the robot leaves position, speed or acceleration limits, from rest at 0 on."""
        bounds = list(self.supervisor.limits.joints.values())
        low, high, speed, acceleration = np.array(
            [(b.low, b.high, b.max_speed, b.max_acceleration) for b in bounds]
        ).T
        start = np.zeros(JOINTS)
        positions = np.array([start, start, *self.robot.sent])
        assert np.isfinite(positions).all()
        assert ((positions >= low) & (positions <= high)).all()
        velocities = np.diff(positions, axis=0) * HZ
        assert (np.abs(velocities) <= speed * (1 + 1e-9)).all()
        assert (np.abs(np.diff(velocities, axis=0)) * HZ <= acceleration * (1 + 1e-9) + 1e-6).all()


def fake_limits(robot: FakeRobot, **changes: Any) -> SafetyLimits:
    watched = dataclasses.replace(
        default_limits(robot.info, max_acceleration=60.0),
        max_current_ma=800.0,
        max_temperature_c=60.0,
        stall=StallLimits(error=0.2, seconds=0.5),
    )
    return dataclasses.replace(watched, **changes)


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig() -> MakeRig:
    def make(
        *faults: Fault,
        actor: Any = None,
        execution: ExecutionConfig | None = None,
        n_action_steps: int = 8,
        max_steps: int = 60,
        inference: Callable[[ManualClock], ChunkInference] | None = None,
        sink: EpisodeSink | None = None,
        impairments: Impairments | None = None,
        limits: dict[str, Any] | None = None,
        robot: dict[str, Any] | None = None,
        script: dict[int, OperatorEvent] | None = None,
        **loop: Any,
    ) -> Rig:
        clock = ManualClock(100.0)
        fake = FakeRobot(
            clock, JOINTS, impairments=impairments or Impairments(faults=faults), **(robot or {})
        )
        supervisor = SafetySupervisor(fake.info, fake_limits(fake, **(limits or {})), HZ)
        announced: list[str] = []
        supervised = SupervisedRobot(fake, supervisor, clock, HZ, announced.append)
        memory, wave = MemorySink(), WaveActor(n_action_steps=n_action_steps)
        control = ControlLoop(
            supervised,
            inference(clock) if inference else InlineInference(actor or wave, clock),
            sink or memory,
            LoopConfig(max_steps, execution or ExecutionConfig()),
            operator=None if script is None else ScriptedOperator(script),
            **loop,
        )
        return Rig(clock, fake, supervisor, supervised, control, memory, announced, wave)

    return make
