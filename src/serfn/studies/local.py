"""Jobs of a study as processes on this machine, one thread each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from serfn.studies.job import LOG_FILE, run_logged

_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_STOPPED = 130
_GRACE_S = 60.0


class LocalBackend:
    """Runs each job in a process of its own.

    All processes are forked from one that has imported everything, so that a short job does not spend seconds
    on imports, and each leads its own session, so that Ctrl-C reaches it only through `interrupt`. A process
    whose study is gone checkpoints and ends.

    Args:
        root: Folder of the study.
        cores: Processes at the same time.
    """

    def __init__(self, root: Path, cores: int) -> None:
        self.slots = cores
        self._root = root
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["__main__", "serfn.studies.job"])
        with _one_thread_each():
            forkserver.ensure_running()
        self._running: dict[str, tuple[ForkServerProcess, Connection]] = {}

    def start(self, name: str) -> None:
        """Start the job in folder `name`."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(self._root, name, sender))
        process.start()
        sender.close()
        self._running[name] = (process, receiver)

    def finished(self) -> list[tuple[str, str | None]]:
        """Return the jobs that ended since the last call, each with the reason if it failed."""
        ended = []
        for name, (process, receiver) in list(self._running.items()):
            if process.exitcode is None:
                continue
            del self._running[name]
            failure = None
            if process.exitcode == _STOPPED:
                failure = "stopped"
            elif process.exitcode != 0:
                failure = f"its process ended with status {process.exitcode}"
            # A process that went well closes its end without a word.
            with contextlib.suppress(EOFError):
                failure = receiver.recv()
            receiver.close()
            ended.append((name, failure))
            process.join()
        return ended

    def interrupt(self) -> None:
        """Ask all jobs to checkpoint and end, and wait for them; one that takes too long is killed."""
        processes = [process for process, _ in self._running.values()]
        for process in processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGINT)
        deadline = time.monotonic() + _GRACE_S
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def close(self) -> None:
        """End whatever still runs."""
        self.interrupt()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that are started inside use one thread for numerics: the cores are shared by jobs."""
    before = {name: os.environ.get(name) for name in _THREAD_LIMITS}
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(root: Path, name: str, sender: Connection) -> None:
    """Body of a job's process."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(root / name / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    threading.Thread(target=_stop_without_study, daemon=True).start()
    try:
        failure = run_logged(root, name)
    except KeyboardInterrupt:
        raise SystemExit(_STOPPED) from None
    if failure is not None:
        sender.send(failure)


def _stop_without_study() -> None:
    """Interrupt this process when the study's is gone."""
    study = multiprocessing.parent_process()
    if study is not None:
        study.join()
        os.kill(os.getpid(), signal.SIGINT)
