"""What a study wrote into its folder, read back for tables, figures and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from serfn.core.errors import DataError
from serfn.core.results import EvaluationResult
from serfn.reports.run_record import RunRecord, load_run
from serfn.reports.statistics import name_score
from serfn.reports.study.curves import AdaptationCurve, Axis, adaptation_curve


@dataclass(frozen=True)
class MethodInfo:
    """A method as the report names it."""

    name: str
    label: str
    summary: str
    citation: str


@dataclass(frozen=True)
class TaskInfo:
    """A task as the report names it.

    Attributes:
        name: Name in the study file.
        label: What the report calls it.
        threshold: Score whose first reaching is reported; None leaves it out.
        circles: Obstacles `(x, y, radius)` that are drawn with paths.
    """

    name: str
    label: str
    threshold: float | None
    circles: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Ways:
    """Which way the policy went in repeated episodes from one start.

    Attributes:
        episodes: Number of episodes.
        counts: Successful episodes by way.
        failed: Episodes without success.
        other: Successful episodes by none of the ways.
        paths: Points of some episodes and whether they succeeded; empty where none were kept.
    """

    episodes: int
    counts: Mapping[str, int]
    failed: int
    other: int
    paths: tuple[tuple[tuple[tuple[float, float], ...], bool], ...]

    @property
    def coverage(self) -> float:
        """Share of the rarest way among all episodes, times the number of ways.

        1 if all ways are taken equally often and no episode fails; 0 if a way is never taken.
        """
        return len(self.counts) * min(self.counts.values()) / self.episodes


@dataclass(frozen=True)
class Measures:
    """What was measured after training besides evaluations.

    Attributes:
        outcome: `complete`, or `diverged: ...` with the reason.
        policy: Name of the policy's class.
        shared: Folder of the imitation run that this one continued, relative to the study; None if it had its
            own.
        policy_parameters: Learnt numbers of the policy.
        critic_parameters: Learnt numbers of the critic.
        nll: Negative log-likelihood of unseen demonstrations in nats per action dimension; None for policies
            without a density.
        ways: Which way the policy goes; None where the task has no ways.
    """

    outcome: str
    policy: str
    shared: str | None
    policy_parameters: int
    critic_parameters: int
    nll: float | None
    ways: Ways | None


@dataclass(frozen=True)
class StudyRunRecord:
    """One run of a study: its place in the comparison, and what it left behind.

    Attributes:
        task: Name of the task.
        method: Name of the method.
        seed: Seed.
        run: Its run folder.
        measures: What was measured at its end.
        imitated: What was measured after its imitation stage; None if that was not shared.
    """

    task: str
    method: str
    seed: int
    run: RunRecord
    measures: Measures
    imitated: Measures | None

    @cached_property
    def curve(self) -> AdaptationCurve | None:
        """Scores during adaptation; None if nothing was evaluated."""
        return adaptation_curve(self.run)

    @property
    def final(self) -> EvaluationResult | None:
        """Final evaluation of the last stage; of a diverged run, its last evaluation."""
        finals = self.run.finals()
        points = self.run.evaluations if self.diverged else finals
        return points[-1].result if points else None

    @property
    def diverged(self) -> bool:
        """Whether updates stayed non-finite until training gave up."""
        return self.measures.outcome != "complete"

    @property
    def environment_steps(self) -> int:
        """Control steps on the robot."""
        final = self.final
        hz = 0.0 if final is None else final.control_hz
        return round(float(self.run.status.get("robot_minutes", 0.0)) * 60 * hz)

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds by stage, with those of a shared stage as if the run had paid for it alone."""
        return {str(name): float(value) for name, value in self.run.status.get("seconds", {}).items()}


@dataclass(frozen=True)
class StudyRecord:
    """A study as its report sees it; runs that are not done are missing from `runs`."""

    folder: Path
    title: str
    reference: str
    ablations: tuple[str, ...]
    seeds: tuple[int, ...]
    tasks: Mapping[str, TaskInfo]
    methods: Mapping[str, MethodInfo]
    runs: tuple[StudyRunRecord, ...]
    planned: int

    def of(self, task: str, method: str) -> list[StudyRunRecord]:
        """Return the evaluated runs of a method on a task, in the order of their seeds."""
        found = [
            run
            for run in self.runs
            if run.task == task and run.method == method and run.final is not None and run.curve is not None
        ]
        return sorted(found, key=lambda run: run.seed)

    def score_name(self, task: str) -> str:
        """Return what the score of a task is called."""
        results = [point.result for run in self.runs if run.task == task for point in run.run.evaluations]
        return name_score(results) if results else "score"

    def budget(self, task: str, axis: Axis) -> float:
        """Return the largest experience that any run of the task used, in minutes or episodes."""
        ends = [run.curve.along(axis)[-1] for run in self.runs if run.task == task and run.curve is not None]
        return max(ends, default=0.0)


def load_study_record(folder: Path) -> StudyRecord:
    """Read the folder of a study; runs that are not done yet are left out.

    Raises:
        DataError: The folder is no study, or a file in it is broken.
    """
    description = _json(folder / "study.json", "give the folder of serfn study --out")
    try:
        runs = [_run(folder, entry) for entry in description["runs"]]
        return StudyRecord(
            folder=folder,
            title=description["title"],
            reference=description["reference"],
            ablations=tuple(description["ablations"]),
            seeds=tuple(description["seeds"]),
            tasks={
                name: TaskInfo(name, task["label"], task["threshold"], tuple(map(tuple, task["circles"])))
                for name, task in description["tasks"].items()
            },
            methods={name: MethodInfo(name, **method) for name, method in description["methods"].items()},
            runs=tuple(run for run in runs if run is not None),
            planned=len(runs),
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"'{folder / 'study.json'}' does not describe a study ({error!r}); start serfn study again"
        ) from error


def _run(folder: Path, entry: Mapping[str, Any]) -> StudyRunRecord | None:
    place = folder / entry["folder"]
    measures = _measures(place)
    if measures is None:
        return None
    imitated = None if measures.shared is None else _measures(folder / measures.shared)
    return StudyRunRecord(entry["task"], entry["method"], entry["seed"], load_run(place), measures, imitated)


def _measures(place: Path) -> Measures | None:
    path = place / "record.json"
    if not path.is_file():
        return None
    record = _json(path, "remove it and start serfn study again")
    return Measures(
        outcome=record["outcome"],
        policy=record["policy"],
        shared=record["shared"],
        policy_parameters=record["parameters"]["policy"],
        critic_parameters=record["parameters"]["critic"],
        nll=record["nll"],
        ways=None if record["modes"] is None else _ways(record["modes"]),
    )


def _ways(record: Mapping[str, Any]) -> Ways:
    return Ways(
        episodes=record["episodes"],
        counts=record["ways"],
        failed=record["failed"],
        other=record["other"],
        paths=tuple((tuple(map(tuple, path["points"])), path["success"]) for path in record["paths"]),
    )


def _json(path: Path, remedy: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"'{path}' cannot be read ({error}); {remedy}") from error
