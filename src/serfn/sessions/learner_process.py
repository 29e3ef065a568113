"""The learner of a session in a process of its own.

It is started as `python -m serfn.sessions.learner_process`, not by `multiprocessing`: a script that runs a
session needs no guard around its own code, and what it holds, such as an open robot, stays where it is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serfn.core.errors import DataError, SerfnError
from serfn.core.lock import FileLock
from serfn.core.progress import SILENT, Progress
from serfn.sessions.folder import RobotFolder
from serfn.sessions.learner import Learner

_LOCK = "learner.lock"
_LOCK_WAIT_S = 60.0
_STOP_S = 60.0
_THREADS = "OMP_NUM_THREADS"


@contextmanager
def learner_lock(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Be the only learner of a session.

    Raises:
        DataError: Another process is, still after `wait_s`.
    """
    until_s = time.monotonic() + wait_s
    while True:
        try:
            lock = FileLock(
                folder / _LOCK, f"'{folder}' has a learner already ({{holder}}); stop it first", DataError
            )
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
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Number of the process; None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; returns before it has begun to learn."""
        words = ("-m", __name__, str(self._folder), str(self._niceness), str(os.getpid()))
        with _interrupts_ignored():
            self._process = subprocess.Popen(
                [sys.executable, *words],
                env=_environment_of_child(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def watch(self) -> None:
        """Start the process again if it has died; never waits."""
        process = self._process
        if process is None or (status := process.poll()) is None:
            return
        if status == 0:
            self._process = None
            self._note("the learner is done")
        elif self._restarts_left > 0:
            self._restarts_left -= 1
            self._note(f"the learner died (status {status}); it is started again")
            self.start()
        else:
            self._process = None
            self._note(
                f"the learner died (status {status}) too often; the robot goes on with its policy, "
                "and the experience is kept"
            )

    def stop(self) -> None:
        """Ask for a checkpoint and an end, and wait for it; a learner that hangs is killed."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._note("the learner hangs and is killed; its last checkpoint counts")
            process.kill()
            process.wait()


def main(words: Sequence[str]) -> int:
    """Learn until the process is asked to end, or its parent is gone; return the exit status.

    Args:
        words: Folder of the session, niceness, and process id of the parent.
    """
    folder, niceness, parent = Path(words[0]), int(words[1]), int(words[2])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    # Ctrl-C reaches the whole terminal; the parent ends its session and then asks this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(niceness)
    try:
        learn(folder, should_stop=lambda: stop.is_set() or os.getppid() != parent)
    except SerfnError as error:
        # The parent shows the status; the reason is kept with the run.
        (folder / "learner_error.txt").write_text(f"{error}\n", encoding="utf-8")
        return 2
    return 0


def _environment_of_child() -> dict[str, str]:
    """Leave one core to the control loop, and let the child import what its parent can."""
    paths = [path or os.getcwd() for path in sys.path]
    threads = str(max(1, (os.cpu_count() or 2) - 1))
    return {_THREADS: threads, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """What is started meanwhile ignores Ctrl-C from its first instruction on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
