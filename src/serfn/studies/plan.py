"""From a study file to its jobs: what to compute, what is shared, and what depends on what."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import ConfigError
from serfn.core.files import write_atomically
from serfn.runs.presets import preset, preset_for_environment
from serfn.studies.config import ModeProbe, StudyConfig, StudyTask, with_options
from serfn.studies.resolve import ResolvedMethod, resolve_method
from serfn.tasks.registry import task_of_env, tasks
from serfn.training.build import make_stages
from serfn.training.checkpoint import config_hash
from serfn.training.config import TrainConfig
from serfn.training.stages.state import StageName

JOB_FILE = "job.json"
RECORD_FILE = "record.json"
DEMONSTRATIONS_FILE = "demonstrations.npz"

JobKind = Literal["demonstrations", "imitation", "run"]

_HASH_LETTERS = 8
_HELD_OUT_SEED = 990_000
"""Held-out demonstrations are the same for all seeds and methods, and nobody trains on this seed."""

# What the weights after imitation do not depend on. A field that is missing here costs a further run of
# imitation; one too many would share what differs, which `tests/studies/test_study.py` checks.
_AFTER_IMITATION = (
    "critic",
    "critic_warmup",
    "offline",
    "online",
    "rewards",
    "replay_steps",
    "enforce_gates",
)
_AGENT_AFTER_IMITATION = (
    "discount",
    "polyak",
    "critic_learning_rate",
    "policy_learning_rate",
    "target_candidates",
    "target_temperature",
)


@dataclass(frozen=True)
class DemonstrationJob:
    """Record demonstrations of one of our tasks.

    Attributes:
        task: Short name of the task.
        episodes: Number of episodes.
        seed: Seed of the recording.
        plant: Variant of the task.
    """

    task: str
    episodes: int
    seed: int
    plant: str | None


@dataclass(frozen=True)
class TrainingJob:
    """Train, then measure what evaluations do not show.

    Attributes:
        config: Configuration; its demonstrations are relative to the study's folder.
        stages: Stages to run.
        shared: Folder of the imitation run to continue from; None trains all stages here.
        held_out: Demonstrations whose likelihood is measured.
        modes: What to measure where the task can be solved in several ways.
    """

    config: TrainConfig
    stages: tuple[StageName, ...]
    shared: Path | None = None
    held_out: Path | None = None
    modes: ModeProbe | None = None


@dataclass(frozen=True)
class Job:
    """One unit of work in its own folder.

    Attributes:
        name: Its folder, relative to the study's, with a hash of what decides its numbers.
        kind: What it does.
        needs: Names of the jobs before it.
        updates: Gradient updates that it makes, its weight in the progress.
        work: What to do.
    """

    name: str
    kind: JobKind
    needs: tuple[str, ...]
    updates: int
    work: DemonstrationJob | TrainingJob

    @property
    def hash(self) -> str:
        """Hash of everything that decides the job's result; a record with it is this result."""
        work = to_dict(self.work)
        if self.kind == "imitation" and isinstance(self.work, TrainingJob):
            work["config"] = imitation_identity(self.work.config)
        return config_hash({"kind": self.kind, "needs": list(self.needs), "work": work})

    def write(self, root: Path) -> None:
        """Write the description into the job's folder, from where `read_job` takes it."""
        folder = root / self.name
        folder.mkdir(parents=True, exist_ok=True)
        description = {**to_dict(self), "hash": self.hash}
        write_atomically(folder / JOB_FILE, json.dumps(description, indent=1))

    def done(self, root: Path) -> bool:
        """Return whether the folder holds this job's result."""
        path = root / self.name / RECORD_FILE
        return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("hash") == self.hash


@dataclass(frozen=True)
class StudyRun:
    """Where one run of the study stands in the comparison."""

    task: str
    method: str
    seed: int
    job: Job


@dataclass(frozen=True)
class StudyPlan:
    """The jobs of a study, each after those that it needs, and the runs among them.

    Attributes:
        config: The study.
        methods: Its methods by name.
        jobs: All jobs.
        runs: The runs that are compared.
    """

    config: StudyConfig
    methods: dict[str, ResolvedMethod]
    jobs: tuple[Job, ...]
    runs: tuple[StudyRun, ...]

    def description(self) -> dict[str, Any]:
        """Return what the report must know, as plain values."""
        config = self.config
        return {
            "title": config.title,
            "reference": config.reference,
            "ablations": list(config.ablations),
            "seeds": list(config.seeds),
            "tasks": {
                name: {
                    "label": task.label or name,
                    "threshold": task.threshold,
                    "circles": [] if task.modes is None else [list(one) for one in task.modes.circles],
                }
                for name, task in config.tasks.items()
            },
            "methods": {
                name: {"label": method.label, "summary": method.summary, "citation": method.citation}
                for name, method in self.methods.items()
            },
            "runs": [
                {"task": run.task, "method": run.method, "seed": run.seed, "folder": run.job.name}
                for run in self.runs
            ],
        }


