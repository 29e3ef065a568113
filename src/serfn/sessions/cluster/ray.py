"""One learner and several robots on a Ray cluster, supervised from one process.

Three kinds of Ray processes: the exchange and the learner on the learner's node, which share a disk, and one
actor per robot on that robot's node. The contents of messages are safetensors, JSON and plain words, and the
robot's side executes nothing that it receives from ours. Ray itself, however, deserialises pickles on every
node: whoever can reach the cluster's ports can run code there. A cluster must be trusted and closed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serfn.core.errors import ConfigError, SerfnError
from serfn.core.extras import extra
from serfn.sessions.actor import RobotActor
from serfn.sessions.cluster.shipping import Exchange, LinkedSnapshots, LinkError, Shipper
from serfn.sessions.cluster.wire import pack_session, unpack_session
from serfn.sessions.folder import RobotFolder
from serfn.sessions.learner_process import learn
from serfn.sessions.session import Outcome, Phase

_CALL_S = 30.0


@dataclass(frozen=True)
class ClusterConfig:
    """Where the parts of a session run.

    Attributes:
        robots: Ray resources that place each robot, by its name, such as `{"left": {"left_hand": 1}}`; a node
            offers them by `ray start --resources='{"left_hand": 1}'`.
        robot_root: Folder on the robots' machines below which each keeps its session.
        learner: Ray resources that place learner and exchange on one node.
        learner_cpus: Cores for the learner.
        robot_cpus: Cores for each robot.
        restarts: How often each part is replaced when its process dies.
        confirmed: Whether a person has read and confirmed the limits of every robot; nobody sits at the keys
            of a cluster, and hardware does not start otherwise.

    Raises:
        ConfigError: There are no robots, or a number is out of range.
    """

    robots: Mapping[str, Mapping[str, float]]
    robot_root: Path = Path("serfn-robots")
    learner: Mapping[str, float] = field(default_factory=dict)
    learner_cpus: float = 1.0
    robot_cpus: float = 1.0
    restarts: int = 10
    confirmed: bool = False

    def __post_init__(self) -> None:
        if not self.robots:
            raise ConfigError("the cluster has no robots; name at least one")
        for name in ("learner_cpus", "robot_cpus"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.restarts < 0:
            raise ConfigError(f"restarts is {self.restarts}; it must be 0 or more")


class RayLink:
    """A `Link` to the exchange; Ray reconnects by itself, and what fails meanwhile is tried again.

    Args:
        exchange: Handle of the exchange.
    """

    def __init__(self, exchange: Any) -> None:
        self._exchange = exchange

    def push(self, robot: str, uid: str, episode: bytes) -> None:
        """See `Link`."""
        self._ask(self._exchange.push, robot, uid, episode)

    def pull(self, known: int) -> tuple[int, dict[str, bytes]] | None:
        """See `Link`."""
        return self._ask(self._exchange.pull, known)

    def _ask(self, method: Any, *arguments: Any) -> Any:
        ray = import_ray()
        try:
            return ray.get(method.remote(*arguments), timeout=_CALL_S)
        except ray.exceptions.RayTaskError as error:
            raise SerfnError(f"the learner's side refuses: {error.cause}") from error
        except (ray.exceptions.RayError, ConnectionError, OSError) as error:
            raise LinkError(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error


class ExchangeNode:
    """The exchange as a Ray process; all its state is on disk, so it may be restarted.

    Args:
        folder: Folder of the session on the learner's machine.
    """

    def __init__(self, folder: str) -> None:
        self._folder = RobotFolder(folder)
        self._exchange = Exchange(self._folder)

    def push(self, robot: str, uid: str, episode: bytes) -> None:
        """See `Exchange.push`."""
        self._exchange.push(robot, uid, episode)

    def pull(self, known: int) -> tuple[int, dict[str, bytes]] | None:
        """See `Exchange.pull`."""
        return self._exchange.pull(known)

    def session(self) -> dict[str, bytes]:
        """Return what a robot's machine needs of the session."""
        return pack_session(self._folder)


