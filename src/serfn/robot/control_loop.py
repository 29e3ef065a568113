"""The control loop: at a fixed rate, measure, decide, pass the supervisor, send, record what was executed.

The control thread waits for nothing without a bound: inference and recording have threads of their own, a
person is polled, and a robot that does not answer raises. What it records is what was executed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from serfn.core.errors import ConfigError
from serfn.robot.chunk_buffer import ChunkBuffer, ExecutionConfig, Proposal
from serfn.robot.contract import Operator, Referee, RobotError, Teleoperator, Verdict
from serfn.robot.episode_recorder import EpisodeRecorder, Executed
from serfn.robot.inference import ChunkInference
from serfn.robot.priority import CONTROL_PRIORITY, real_time_priority
from serfn.robot.recording import EndReason, EpisodeEnding, EpisodeHeader, EpisodeSink, RecordingError
from serfn.robot.safety import Intervention, StopCause
from serfn.robot.supervised import RestState, SupervisedRobot
from serfn.robot.timing import LoopTiming, Pace

_STOPPED_OR_HELD = Intervention.HELD | Intervention.STOPPED


@dataclass(frozen=True)
class LoopConfig:
    """Settings of the control loop.

    Attributes:
        max_steps: Time limit of an episode in control steps.
        execution: How chunks are executed.
        wait_fraction: How long a step waits for a synchronous policy, as a fraction of the period.
        deadline_fraction: A command sent later than this fraction of the period after its step's scheduled
            start has missed its deadline.
        first_chunk_s: How long the robot, at rest, waits for the first chunk of an episode.
        real_time: Whether the control thread asks for real-time priority while an episode runs.

    Raises:
        ConfigError: A number is out of range.
    """

    max_steps: int
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    wait_fraction: float = 0.5
    deadline_fraction: float = 0.75
    first_chunk_s: float = 5.0
    real_time: bool = False

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ConfigError(f"max_steps is {self.max_steps}; it must be at least 1")
        if not 0 < self.wait_fraction <= self.deadline_fraction <= 1:
            raise ConfigError(
                f"wait_fraction is {self.wait_fraction} and deadline_fraction {self.deadline_fraction}; "
                "order them in (0, 1]"
            )
        if not self.first_chunk_s > 0:
            raise ConfigError(f"first_chunk_s is {self.first_chunk_s}; it must be positive")


@dataclass(frozen=True)
class EpisodeReport:
    """What became of one episode.

    Attributes:
        header: The episode.
        ending: How it ended, as recorded.
        steps: Control steps executed.
        state: Where the robot was left.
        cause: Why the supervisor is latched; None if the next episode may begin.
    """

    header: EpisodeHeader
    ending: EpisodeEnding
    steps: int
    state: RestState
    cause: StopCause | None


class ControlLoop:
    """Runs episodes on a robot that is open.

    `counts` has the numbers of late chunks, decisions without actions, and failures of the teleoperator;
    `timing` the punctuality of all steps.

    Args:
        robot: The robot behind its supervisor.
        inference: Where chunks come from; None leaves the robot to the teleoperator, from the first step on.
        sink: Where the records go.
        config: Settings.
        operator: A person who may stop, pause, take over, label; None if there is none.
        teleoperator: What moves the robot while a person has taken over.
        referee: Judge of each step; None takes the robot if it is one.

    Raises:
        ConfigError: The chunks of the policy are too short for the execution, or there is neither a policy
            nor a teleoperator.
    """

    def __init__(
        self,
        robot: SupervisedRobot,
        inference: ChunkInference | None,
        sink: EpisodeSink,
        config: LoopConfig,
        *,
        operator: Operator | None = None,
        teleoperator: Teleoperator | None = None,
        referee: Referee | None = None,
    ) -> None:
        self.robot = robot
        self.counts: Counter[str] = Counter()
        self._clock = robot.clock
        self._period_s = 1.0 / robot.control_hz
        self.timing = LoopTiming(self._period_s, config.deadline_fraction * self._period_s)
        self._inference = inference
        self._sink = sink
        self._config = config
        self._operator = operator
        self._teleoperator = teleoperator
        self._referee = robot.robot if referee is None and isinstance(robot.robot, Referee) else referee
        self._buffer: ChunkBuffer | None = None
        if inference is not None:
            self._buffer = ChunkBuffer(config.execution, inference.chunk_size, inference.n_action_steps)
        elif teleoperator is None:
            raise ConfigError("nothing moves the robot: give a policy, a teleoperator or both")

    def run_episode(self, header: EpisodeHeader) -> EpisodeReport:
        """Run one episode from where the robot is, and bring it to rest.

        The scene must have been reset. Faults of robot, policy and recording end the episode and are in the
        report; anything else, such as Ctrl-C, ends it too and is raised.

        Raises:
            RobotError: The robot cannot start: stopped, outside its limits, or silent.
        """
        self.robot.start()
        self._forget_chunks()
        if self._inference is not None:
            self._inference.reset(0 if header.seed is None else header.seed)
        self.timing.interrupted()
        episode = _Episode(EpisodeRecorder(self._sink, header, self._clock.now()))
        if self._inference is None:
            self._take_over(episode)
        outcome: tuple[EndReason, str] = ("interrupted", "the loop was interrupted")
        try:
            with real_time_priority(CONTROL_PRIORITY if self._config.real_time else None) as granted:
                self.counts["real_time:refused"] += self._config.real_time and not granted
                outcome = self._run(episode)
        except RecordingError as error:
            self.robot.supervisor.stop("recording", str(error), self._clock.now())
            outcome = "fault", str(error)
        finally:
            ended_s, observation, images = self._clock.now(), self.robot.observation, self.robot.images
            # At rest first: what follows may wait for disks.
            self.robot.come_to_rest()
            ending = episode.recorder.ending(*outcome, episode.verdict, ended_s, observation, images)
            self._close_recording(episode.recorder, ending)
        cause = self.robot.supervisor.cause
        return EpisodeReport(header, ending, episode.recorder.steps, self.robot.state, cause)

    def _run(self, episode: _Episode) -> tuple[EndReason, str]:
        robot, recorder = self.robot, episode.recorder
        pace = Pace(self._clock, self._period_s)
        while True:
            scheduled_s, now_s = pace.wait()
            robot.read(now_s)
            if self._referee is not None and recorder.steps:
                episode.verdict = self._referee.judge(robot.measured)
            recorder.judged(episode.verdict)
            if (outcome := self._outcome(episode, now_s)) is not None:
                return outcome
            step = recorder.steps
            proposal = self._proposal(step, now_s)
            if step == 0:
                # The first chunk may have taken longer than a step; the robot was at rest meanwhile.
                pace.restart()
                scheduled_s, now_s = pace.wait()
                robot.read(now_s)
            wanted = None if proposal is None else proposal.action
            if episode.taken_over:
                wanted = self._teleoperated()
            executed, bits = robot.send(wanted, self._clock.now())
            self.timing.add(scheduled_s, now_s, self._clock.now())
            held = bool(bits & _STOPPED_OR_HELD)
            if held and proposal is not None:
                # The rest of the chunk was decided for a place where the robot is not.
                self._forget_chunks()
            recorder.executed(
                Executed(
                    time_s=now_s,
                    observation=robot.observation,
                    images=robot.images,
                    action=executed,
                    proposal=proposal,
                    decision=held or episode.taken_over or (proposal is not None and proposal.chunk_start),
                    intervention=episode.taken_over,
                    safety=int(bits),
                    stage=episode.stage,
                )
            )

    def _outcome(self, episode: _Episode, now_s: float) -> tuple[EndReason, str] | None:
        """Return how the episode ends at the present observation, or None if it goes on."""
        asked = self._ask_operator(episode, now_s)
        if (cause := self.robot.supervisor.cause) is not None:
            return "operator_stop" if cause.kind == "operator" else "fault", cause.detail
        if asked is not None:
            return asked
        if episode.verdict.terminated:
            return "terminated", "the task is over"
        if episode.verdict.truncated:
            return "time_limit", "the scene cannot go on"
        if episode.recorder.steps >= self._config.max_steps:
            return "time_limit", f"{self._config.max_steps} steps are over"
        return None

    def _ask_operator(self, episode: _Episode, now_s: float) -> tuple[EndReason, str] | None:
        outcome: tuple[EndReason, str] | None = None
        for event in self._operator.poll() if self._operator is not None else ():
            match event.command:
                case "stop":
                    self.robot.supervisor.stop("operator", "the operator stopped the robot", now_s)
                case "pause":
                    outcome = outcome or ("paused", "the operator paused")
                case "success" | "failure" | "discard":
                    outcome = outcome or (event.command, f"the operator says {event.command}")
                case "take_over":
                    self._take_over(episode)
                case "hand_back":
                    episode.taken_over = self._inference is None
                    self._forget_chunks()
                case "stage":
                    episode.stage = event.value
        return outcome

    def _take_over(self, episode: _Episode) -> None:
        if self._teleoperator is None:
            self.counts["take_over:no_teleoperator"] += 1
            return
        episode.taken_over = True
        names = self.robot.robot.info.action.names
        self._teleoperator.send_feedback(
            dict(zip(names, self.robot.supervisor.position.tolist(), strict=True))
        )

    def _teleoperated(self) -> np.ndarray | None:
        """Return the positions that the person wants `[action]`; None if the device fails."""
        assert self._teleoperator is not None
        wanted = self.robot.supervisor.position
        try:
            action = self._teleoperator.get_action()
            for index, name in enumerate(self.robot.robot.info.action.names):
                wanted[index] = action.get(name, wanted[index])
        except (RobotError, OSError, ValueError) as error:
            self.counts[f"teleoperator:{type(error).__name__}"] += 1
            return None
        return wanted

    def _proposal(self, step: int, now_s: float) -> Proposal | None:
        """Ask for chunks, take those that are there, and return what the policy wants now."""
        buffer = self._buffer
        if buffer is None or self._inference is None:
            return None
        if buffer.wants_chunk(step) and not self.robot.supervisor.blind(now_s):
            self._inference.submit(self.robot.observation, step)
            buffer.requested(step)
        if buffer.pending:
            config, timeout_s = self._config, 0.0
            if step == 0:
                timeout_s = config.first_chunk_s
            elif not config.execution.asynchronous:
                timeout_s = config.wait_fraction * self._period_s
            decision = self._inference.collect(timeout_s)
            if decision is not None:
                self.counts["chunks"] += 1
                self.counts["chunks:flagged"] += decision.flagged
                self.counts["chunks:without_actions"] += decision.actions is None
                buffer.offer(decision)
            elif timeout_s:
                self.counts["chunks:late"] += 1
        return buffer.take()

    def _forget_chunks(self) -> None:
        if self._buffer is not None:
            self._buffer.clear()

    def _close_recording(self, recorder: EpisodeRecorder, ending: EpisodeEnding) -> None:
        try:
            recorder.end(ending)
        except RecordingError as error:
            self.robot.supervisor.stop("recording", str(error), self._clock.now())


@dataclass(eq=False)
class _Episode:
    """What changes during one episode."""

    recorder: EpisodeRecorder
    verdict: Verdict = field(default_factory=Verdict)
    taken_over: bool = False
    stage: int = 0
