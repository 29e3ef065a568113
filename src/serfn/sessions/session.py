"""A session on one robot: episodes one after the other, with people, a budget and a defined end.

Between episodes the robot holds where it stopped; at the end, whatever the reason, it parks and is closed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np

from serfn.core.config import to_dict
from serfn.core.files import no_room, write_atomically
from serfn.core.seeding import torch_seed
from serfn.core.spec import TaskSpec
from serfn.data.episode import Episode
from serfn.data.store.store import EpisodeStore
from serfn.robot.budget import InteractionUse, read_use
from serfn.robot.clock import Clock
from serfn.robot.contract import Operator, Referee, Robot, SceneReset, Teleoperator
from serfn.robot.control_loop import ControlLoop, EpisodeReport, LoopConfig
from serfn.robot.gate import LikelihoodGate
from serfn.robot.inference import ThreadedInference
from serfn.robot.keyboard import SessionRequest
from serfn.robot.recording import EpisodeHeader, QueuedSink
from serfn.robot.safety import SafetySupervisor, Workspace
from serfn.robot.supervised import SupervisedRobot
from serfn.sessions.config import RobotRunConfig
from serfn.sessions.fit import (
    check_confirmation,
    check_fit,
    check_reset,
    session_limits,
    session_referee,
    session_workspace,
)
from serfn.sessions.late_labels import LateLabels
from serfn.sessions.policy_slot import PolicySlot
from serfn.sessions.recorder import Recorded, StoreRecorder

_POLL_HZ = 20.0

Phase = Literal["starting", "waiting", "resetting", "running", "resting", "stopped", "learning", "over"]


class Person(Operator, Protocol):
    """An operator who also answers between episodes."""

    def session_requests(self) -> Sequence[SessionRequest]:
        """Return what was asked of the session since the last call; never waits."""
        ...


class SessionWatcher(Protocol):
    """Is told what happens, to show it."""

    def phase(self, phase: Phase, text: str) -> None:
        """The session entered a phase; `text` says what is expected of a person, or what is going on."""
        ...

    def episode_ended(self, outcome: Outcome) -> None:
        """An episode is over and, if it had any steps, safe."""
        ...

    def note(self, text: str) -> None:
        """Something happened that people should know."""
        ...


class SilentWatcher:
    """Watches and says nothing."""

    def phase(self, phase: Phase, text: str) -> None:
        """Do nothing."""

    def episode_ended(self, outcome: Outcome) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Outcome:
    """What became of one episode.

    Attributes:
        report: What the control loop says.
        recorded: What is safe.
    """

    report: EpisodeReport
    recorded: Recorded

    @property
    def failed(self) -> bool:
        """Whether the task failed or the supervisor stopped the robot."""
        ending = self.report.ending
        return ending.reason == "fault" or (ending.terminated and not ending.success)


class RobotSession:
    """Runs episodes with whatever is in the slot; a context manager that parks and closes the robot.

    Args:
        config: Configuration.
        task: Dimensions, bounds and time limit of the policy.
        robot: The robot, not connected.
        slot: What acts; None leaves the robot to the teleoperator, which records.
        store: Folder of the experience; made if it is not there.
        use_file: File that keeps what was used of the budget, over restarts.
        clock: Clock of the loop, and of the robot.
        person: Who is there; None if nobody is.
        teleoperator: How that person moves the robot.
        gate: Judges chunks by their likelihood.
        referee: Judge of each step; None takes the one of the configuration, or the robot if it judges.
        workspace: A task's own rule on positions; None takes the one of the configuration.
        watcher: Is told what happens.
        confirmed: Whether a person has confirmed the limits already; a simulation needs nobody who does.

    Raises:
        ConfigError: The policy does not fit the robot; or hardware has no limits file, or nobody confirms it.
        DataError: The store is in use, or holds something else.
    """

    def __init__(
        self,
        config: RobotRunConfig,
        task: TaskSpec,
        robot: Robot,
        slot: PolicySlot | None,
        store: Path,
        use_file: Path,
        *,
        clock: Clock,
        person: Person | None = None,
        teleoperator: Teleoperator | None = None,
        gate: LikelihoodGate | None = None,
        referee: Referee | None = None,
        workspace: Workspace | None = None,
        watcher: SessionWatcher | None = None,
        confirmed: bool = False,
    ) -> None:
        self.config, self.clock = config, clock
        self.watcher: SessionWatcher = watcher or SilentWatcher()
        self.control_hz = config.control_hz or robot.info.control_hz
        limit_s = task.max_episode_steps / task.control_hz
        self.task = dataclasses.replace(
            task,
            control_hz=self.control_hz,
            max_episode_steps=max(1, round(limit_s * self.control_hz)),
        )
        self.findings = check_fit(task, robot, control_hz=config.control_hz)
        check_reset(config, robot, nobody=person is None)
        self.limits = session_limits(config, robot)
        check_confirmation(robot, nobody=person is None, confirmed=confirmed)
        for finding in self.findings:
            self.watcher.note(finding.text)
        workspace = workspace or session_workspace(config)
        self.supervisor = SafetySupervisor(robot.info, self.limits, self.control_hz, workspace)
        self.robot = SupervisedRobot(robot, self.supervisor, clock, self.control_hz, self.watcher.note)
        self.slot, self.person = slot, person
        self._use_file = use_file
        self.use = read_use(use_file)
        self.phase: Phase = "starting"
        self.on_roll_back: Callable[[], None] = lambda: None
        self._teleoperator = teleoperator
        self._quit = False
        self._confirmed = confirmed or robot.info.simulated
        self.recorder = StoreRecorder(store, self.task, flush="chunk")
        if self.recorder.recovered:
            self.watcher.note(f"{self.recorder.recovered} unfinished episodes are kept, as interrupted")
        self._late_labels = LateLabels(store, clock, self.watcher.note)
        self._count_what_a_crash_hid(EpisodeStore(store))
        self._sink = QueuedSink(self.recorder)
        self.gate = gate
        self._inference = None
        if slot is not None:
            self._inference = ThreadedInference(slot, clock, gate, real_time=config.real_time)
        steps = (limit_s if config.episode_s is None else config.episode_s) * self.control_hz
        self.loop = ControlLoop(
            self.robot,
            self._inference,
            self._sink,
            LoopConfig(
                max_steps=max(1, round(steps)), execution=config.execution, real_time=config.real_time
            ),
            operator=person,
            teleoperator=teleoperator,
            referee=referee or session_referee(config, robot),
        )

    def __enter__(self) -> Self:
        """Show the limits, have them confirmed on hardware, and open the robot and the teleoperator."""
        try:
            if self._teleoperator is not None and not self._teleoperator.is_connected:
                self._teleoperator.connect()
            self.robot.show_limits()
            # Asked before connecting: an environment that drives hardware may move as soon as it is reset.
            if not self._confirmed:
                self._confirmed = self._wait_for_start("read the limits, then press enter to let it move")
            if self._confirmed:
                self.robot.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Park and close the robot, and commit what was recorded."""
        self.close()

    def close(self) -> None:
        """Park and close the robot, whatever else fails, and let others write the store."""
        try:
            self.robot.close()
        finally:
            if self._teleoperator is not None and self._teleoperator.is_connected:
                self._teleoperator.disconnect()
            if self._inference is not None:
                self._inference.close()
            self._sink.close()
            self.recorder.close()

    @property
    def ended(self) -> str | None:
        """Return why no further episode may begin, or None."""
        if self._quit:
            return "the operator ended the session"
        cause = self.supervisor.cause
        if cause is not None and self.person is None:
            return f"the robot is stopped: {cause.detail}"
        if (full := no_room(self.recorder.path)) is not None:
            return full
        return self.config.budget.exhausted(self.use)

    def request_end(self) -> None:
        """Begin no further episode."""
        self._quit = True

    def run_episode(self) -> Outcome | None:
        """Reset the scene and run one episode; None if the session ended before it could begin.

        Raises:
            RobotError: The robot cannot start.
        """
        if not self._confirmed or not self._ready():
            return None
        index = self.use.episodes
        seed = torch_seed(self.config.seed, "episode", index) % 2**31
        if not self._reset(seed):
            return None
        header = EpisodeHeader(
            index=index,
            robot=self.robot.robot.info.name,
            task=self.config.task or self.task.id,
            seed=seed,
            policy_version=0 if self.slot is None else self.slot.episode_begins(),
        )
        acting = "a person" if self.slot is None else f"policy {header.policy_version}"
        self._enter("running", f"episode {index}, {acting}")
        try:
            report = self.loop.run_episode(header)
        except BaseException:
            self._account(discarded=False, stopped=True)
            raise
        outcome = Outcome(report, self.recorder.last)
        self._late_labels.ended(outcome.recorded.number)
        self._account(discarded=not report.ending.keep, stopped=report.cause is not None)
        if self.person is not None:
            self._answer(self.person.session_requests())
        self.watcher.episode_ended(outcome)
        self._enter("stopped" if report.cause else "resting", report.ending.detail)
        if report.ending.reason == "paused":
            self._wait_for_start("paused; press enter to go on")
        return outcome

    def episode(self, number: int) -> Episode:
        """Return a committed episode of this session, without images."""
        return EpisodeStore(self.recorder.path).episode(number, images=False)

    def _ready(self) -> bool:
        """Wait until a person has released a latch or asked to start; return whether to go on."""
        self._answer_requests()
        while self.supervisor.cause is not None and self.person is not None and not self._quit:
            self._enter("stopped", f"{self.supervisor.cause.detail}; remove the cause, then press u, or q")
            self._pause()
            self._answer_requests()
        return self.ended is None

    def _reset(self, seed: int) -> bool:
        robot = self.robot.robot
        self._enter("resetting", "the scene is put back")
        if self.config.reset == "person":
            if not self._wait_for_start("put the scene back, then press enter"):
                return False
        elif self.config.reset == "scene" and isinstance(robot, SceneReset):
            robot.reset_scene(seed)
        self._rest()
        if self.config.reset != "none":
            self._use(self.use.after_reset())
        return not self._quit and self.supervisor.cause is None

    def _wait_for_start(self, text: str) -> bool:
        """Wait for a person; return whether to go on. Without a person there is nobody to wait for."""
        if self.person is None:
            return not self._quit
        self._enter("waiting", text)
        while not self._quit:
            if "start" in self._answer_requests():
                return self.supervisor.cause is None or self._ready()
            self._pause()
        return False

    def _rest(self) -> None:
        until_s = self.clock.now() + self.config.rest_s
        while self.clock.now() < until_s and not self._quit:
            self._answer_requests()
            self._pause()

    def _answer_requests(self) -> set[SessionRequest]:
        """Do what a person asked for between episodes, and return it."""
        if self.person is None:
            return set()
        asked = self._answer(self.person.session_requests())
        for event in self.person.poll():
            # Taking over means nothing while no episode runs; stopping always does.
            if event.command == "stop":
                self.supervisor.stop("operator", "the operator stopped the robot", self.clock.now())
            elif event.command == "resume":
                asked.add("start")
            elif event.command in ("success", "failure", "discard"):
                self._late_labels.say(event.command)
        if "release" in asked and self.supervisor.cause is not None:
            self.watcher.note(f"released: {self.supervisor.cause.detail}")
            self.supervisor.release()
        return asked

    def _answer(self, requests: Sequence[SessionRequest]) -> set[SessionRequest]:
        if "quit" in requests:
            self._quit = True
        if "roll_back" in requests:
            self.on_roll_back()
        return set(requests)

    def _pause(self) -> None:
        self.clock.sleep_until(self.clock.now() + 1.0 / _POLL_HZ)

    def _account(self, *, discarded: bool, stopped: bool) -> None:
        recorded = self.recorder.last
        self._use(
            self.use.after_episode(
                minutes=recorded.steps / self.control_hz / 60,
                interventions=recorded.interventions,
                discarded=discarded,
                stopped=stopped,
            )
        )

    def _count_what_a_crash_hid(self, store: EpisodeStore) -> None:
        """Count episodes that were stored before a crash and not yet counted."""
        hidden = len(store) - self.use.episodes
        if hidden <= 0:
            return
        use = self.use
        for number in store.numbers[-hidden:]:
            episode = store.episode(number, images=False)
            acted = episode.interventions if episode.interventions is not None else np.zeros(1, np.bool_)
            use = use.after_episode(
                minutes=episode.length / self.control_hz / 60,
                interventions=int(acted[0]) + int(np.count_nonzero(acted[1:] & ~acted[:-1])),
                discarded=False,
                stopped=False,
            )
        self._use(use)

    def _enter(self, phase: Phase, text: str) -> None:
        self.phase = phase
        self.watcher.phase(phase, text)

    def _use(self, use: InteractionUse) -> None:
        self.use = use
        try:
            write_atomically(self._use_file, json.dumps(to_dict(use)))
        except OSError as error:
            self.watcher.note(f"the use of the budget cannot be written: {error}")