class LearnerNode:
    """The learner as a Ray process.

    Args:
        folder: Folder of the session on the learner's machine.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._stop = threading.Event()

    def run(self) -> None:
        """Learn until `stop`."""
        learn(self._folder, should_stop=self._stop.is_set)

    def stop(self) -> None:
        """Ask for a checkpoint and the end."""
        self._stop.set()

    def pid(self) -> int:
        """Return the number of this process."""
        return os.getpid()


class RobotNode:
    """One robot as a Ray process on its machine.

    Args:
        name: Name of the robot in the session.
        root: Folder below which it keeps its session.
        exchange: Handle of the exchange.
        confirmed: Whether a person has confirmed its limits.
    """

    def __init__(self, name: str, root: str, exchange: Any, confirmed: bool = False) -> None:
        self._name = name
        self._folder = RobotFolder(Path(root) / name)
        self._link = RayLink(exchange)
        self._exchange = exchange
        self._confirmed = confirmed
        self._stop = threading.Event()
        self._notes: list[str] = []

    def run(self, episodes: int | None = None) -> str:
        """Run the session of this robot, and return why it ended."""
        ray = import_ray()
        if not self._folder.exists:
            unpack_session(self._folder, ray.get(self._exchange.session.remote(), timeout=_CALL_S))
        weights = LinkedSnapshots(self._link)
        shipper = Shipper(
            self._name,
            self._folder.store(self._name),
            self._folder.cursor(self._name),
            self._link,
            note=self._notes.append,
        )
        first_weights(weights, self._folder)
        watcher = _NodeWatcher(self._notes)
        with RobotActor(
            self._folder, name=self._name, source=weights, watcher=watcher, confirmed=self._confirmed
        ) as actor:
            shipper.start()
            actor.follow_weights()
            try:
                return actor.run(
                    episodes, should_stop=self._stop.is_set, after_episode=lambda outcome: shipper.wake()
                )
            finally:
                shipper.close()

    def stop(self) -> None:
        """End after the present episode."""
        self._stop.set()

    def notes(self) -> list[str]:
        """Return what happened since the last call."""
        notes, self._notes[:] = list(self._notes), []
        return notes

    def pid(self) -> int:
        """Return the number of this process."""
        return os.getpid()


class _NodeWatcher:
    """Collects what people should know, to be asked for."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def phase(self, phase: Phase, text: str) -> None:
        """Keep what stops the robot."""
        if phase == "stopped":
            self._notes.append(f"stopped: {text}")

    def episode_ended(self, outcome: Outcome) -> None:
        """Do nothing; episodes arrive by the exchange."""

    def note(self, text: str) -> None:
        """Keep it."""
        self._notes.append(text)


@dataclass
class _Part:
    """One supervised Ray process: how it is made, its handle, and the task that it works on."""

    name: str
    make: Callable[[], tuple[Any, Any]]
    restarts_left: int
    handle: Any = None
    work: Any = None
    result: str | None = None


