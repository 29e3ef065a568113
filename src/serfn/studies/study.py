"""Tasks × methods × seeds in one call: within a budget of cores, resumable, with shared stages computed once.

Study folder::

    study.json               what is compared, and where each run is
    demonstrations/<task>-seed-<seed>-<hash>/    recorded once per seed, for all methods
    imitation/<task>/seed-<seed>-<hash>/         imitation, once per policy and seed
    runs/<task>/<method>/seed-<seed>-<hash>/     run folders, see `serfn.runs.train`
    report.html, report_files/                   the report, its figures and tables

Every folder of a job holds `job.json` (what to do), `record.json` (that it is done, with what was measured)
and `job.log` (what went wrong). The hash in a folder's name is that of the job's configuration: a study whose
file has changed computes what is new and keeps the rest.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from serfn.core.errors import ConfigError
from serfn.core.files import write_atomically
from serfn.core.lock import FileLock
from serfn.core.progress import SILENT, Progress
from serfn.reports.study.report import write_study_report
from serfn.runs.interrupt import deferred_interrupt
from serfn.studies.config import StudyConfig
from serfn.studies.local import LocalBackend
from serfn.studies.plan import Job, StudyPlan, TrainingJob, make_plan
from serfn.studies.ray_backend import RayBackend

PART = "study"
"""Name under which a study reports its progress, in gradient updates of all its runs."""

_POLL_S = 0.2
_LOCK_FILE = "study.lock"


class Backend(Protocol):
    """Where jobs run."""

    slots: int
    """Jobs at the same time."""

    def start(self, name: str) -> None:
        """Start the job in folder `name`."""
        ...

    def finished(self) -> list[tuple[str, str | None]]:
        """Return the jobs that ended since the last call, each with the reason if it failed."""
        ...

    def interrupt(self) -> None:
        """Ask all jobs to checkpoint and end, and wait for them."""
        ...

    def close(self) -> None:
        """End whatever still runs."""
        ...


@dataclass(frozen=True)
class StudyResult:
    """Outcome of a study.

    Attributes:
        report: The page.
        verdicts: What it says first, one sentence per task.
        computed: Jobs done by this call.
        reused: Jobs that an earlier call had done.
        failures: Why jobs failed, by name; jobs that need them are among them.
    """

    report: Path
    verdicts: tuple[str, ...]
    computed: tuple[str, ...]
    reused: tuple[str, ...]
    failures: dict[str, str]


def run_study(
    config: StudyConfig,
    root: str | Path,
    *,
    cores: int,
    ray: str | None = None,
    progress: Progress = SILENT,
) -> StudyResult:
    """Compute what a study still lacks, and write its report.

    Args:
        config: The study.
        root: Folder of the study; called again with it, the study continues.
        cores: Jobs at the same time, each on one core.
        ray: Run on a Ray cluster: `local`, `auto` or an address. None uses processes of this machine.
        progress: Watches.

    Raises:
        ConfigError: A name or option of the study is wrong, the folder cannot be written, or another study is
            at work in it.
        KeyboardInterrupt: The user stopped the study; it can be continued.
    """
    if cores < 1:
        raise ConfigError(f"cores is {cores}; at least 1 is needed")
    plan = make_plan(config)
    root = Path(root).resolve()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to folder '{root}': {error}; choose another with --out") from error
    with _only_study(root):
        write_atomically(root / "study.json", json.dumps(plan.description(), indent=1))
        reused = tuple(job.name for job in plan.jobs if job.done(root))
        pending = [job for job in plan.jobs if job.name not in set(reused)]
        failures: dict[str, str] = {}
        if pending:
            for job in pending:
                job.write(root)
            backend = LocalBackend(root, cores) if ray is None else RayBackend(root, ray, cores)
            try:
                failures = _Schedule(plan, pending, root, backend, progress).run()
            finally:
                backend.close()
        computed = tuple(job.name for job in pending if job.name not in failures)
        report, verdicts = write_study_report(root)
        return StudyResult(report, verdicts, computed, reused, failures)


class _Schedule:
    """Starts jobs when those that they need are done and a slot is free."""

    def __init__(
        self, plan: StudyPlan, pending: list[Job], root: Path, backend: Backend, progress: Progress
    ) -> None:
        self._root, self._backend, self._progress = root, backend, progress
        self._waiting = list(pending)
        self._running: dict[str, Job] = {}
        self._failures: dict[str, str] = {}
        # Made before an interruption: counted neither as to do nor as done, so that the time left is right.
        self._before = {job.name: self._updates(job) for job in pending}
        self._total = sum(job.updates - self._before[job.name] for job in pending)
        self._complete = 0
        self._count = len(plan.jobs)
        self._shown = 0

    def run(self) -> dict[str, str]:
        """Run all jobs and return why some failed, by name."""
        self._progress.stage_started(PART, self._total)
        self._show()
        with deferred_interrupt() as stop:
            while self._waiting or self._running:
                if stop():
                    self._progress.note("stopping: every run at work writes a checkpoint")
                    self._backend.interrupt()
                    raise KeyboardInterrupt
                self._start_ready()
                time.sleep(_POLL_S)
                for name, failure in self._backend.finished():
                    self._ended(self._running.pop(name), failure)
                self._show()
        self._progress.stage_finished(PART, {})
        return self._failures

    def _start_ready(self) -> None:
        """Fill the free slots; a job whose needs failed fails too."""
        unfinished = {job.name for job in self._waiting} | set(self._running)
        for job in list(self._waiting):
            broken = next((name for name in job.needs if name in self._failures), None)
            if broken is not None:
                self._waiting.remove(job)
                self._failures[job.name] = f"needs {broken}, which failed"
            elif len(self._running) < self._backend.slots and not unfinished.intersection(job.needs):
                self._waiting.remove(job)
                self._backend.start(job.name)
                self._running[job.name] = job

    def _ended(self, job: Job, failure: str | None) -> None:
        left = len(self._waiting) + len(self._running)
        if failure is None:
            self._complete += job.updates - self._before[job.name]
            self._progress.note(f"{self._count - left} of {self._count}: {job.name}")
        else:
            self._failures[job.name] = failure
            self._progress.note(f"failed: {job.name}: {failure}")

    def _show(self) -> None:
        done = self._complete + sum(
            self._updates(job) - self._before[job.name] for job in self._running.values()
        )
        self._progress.advanced(PART, max(0, done - self._shown), {})
        self._shown = max(done, self._shown)

    def _updates(self, job: Job) -> int:
        """Return the gradient updates that a running job has made."""
        if not isinstance(job.work, TrainingJob):
            return 0
        try:
            status = json.loads((self._root / job.name / "status.json").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError):
            return 0
        shared = 0 if job.work.shared is None else job.work.config.imitation.steps
        return min(job.updates, max(0, status["updates"] - shared))


def _only_study(root: Path) -> FileLock:
    """Hold the study's lock."""
    busy = f"another study is at work in '{root}' ({{holder}}); wait for it, or choose another folder"
    return FileLock(root / _LOCK_FILE, busy, ConfigError)
