"""The tables of a study as CSV files, from which everything in its report can be computed again."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from serfn.core.files import write_atomically
from serfn.reports.statistics import Interval
from serfn.reports.study.curves import Axis
from serfn.reports.study.record import StudyRecord
from serfn.reports.study.tables import MethodRow, curve_band, method_rows, run_rows


def write_tables(record: StudyRecord, folder: Path) -> dict[str, Path]:
    """Write `runs.csv`, `evaluations.csv`, `methods.csv` and `curves.csv`; return them by name."""
    rows = run_rows(record)
    tables = {
        "runs": [dataclasses.asdict(row) for row in rows],
        "evaluations": _evaluation_rows(record),
        "methods": [_flat(row) for row in method_rows(record, rows)],
        "curves": _curve_rows(record),
    }
    return {name: _write_csv(folder / f"{name}.csv", table) for name, table in tables.items()}


def _evaluation_rows(record: StudyRecord) -> list[dict[str, object]]:
    return [
        {
            "task": run.task,
            "method": run.method,
            "seed": run.seed,
            "stage": point.stage,
            "final": point.final,
            "episodes": point.episodes,
            "robot_minutes": point.robot_minutes,
            "updates": point.updates,
            "score": point.result.mean_score,
            "evaluation_episodes": point.result.episodes,
            "success": point.result.success_rate,
        }
        for run in record.runs
        for point in run.run.evaluations
    ]


def _curve_rows(record: StudyRecord) -> list[dict[str, object]]:
    axes: tuple[Axis, ...] = ("minutes", "episodes")
    return [
        {
            "task": task,
            "method": method,
            "axis": axis,
            "x": x,
            "score": y,
            "low": low,
            "high": high,
            "seeds": n,
        }
        for task in record.tasks
        for method in record.methods
        for axis in axes
        if (band := curve_band(record, task, method, axis)) is not None
        for n in [band.seeds]
        for x, y, low, high in zip(band.x, band.middle, band.low, band.high, strict=True)
    ]


def _flat(row: MethodRow) -> dict[str, object]:
    flat: dict[str, object] = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, Interval):
            flat |= {f"{field.name}_{part}": getattr(value, part) for part in ("mean", "low", "high", "n")}
        elif field.name in ("success", "lead", "area_lead", "better"):
            flat |= {f"{field.name}_{part}": None for part in ("mean", "low", "high", "n")}
        else:
            flat[field.name] = value
    return flat


def _write_csv(path: Path, table: Sequence[dict[str, object]]) -> Path:
    text = io.StringIO()
    if table:
        writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    write_atomically(path, text.getvalue())
    return path