class Cluster:
    """The processes of one session on an initialised Ray, each replaced when it dies.

    Args:
        folder: Folder of the session on the learner's machine.
        config: Where the parts run.
        note: Takes one sentence for people.
        episodes: Episodes per robot; None leaves that to the budget.
    """

    def __init__(
        self,
        folder: RobotFolder,
        config: ClusterConfig,
        *,
        note: Callable[[str], None] = lambda text: None,
        episodes: int | None = None,
    ) -> None:
        folder.task()
        ray = import_ray()
        if not ray.is_initialized():
            raise ConfigError("Ray is not running; call ray.init first, or give the address of a cluster")
        self._ray, self._note, self._config = ray, note, config
        path = str(folder.path.resolve())
        placed = {"resources": dict(config.learner)}
        self.exchange = (
            ray.remote(ExchangeNode).options(num_cpus=0, max_restarts=-1, max_task_retries=0, **placed)
        ).remote(path)

        def make_learner() -> tuple[Any, Any]:
            options = {"num_cpus": config.learner_cpus, "max_concurrency": 3, **placed}
            handle = ray.remote(LearnerNode).options(**options).remote(path)
            return handle, handle.run.remote()

        def make_robot(name: str) -> Callable[[], tuple[Any, Any]]:
            options = {
                "num_cpus": config.robot_cpus,
                "max_concurrency": 3,
                "resources": dict(config.robots[name]),
            }

            def make() -> tuple[Any, Any]:
                node = ray.remote(RobotNode).options(**options)
                handle = node.remote(name, str(config.robot_root), self.exchange, config.confirmed)
                return handle, handle.run.remote(episodes)

            return make

        self.learner = _Part("learner", make_learner, config.restarts)
        self.robots = {name: _Part(name, make_robot(name), config.restarts) for name in config.robots}

    def start(self) -> None:
        """Start learner and robots."""
        for part in (self.learner, *self.robots.values()):
            part.handle, part.work = part.make()

    def supervise(self, timeout_s: float = 1.0) -> bool:
        """Look after all parts once; return whether a robot still works.

        Args:
            timeout_s: How long to wait for something to happen.
        """
        ray = self._ray
        working = {part.work: part for part in (self.learner, *self.robots.values()) if part.work is not None}
        if working:
            done, _ = ray.wait(list(working), num_returns=len(working), timeout=timeout_s)
            for work in done:
                self._settle(working[work])
        for part in self.robots.values():
            self._pass_notes_on(part)
        return any(part.work is not None for part in self.robots.values())

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> dict[str, str]:
        """Start, supervise until all robots are done or a stop is asked for; return why each robot ended."""
        self.start()
        try:
            while self.supervise() and not should_stop():
                pass
        finally:
            self.stop()
        return {name: part.result or "stopped" for name, part in self.robots.items()}

    def stop(self, timeout_s: float = 60.0) -> None:
        """Ask all parts to end, robots first, and wait; what hangs is killed."""
        until_s = time.monotonic() + timeout_s
        for parts in (list(self.robots.values()), [self.learner]):
            for part in parts:
                if part.work is not None:
                    part.handle.stop.remote()
            works = [part.work for part in parts if part.work is not None]
            if works:
                left_s = max(1.0, until_s - time.monotonic())
                self._ray.wait(works, num_returns=len(works), timeout=left_s)
            for part in parts:
                if part.handle is not None:
                    self._ray.kill(part.handle)
                    part.work = None
        self._ray.kill(self.exchange)

    def _settle(self, part: _Part) -> None:
        """Take the end of a part's work: a result, an error of ours, or a process that died."""
        ray = self._ray
        part_work, part.work = part.work, None
        try:
            result = ray.get(part_work)
            part.result = "done" if result is None else str(result)
            self._note(f"{part.name}: {part.result}")
        except ray.exceptions.RayTaskError as error:
            part.result = f"failed: {error.cause}"
            self._note(f"{part.name} {part.result}")
        except ray.exceptions.RayError as error:
            if part.restarts_left == 0:
                part.result = f"died too often, last by {type(error).__name__}"
                self._note(f"{part.name} {part.result}")
                return
            part.restarts_left -= 1
            self._note(f"{part.name} died ({type(error).__name__}); it is replaced")
            part.handle, part.work = part.make()

    def _pass_notes_on(self, part: _Part) -> None:
        if part.work is None:
            return
        ray = self._ray
        try:
            for note in ray.get(part.handle.notes.remote(), timeout=1.0):
                self._note(f"{part.name}: {note}")
        except ray.exceptions.RayError:
            # Not up yet, or just dying, which its work will tell.
            return


def first_weights(source: LinkedSnapshots, folder: RobotFolder) -> None:
    """Fetch a policy to begin with; a robot that has one already begins without the learner's machine.

    Raises:
        LinkError: There is none here, and the learner's machine cannot be reached.
    """
    from serfn.sessions.snapshots import SnapshotStore

    snapshots = SnapshotStore(folder.policies)
    if not snapshots.versions():
        source.fetch(snapshots)


def import_ray() -> Any:
    """Return the package.

    Raises:
        MissingExtraError: It is not installed.
    """
    with extra("ray"):
        import ray
        import ray.exceptions
    return ray
