"""The work of one job of a study, in whichever process it runs."""

from __future__ import annotations

import contextlib
import json
import shutil
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serfn.core.config import to_dict
from serfn.core.errors import ConfigError, SerfnError
from serfn.core.files import write_atomically
from serfn.core.lock import FileLock
from serfn.core.spec import TaskSpec
from serfn.rollout.collect import collect
from serfn.runs.demonstrations import read_demonstrations
from serfn.runs.folder import write_config
from serfn.runs.train import train
from serfn.studies.measure import measure
from serfn.studies.plan import (
    DEMONSTRATIONS_FILE,
    RECORD_FILE,
    DemonstrationJob,
    TrainingJob,
    read_job,
)
from serfn.training.checkpoint import CheckpointStore, read_tree, resolve, target
from serfn.training.config import TrainConfig
from serfn.training.session import TrainingSession
from serfn.training.stages.context import TrainingDivergedError

LOG_FILE = "job.log"
_LOCK_FILE = "job.lock"
_COPIED = ("evaluations.jsonl", "metrics.jsonl", "metrics.csv")
_FROM_IMITATION = ("policy", "reference", "generator")


def run_job(root: Path, name: str) -> None:
    """Do the job in folder `name` of the study in `root`, continuing what an earlier attempt left.

    Ends with a record in the job's folder. A run that diverges has a record too, which says so: that a
    method diverges is a result.

    Raises:
        SerfnError: The job cannot be done; the log in its folder says why.
        KeyboardInterrupt: It was asked to stop, and will continue from its checkpoint.
    """
    root = root.resolve()
    folder = root / name
    # Paths of demonstrations are relative to the study, so that a moved study can go on.
    with _only_process(folder), contextlib.chdir(root):
        job = read_job(folder)
        if isinstance(job.work, DemonstrationJob):
            work = job.work
            collect(work.task, work.episodes, folder / DEMONSTRATIONS_FILE, seed=work.seed, plant=work.plant)
            result: dict[str, Any] = {"outcome": "complete"}
        else:
            result = _train_and_measure(folder, root, job.work)
        record = {"hash": job.hash, "kind": job.kind, "version": version("serfn"), **result}
        write_atomically(folder / RECORD_FILE, json.dumps(record))


def run_logged(root: Path, name: str) -> str | None:
    """Do a job; return None, or in one line why it failed, with the whole story in the job's log.

    Raises:
        KeyboardInterrupt: It was asked to stop.
    """
    try:
        run_job(root, name)
    except Exception as error:
        # Whatever happens in one run must not take the others with it.
        with (root / name / LOG_FILE).open("a", encoding="utf-8") as log:
            traceback.print_exception(error, file=log)
        words = str(error) if isinstance(error, SerfnError) else f"{type(error).__name__}: {error}"
        return " ".join(words.split())
    return None


def continue_from_imitation(config: TrainConfig, folder: Path, shared: Path) -> None:
    """Give a new run folder the state that its own imitation stage would have left.

    Policy, its noise and the draws from replay continue where the shared imitation run ended; critic and
    targets are as new. What follows is bit for bit what follows the run's own imitation stage.

    Args:
        config: Configuration of the new run.
        folder: Its folder.
        shared: Folder of a finished imitation run with the same policy, seed and demonstrations.

    Raises:
        CheckpointError: The imitation run has no checkpoint.
    """
    tree = read_tree(resolve(shared / "checkpoints", "last"))
    task = TaskSpec.from_dict(tree["task"])
    if config.demos is None:
        raise ConfigError("a run that shares its imitation needs demos; record them first")
    episodes = read_demonstrations(config, config.demos, task).episodes
    fresh = TrainingSession(config, task, episodes, folder / "checkpoints").context.agent.state_dict()
    tree["agent"] = {**fresh, **{name: tree["agent"][name] for name in _FROM_IMITATION}}
    folder.mkdir(parents=True, exist_ok=True)
    for file in _COPIED:
        if (shared / file).is_file():
            shutil.copyfile(shared / file, folder / file)
    write_config(folder, config)
    CheckpointStore(folder / "checkpoints", to_dict(config)).save(
        tree["state"]["updates"], tree, best=tree["best_policy"] is not None
    )


def _train_and_measure(folder: Path, root: Path, work: TrainingJob) -> dict[str, Any]:
    shared = None if work.shared is None else root / work.shared
    if shared is not None and target(folder / "checkpoints", "last") is None:
        continue_from_imitation(work.config, folder, shared)
    outcome = "complete"
    try:
        train(work.config, folder, resume=True, stages=work.stages, films=False)
    except TrainingDivergedError as error:
        outcome = f"diverged: {error}"
    return {
        "outcome": outcome,
        "shared": None if work.shared is None else str(work.shared),
        **measure(folder, work.config, held_out=work.held_out, modes=work.modes),
    }


def _only_process(folder: Path) -> FileLock:
    """Hold the job's lock."""
    busy = f"another process is at work in '{folder}' ({{holder}}); wait for it, or stop it"
    return FileLock(folder / _LOCK_FILE, busy, ConfigError)