def make_plan(config: StudyConfig) -> StudyPlan:
    """Lay out all jobs, seed by seed, so that an interrupted study has whole seeds to compare.

    Raises:
        ConfigError: A task, a method or an option is unknown or impossible.
    """
    methods = {name: resolve_method(name, config.own) for name in config.methods}
    configs = {
        (task_name, name): with_options(
            method.configure(base),
            task.method_options.get(name, {}),
            f"tasks.{task_name}.method_options.{name}",
        )
        for task_name, task in config.tasks.items()
        for base in [_base_config(task_name, task)]
        for name, method in methods.items()
    }
    jobs: dict[str, Job] = {}
    runs = []
    for seed in config.seeds:
        for (task_name, name), unseeded in configs.items():
            seeded = dataclasses.replace(unseeded, seed=seed)
            chain = _chain(task_name, config.tasks[task_name], name, seeded, methods[name].stages)
            # Of several methods that share their imitation, the first one's configuration runs it.
            for job in chain:
                jobs.setdefault(job.name, job)
            runs.append(StudyRun(task_name, name, seed, chain[-1]))
    return StudyPlan(config, methods, tuple(jobs.values()), tuple(runs))


def read_job(folder: Path) -> Job:
    """Read the description of the job in `folder`.

    Raises:
        ConfigError: It is missing or was written by another version.
    """
    path = folder / JOB_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"'{path}' cannot be read: {error}; start the study again") from error
    description.pop("hash", None)
    kind = DemonstrationJob if description["kind"] == "demonstrations" else TrainingJob
    work = from_dict(kind, description.pop("work"), str(path))
    return from_dict(Job, {**description, "work": work}, str(path))


def imitation_identity(config: TrainConfig) -> dict[str, Any]:
    """Return the options that the policy after imitation depends on; equal ones can share it."""
    options = {name: value for name, value in to_dict(config).items() if name not in _AFTER_IMITATION}
    agent = {name: value for name, value in options["agent"].items() if name not in _AGENT_AFTER_IMITATION}
    return {**options, "agent": agent}


def _base_config(name: str, task: StudyTask) -> TrainConfig:
    """Return the configuration that all methods start from on a task."""
    if task.env is None:
        config = dataclasses.replace(preset(task.task or name, task.budget), demos=task.demos)
    else:
        config = preset_for_environment(task.env, task.budget, task.demos)
    return with_options(config, task.options, f"tasks.{name}.options")


def _chain(
    task_name: str,
    task: StudyTask,
    method: str,
    config: TrainConfig,
    stages: tuple[StageName, ...],
) -> list[Job]:
    """Return the jobs of one run in their order: demonstrations, imitation, the run itself."""
    recordings = []
    held_out = task.held_out
    entry = task_of_env(config.env)
    if entry is not None and config.demos is None:
        demonstrations = _recording(
            task_name,
            DemonstrationJob(tasks.name_of(entry), config.demo_episodes, config.seed, config.demo_plant),
        )
        recordings.append(demonstrations)
        config = dataclasses.replace(config, demos=Path(demonstrations.name) / DEMONSTRATIONS_FILE)
    if entry is not None and held_out is None and task.held_out_episodes > 0:
        unseen = _recording(
            f"{task_name}-held-out",
            DemonstrationJob(tasks.name_of(entry), task.held_out_episodes, _HELD_OUT_SEED, config.demo_plant),
        )
        recordings.append(unseen)
        held_out = Path(unseen.name) / DEMONSTRATIONS_FILE
    before = tuple(job.name for job in recordings)
    measures = {"held_out": held_out, "modes": task.modes}
    place = f"seed-{config.seed}"
    if "imitation" not in stages:
        work = TrainingJob(config, stages, **measures)
        return [*recordings, _training("run", f"runs/{task_name}/{method}/{place}", before, work)]
    imitation = _training(
        "imitation",
        f"imitation/{task_name}/{place}",
        before,
        TrainingJob(config, ("imitation",), **measures),
    )
    work = TrainingJob(config, stages, shared=Path(imitation.name), **measures)
    run = _training("run", f"runs/{task_name}/{method}/{place}", (*before, imitation.name), work)
    return [*recordings, imitation, run]


def _recording(name: str, work: DemonstrationJob) -> Job:
    digest = config_hash(to_dict(work))[:_HASH_LETTERS]
    return Job(f"demonstrations/{name}-seed-{work.seed}-{digest}", "demonstrations", (), 0, work)


def _training(kind: JobKind, place: str, needs: tuple[str, ...], work: TrainingJob) -> Job:
    """Name a job after what decides its weights; what is measured afterwards may change."""
    config = imitation_identity(work.config) if kind == "imitation" else to_dict(work.config)
    digest = config_hash({"config": config, "stages": list(work.stages)})[:_HASH_LETTERS]
    own: list[StageName] = [name for name in work.stages if work.shared is None or name != "imitation"]
    # A method without a stage to itself (behaviour cloning) still has to be measured.
    updates = sum(stage.total_updates for stage in make_stages(work.config, own)) if own else 0
    return Job(f"{place}-{digest}", kind, needs, updates, work)
