"""The robot's side of a session: it acts, records and takes new weights, and waits for nobody."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from serfn.core.config import load_config
from serfn.core.errors import SerfnError
from serfn.policies.base import LikelihoodPolicy
from serfn.robot.clock import Clock, MonotonicClock
from serfn.robot.contract import Referee, Robot, Teleoperator
from serfn.robot.gate import LikelihoodGate, calibrate_range
from serfn.robot.safety import Workspace
from serfn.runs.demonstrations import write_findings
from serfn.sessions.config import LikelihoodGateConfig
from serfn.sessions.fit import check_latency
from serfn.sessions.folder import RobotFolder
from serfn.sessions.policy_slot import PolicySlot
from serfn.sessions.robots import make_robot
from serfn.sessions.session import Outcome, Person, RobotSession, SessionWatcher, SilentWatcher
from serfn.sessions.snapshots import SnapshotStore
from serfn.sessions.weight_updates import Probes, SnapshotSource, WeightUpdates
from serfn.training.chunk_likelihood import ChunkLikelihood
from serfn.training.config import TrainConfig

DEFAULT_NAME = "robot"

_LOW_QUANTILE = 0.05
"""Fraction of demonstrated chunks that may be less likely than what the likelihood gate lets pass."""


def likelihood_gate(
    folder: RobotFolder, snapshots: SnapshotStore, config: LikelihoodGateConfig
) -> LikelihoodGate | None:
    """Return the gate by the likelihood under the oldest policy here, calibrated on demonstrated chunks.

    None if it is off, the session has no demonstrations, or the policy has no density.
    """
    if config.action == "off" or not folder.probes.is_file():
        return None
    reference = snapshots.load(snapshots.versions()[0])
    if not isinstance(reference.policy, LikelihoodPolicy):
        return None
    likelihood = ChunkLikelihood(reference.policy, reference.task.action)
    probes = folder.read_probes()
    whole = probes.valid.all(1)
    chunks = reference.task.action.denormalize(probes.actions[whole])
    ordinary = calibrate_range(
        likelihood.batch(probes.obs[whole], chunks),
        low_quantile=_LOW_QUANTILE,
        slack=config.slack * chunks[0].size,
    )
    return LikelihoodGate(likelihood, ordinary, config.action)


class RobotActor:
    """One robot at work in a session's folder; a context manager.

    Args:
        folder: Folder of the session, on this machine.
        name: Name of this robot in the session; each has a store of its own.
        robot: The robot; None makes the one of the configuration.
        source: Brings weights from a learner on another machine; None if it shares this folder.
        clock: Clock of loop and robot.
        person: Who is there.
        teleoperator: How that person moves the robot.
        referee: Judge of each step; None takes the one of the configuration, or the robot if it judges.
        workspace: A task's own rule on positions; None takes the one of the configuration.
        watcher: Is told what happens.
        confirmed: Whether a person has read and confirmed the limits; without a person at the keys, hardware
            does not start otherwise.

    Raises:
        SerfnError: The folder holds no session, or policy, robot and limits do not fit.
    """

    def __init__(
        self,
        folder: RobotFolder,
        *,
        name: str = DEFAULT_NAME,
        robot: Robot | None = None,
        source: SnapshotSource | None = None,
        clock: Clock | None = None,
        person: Person | None = None,
        teleoperator: Teleoperator | None = None,
        referee: Referee | None = None,
        workspace: Workspace | None = None,
        watcher: SessionWatcher | None = None,
        confirmed: bool = False,
    ) -> None:
        self.folder, self.config = folder, folder.robot_config()
        self.watcher = watcher or SilentWatcher()
        clock = clock or MonotonicClock()
        robot = robot or make_robot(
            self.config.robot, self.config.robot_options, clock, seed=self.config.seed
        )
        snapshots = SnapshotStore(folder.policies)
        self.weights: WeightUpdates | None = None
        if folder.config.is_file() and self.config.learning.place != "none":
            training = load_config(TrainConfig, folder.config)
            self.weights = WeightUpdates(
                snapshots,
                folder.serving(name),
                folder.promotions(name),
                self.config.promotion,
                Probes.for_task(folder.read_probes(), folder.task(), self.config.seed),
                value_bounds=training.value_bounds,
                seed=self.config.seed,
                source=source,
                note=self.watcher.note,
            )
            actor, version = self.weights.actor, self.weights.version
        else:
            actor, version = snapshots.load(1), 1
        self.slot = PolicySlot(actor, version)
        if self.weights is not None:
            self.weights.supply(self.slot)
        self.session = RobotSession(
            self.config,
            actor.task,
            robot,
            self.slot,
            folder.store(name),
            folder.interaction(name),
            clock=clock,
            person=person,
            teleoperator=teleoperator,
            referee=referee,
            workspace=workspace,
            gate=likelihood_gate(folder, snapshots, self.config.gate),
            watcher=self.watcher,
            confirmed=confirmed,
        )
        latency = check_latency(
            actor,
            self.config.execution,
            actor.task.observation.dim,
            self.session.control_hz,
            robot.info.name,
        )
        for finding in latency:
            self.watcher.note(finding.text)
        write_findings(folder.path, [*self.session.findings, *latency])
        self.session.on_roll_back = lambda: self.roll_back("an operator asked for it")

    def __enter__(self) -> Self:
        """Open the robot."""
        self.session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Park and close the robot."""
        try:
            if self.weights is not None:
                self.weights.close()
        finally:
            self.session.close()

    def follow_weights(self) -> None:
        """Take new weights from now on, beside the control loop."""
        if self.weights is not None:
            self.weights.start()

    def roll_back(self, reason: str) -> None:
        """Return to the policy promoted before, from the next exchange on."""
        if self.weights is None:
            self.watcher.note("there is no earlier policy, as nothing is learnt")
        else:
            self.weights.roll_back(reason)

    def run(
        self,
        episodes: int | None = None,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        after_episode: Callable[[Outcome], None] = lambda outcome: None,
    ) -> str:
        """Run episodes until the session ends, and return why.

        Args:
            episodes: Return after this many.
            should_stop: Asked between episodes.
            after_episode: Called with each outcome, such as to send it on; must not wait for others.

        Raises:
            RobotError: The robot cannot start.
        """
        done = 0
        while episodes is None or done < episodes:
            if should_stop():
                return "the session was asked to stop"
            outcome = self.session.run_episode()
            if outcome is None:
                return self.session.ended or "the robot is stopped"
            self._tell_weights(outcome)
            after_episode(outcome)
            done += 1
        return f"{done} episodes are done"

    def _tell_weights(self, outcome: Outcome) -> None:
        if self.weights is None:
            return
        number, kept = outcome.recorded.number, outcome.report.ending.keep
        try:
            episode = self.session.episode(number) if kept and number is not None else None
        except SerfnError as error:
            self.watcher.note(f"episode {number} cannot be read back: {error}")
            episode = None
        self.weights.episode_ended(outcome.report.header.policy_version, outcome.failed, episode)
