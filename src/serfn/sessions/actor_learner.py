"""Actor and learner put together: in one process, or in two on one machine.

With two processes the robot waits for nothing that the learner does. The learner may be killed, or may never
start: the robot goes on with the policy that it has, and the experience waits on disk. When the robot's
process is killed, the learner writes a checkpoint and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from serfn.core.errors import DataError, SerfnError
from serfn.core.progress import SILENT, Progress
from serfn.data.store.lock import WriterLock
from serfn.sessions.actor import RobotActor
from serfn.sessions.folder import RobotFolder
from serfn.sessions.learner import Learner

_LOCK = "learner.lock"
_LOCK_WAIT_S = 60.0
_STOP_S = 60.0
_THREADS = "OMP_NUM_THREADS"


def run_session(
    actor: RobotActor,
    *,
    episodes: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress = SILENT,
) -> str:
    """Run the episodes of an open actor with the learner where its configuration says; return why it ended.

    Args:
        actor: The robot's side, opened.
        episodes: End after this many; None leaves that to the budget and to people.
        should_stop: Asked between episodes and between updates.
        progress: Watches a learner in this process.

    Raises:
        RobotError: The robot cannot start.
        DataError: Another process learns in this session.
    """
    place = actor.config.learning.place
    if place == "inline":
        return _run_inline(actor, episodes, should_stop, progress)
    if place == "none":
        return actor.run(episodes, should_stop=should_stop)
    actor.follow_weights()
    if place == "elsewhere":
        return actor.run(episodes, should_stop=should_stop)
    learner = LearnerProcess(
        actor.folder.path,
        niceness=actor.config.learning.niceness,
        restarts=actor.config.learning.restarts,
        note=actor.watcher.note,
    )
    learner.start()
    try:
        return actor.run(episodes, should_stop=should_stop, after_episode=lambda outcome: learner.watch())
    finally:
        learner.stop()


def _run_inline(
    actor: RobotActor, episodes: int | None, should_stop: Callable[[], bool], progress: Progress
) -> str:
    """Let robot and learner take turns: the robot rests while the learner updates."""
    reason: str | None = None
    left = episodes

    def gather(missing: int) -> None:
        nonlocal reason, left
        if actor.weights is not None:
            actor.weights.look()
        wanted = missing if left is None else min(missing, left)
        before = actor.session.use.episodes
        ended = actor.run(wanted, should_stop=should_stop)
        done = actor.session.use.episodes - before
        left = None if left is None else left - done
        if done < wanted or left == 0:
            reason = ended
        else:
            actor.watcher.phase("learning", "the robot rests while the policy learns")

    with learner_lock(actor.folder.path):
        learner = Learner(
            actor.folder.path,
            gather=gather,
            should_stop=lambda: reason is not None or should_stop(),
            progress=progress,
        )
        learner.run()
    return reason or actor.session.ended or "the session was asked to stop"


@contextmanager
def learner_lock(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Be the only learner of a session.

    Raises:
        DataError: Another process is, still after `wait_s`.
    """
    until_s = time.monotonic() + wait_s
    while True:
        try:
            lock = WriterLock(folder / _LOCK)
            break
        except DataError:
            if time.monotonic() >= until_s:
                raise
            time.sleep(0.5)
    try:
        yield
    finally:
        lock.release()


def learn(folder: Path, *, should_stop: Callable[[], bool], progress: Progress = SILENT) -> None:
    """Learn from what actors record in the folder of a session, until asked to stop.

    Raises:
        ConfigError: The folder holds no session.
        DataError: Another process learns in this session.
        CheckpointError: There is no checkpoint to start from.
        TrainingDivergedError: Updates stay non-finite.
    """
    RobotFolder(folder).task()
    with learner_lock(folder, _LOCK_WAIT_S):
        Learner(folder, should_stop=should_stop, progress=progress).run()


class LearnerProcess:
    """A learner in a process of its own, started again when it dies.

    Args:
        folder: Folder of the session.
        niceness: How far it stands back behind other processes.
        restarts: How often it is started again.
        note: Takes one sentence for people.
    """

    def __init__(
        self,
        folder: Path,
        *,
        niceness: int = 10,
        restarts: int = 3,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder = folder
        self._niceness = niceness
        self._restarts_left = restarts
        self._note = note
        self._process: BaseProcess | None = None

    @property
    def pid(self) -> int | None:
        """Number of the process; None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the process; returns before it has begun to learn."""
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(
            target=_learn_in_child,
            args=(str(self._folder), self._niceness),
            name="serfn-learner",
            daemon=True,
        )
        with _environment_of_child():
            self._process.start()

    def watch(self) -> None:
        """Start the process again if it has died; never waits."""
        process = self._process
        if process is None or process.is_alive():
            return
        if process.exitcode == 0:
            self._process = None
            self._note("the learner is done")
        elif self._restarts_left > 0:
            self._restarts_left -= 1
            self._note(f"the learner died (status {process.exitcode}); it is started again")
            self.start()
        else:
            self._process = None
            self._note(
                f"the learner died (status {process.exitcode}) too often; the robot goes on with its policy, "
                "and the experience is kept"
            )

    def stop(self) -> None:
        """Ask for a checkpoint and an end, and wait for it; a learner that hangs is killed."""
        process = self._process
        if process is None:
            return
        process.terminate()
        process.join(_STOP_S)
        if process.is_alive():
            self._note("the learner hangs and is killed; its last checkpoint counts")
            process.kill()
            process.join()


def _learn_in_child(folder: str, niceness: int) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    os.nice(niceness)
    parent = multiprocessing.parent_process()
    try:
        learn(
            Path(folder),
            should_stop=lambda: stop.is_set() or (parent is not None and not parent.is_alive()),
        )
    except SerfnError as error:
        # The parent shows the status; the reason is kept with the run.
        (Path(folder) / "learner_error.txt").write_text(f"{error}\n", encoding="utf-8")
        raise SystemExit(2) from None


@contextmanager
def _environment_of_child() -> Iterator[None]:
    """Leave one core to the control loop, and Ctrl-C to the parent, which then asks the child to stop."""
    threads = os.environ.get(_THREADS)
    os.environ[_THREADS] = threads or str(max(1, (os.cpu_count() or 2) - 1))
    in_main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGINT, previous)
        if threads is None:
            del os.environ[_THREADS]
