"""What a run wrote into its folder, read back for the report and for the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serfn.core.errors import DataError
from serfn.core.results import EvaluationResult
from serfn.reports.statistics import Interval, difference_interval, name_score

STAGES = ("imitation", "critic_warmup", "offline", "online")
"""Order of the stages in every table and plot."""


@dataclass(frozen=True)
class EvaluationPoint:
    """One evaluation during a run: one line of `evaluations.jsonl`.

    Args:
        stage: Stage after or within which it was made.
        final: Whether it closes its stage, with the full number of episodes.
        episodes: Online episodes of robot experience so far.
        robot_minutes: Online robot time so far.
        updates: Gradient updates so far.
        acting: How actions were chosen, such as `{"candidates": 8, "temperature": 0.7}`.
        result: Outcome of its episodes.
    """

    stage: str
    final: bool
    episodes: int
    robot_minutes: float
    updates: int
    acting: Mapping[str, Any]
    result: EvaluationResult

    @property
    def acting_label(self) -> str:
        """How actions were chosen, in words."""
        candidates = int(self.acting.get("candidates", 1))
        # No-break spaces: the label also heads narrow columns.
        words = "one sample" if candidates == 1 else f"best of\N{NO-BREAK SPACE}{candidates}"
        temperature, steps = self.acting.get("temperature"), self.acting.get("n_action_steps")
        if temperature is not None:
            words += f", σ\N{NO-BREAK SPACE}{temperature:g}"
        return words if steps is None else f"{words}, {steps}\N{NO-BREAK SPACE}steps at a time"


@dataclass(frozen=True)
class Verdict:
    """The last policy against imitation: the difference of the mean scores and the sentence that says it.

    Args:
        outcome: `improved` or `worse` if the 95% interval of the difference excludes 0, `within` if it does
            not, `open` where there is nothing to compare yet.
        difference: Interval of the difference; None if open.
    """

    outcome: str
    difference: Interval | None


@dataclass(frozen=True)
class RunRecord:
    """The files of a run folder, see `docs/architecture.md` for their layout."""

    folder: Path
    config: Mapping[str, Any]
    status: Mapping[str, Any]
    evaluations: tuple[EvaluationPoint, ...]
    metrics: tuple[Mapping[str, Any], ...]
    gates: tuple[Mapping[str, Any], ...]
    alarms: tuple[Mapping[str, Any], ...] = ()
    films: tuple[tuple[Path, str], ...] = field(default=())
    findings: tuple[Mapping[str, Any], ...] = ()
    aborted: tuple[Mapping[str, Any], ...] = ()

    @property
    def score_name(self) -> str:
        """What the score of this task is called."""
        return name_score([point.result for point in self.evaluations]) if self.evaluations else "score"

    def finals(self) -> list[EvaluationPoint]:
        """Return the final evaluation of each stage, in the order of the stages.

        A stage evaluated in several ways of acting counts with the one that it recorded last.
        """
        closing = {point.stage: point for point in self.evaluations if point.final}
        return [closing[stage] for stage in STAGES if stage in closing]

    def interim(self) -> tuple[EvaluationPoint | None, list[EvaluationPoint]]:
        """Return the evaluations with the seeds of interim evaluations, in the order of training.

        Returns:
            The policy after imitation with these seeds, None where a run did not evaluate it there, and the
            policies of the online stage.
        """
        before = [point for point in self.evaluations if point.stage == "imitation" and not point.final]
        way = [point for point in self.evaluations if point.stage == "online" and not point.final]
        return (before[-1] if before else None), way

    def verdict(self) -> Verdict:
        """Compare the last final evaluation with that of imitation."""
        finals = self.finals()
        if len(finals) < 2 or finals[0].stage != "imitation":
            return Verdict("open", None)
        difference = difference_interval(finals[-1].result.scores, finals[0].result.scores)
        if difference.low > 0:
            return Verdict("improved", difference)
        return Verdict("worse" if difference.high < 0 else "within", difference)

    def times_to_success(self) -> tuple[list[float], list[float]]:
        """Return how many s imitation and the last policy took in final evaluations where both succeed.

        Empty where there are not two such evaluations of equal seeds, none of them aborted.
        """
        finals = self.finals()
        if len(finals) < 2 or finals[0].stage != "imitation":
            return [], []
        first, last = finals[0].result, finals[-1].result
        if first.episodes != last.episodes or first.aborted or last.aborted:
            return [], []
        both = [i for i in range(first.episodes) if first.successes[i] and last.successes[i]]
        return (
            [first.lengths[i] / first.control_hz for i in both],
            [last.lengths[i] / last.control_hz for i in both],
        )

    def series(self, stage: str, name: str) -> tuple[list[float], list[float]]:
        """Return the steps and values of one metric within a stage."""
        rows = [row for row in self.metrics if row.get("stage") == stage and _is_number(row.get(name))]
        return [float(row["step"]) for row in rows], [float(row[name]) for row in rows]


def load_run(folder: Path) -> RunRecord:
    """Read a run folder; files that a running job has not written yet count as empty.

    Raises:
        DataError: The folder is missing, is no run, or holds a broken file.
    """
    if not folder.is_dir():
        raise DataError(f"run folder '{folder}' does not exist; give the folder of serfn train --out")
    if not (folder / "config.json").is_file():
        raise DataError(
            f"'{folder}' is not a run: it has no config.json; give the folder of serfn train --out"
        )
    config = _read_json(folder / "config.json", {})
    if "format" in config:
        raise DataError(f"'{folder}' is a policy bundle, not a run; serfn evaluate measures it")
    captions = _read_json(folder / "films" / "films.json", {})
    return RunRecord(
        folder=folder,
        config=config,
        status=_read_json(folder / "status.json", {}),
        evaluations=tuple(_point(row, folder) for row in _read_lines(folder / "evaluations.jsonl")),
        metrics=tuple(_read_lines(folder / "metrics.jsonl")),
        gates=tuple(_read_json(folder / "gates.json", [])),
        alarms=tuple(_read_lines(folder / "alarms.jsonl")),
        findings=tuple(_read_json(folder / "findings.json", [])),
        aborted=tuple(_read_lines(folder / "aborted.jsonl")),
        films=tuple(
            (path, str(captions.get(path.name, path.stem.replace("_", " "))))
            for path in sorted((folder / "films").glob("*.png"), key=_film_order)
        ),
    )


def _point(row: Mapping[str, Any], folder: Path) -> EvaluationPoint:
    try:
        return EvaluationPoint(
            stage=row["stage"],
            final=bool(row["final"]),
            episodes=int(row["episodes"]),
            robot_minutes=float(row["robot_minutes"]),
            updates=int(row["updates"]),
            acting=row["acting"],
            result=EvaluationResult.from_dict(row["result"]),
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"'{folder / 'evaluations.jsonl'}' has a line without {error}; remove it") from error


def _film_order(path: Path) -> tuple[int, str]:
    """Films in the order of the stages that their names begin with."""
    ranks = [rank for rank, stage in enumerate(STAGES) if path.stem.startswith(stage)]
    return (ranks[0] if ranks else len(STAGES), path.name)


def _read_json(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"'{path}' is not valid JSON ({error}); restore or remove it") from error


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    # Bytes that are no text make the line no JSON, which is told below.
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            # A job that is writing right now, or was killed while writing, leaves half a last line.
            if number == len(lines):
                break
            raise DataError(f"'{path}' line {number} is not valid JSON ({error}); remove it") from error
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
