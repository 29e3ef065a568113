"""One self-contained HTML page that tells what a run achieved, for a reader with five minutes."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from serfn import __version__
from serfn.core.errors import DataError
from serfn.evaluation.report_plots import find_option, readable, save_plots
from serfn.evaluation.run_record import STAGES, EvaluationPoint, RunRecord, load_run
from serfn.evaluation.statistics import Interval, SummaryRow, summarize

_STAGE_WORDS = {
    "imitation": "Imitation",
    "critic_warmup": "Critic warm-up",
    "offline": "Offline",
    "online": "Online",
}
_PLOT_WORDS = {
    "learning": "Mean score of each evaluation with its 95% interval, against the robot time spent online.",
    "likelihood": "How likely the policy finds the recorded chunks, how far it has moved from its reference (the "
    "exact divergence, estimated on its own samples), and how strongly it is held.",
    "critic": "The critic's training error, and its values against the bound that the rewards allow. Values beyond "
    "the bound would mean that the policy exploits errors of the critic.",
}


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder, and its images into `report_files/`.

    The page needs no other file and no network: images are embedded. It can be written while a run is going on.

    Args:
        run_dir: Folder of a run, see `docs/architecture.md`.

    Returns:
        Path of the page.

    Raises:
        DataError: The folder is no run or holds a broken file.
    """
    record = load_run(run_dir)
    images = run_dir / "report_files"
    images.mkdir(exist_ok=True)
    plots = save_plots(record, images)
    template = Template((files("serfn.evaluation") / "report_template.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(run_dir.resolve().name),
        subtitle=escape(_subtitle(record)),
        outcome=record.verdict().outcome,
        verdict=escape(verdict_sentence(record)),
        results=_results(record),
        learning=_plot("learning", plots),
        films=_films(record),
        events=_events(record),
        likelihood=_plot("likelihood", plots),
        critic=_plot("critic", plots),
        cost=_cost(record),
        config=escape(json.dumps(record.config, indent=2, ensure_ascii=False)),
        version=__version__,
    )
    path = run_dir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def verdict_sentence(record: RunRecord) -> str:
    """Say in plain words whether the run made its policy better than imitation."""
    finals = record.finals()
    if not finals:
        return "No stage has been evaluated yet."
    name = readable(record.score_name)
    last = _score_row(finals[-1], record).interval
    verdict = record.verdict()
    if verdict.difference is None:
        stage = _STAGE_WORDS[finals[-1].stage].lower()
        return f"After {stage} the policy reaches {_with_interval(last)} {name}. There is nothing to compare it with yet."
    first = _score_row(finals[0], record).interval
    change = f"from {_number(first.mean)} to {_number(last.mean)} {name}"
    gap = _with_interval(verdict.difference, signed=True)
    stage = _STAGE_WORDS[finals[-1].stage].lower()
    minutes = finals[-1].robot_minutes
    spent = f" and {minutes:.0f} min of robot time" if minutes > 0 else ""
    if verdict.outcome == "improved":
        return f"Improved: after {stage} training{spent} the policy went {change}, a difference of {gap}."
    if verdict.outcome == "worse":
        return f"Worse: after {stage} training{spent} the policy went {change}, a difference of {gap}."
    return (
        f"No improvement shown: after {stage} training{spent} the policy went {change}, but the difference of {gap} "
        "lies within the interval."
    )


def results_table(record: RunRecord) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the heads (stages) and rows (metric, one `mean [low, high]` per stage) of the results."""
    finals = record.finals()
    tables = [_rows(point, record) for point in finals]
    names = list(dict.fromkeys(name for table in tables for name in table))
    heads = [_STAGE_WORDS[point.stage] for point in finals]
    return heads, [
        (readable(name), [_cell(table[name]) if name in table else "–" for table in tables]) for name in names
    ]


def _rows(point: EvaluationPoint, record: RunRecord) -> dict[str, SummaryRow]:
    return {row.name: row for row in summarize(point.result, record.score_name)}


def _score_row(point: EvaluationPoint, record: RunRecord) -> SummaryRow:
    return _rows(point, record)[record.score_name]


def _subtitle(record: RunRecord) -> str:
    parts = [f"{name} {value}" for name in ("plant", "seed") if (value := find_option(record.config, name)) is not None]
    task = next((value for name in ("env_id", "env", "task") if isinstance(value := find_option(record.config, name), str)), None)
    state = "complete" if record.status.get("complete") else f"in stage {record.status.get('stage', 'unknown')}"
    return " · ".join([*([task] if task else []), *parts, state])


def _results(record: RunRecord) -> str:
    finals = record.finals()
    if not finals:
        return "<p class='note'>No stage has been evaluated yet.</p>"
    heads, rows = results_table(record)
    columns = "".join(
        f"<th scope='col'>{head}<small>{escape(point.acting_label)}<br>{point.result.episodes} episodes</small></th>"
        for head, point in zip(heads, finals, strict=True)
    )
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>" + "".join(f"<td>{_stacked(cell)}</td>" for cell in cells) + "</tr>"
        for name, cells in rows
    )
    table = f"<div class='scroll'><table class='results'><thead><tr><td></td>{columns}</tr></thead>"
    return f"{table}<tbody>{body}</tbody></table></div>{_other_acting(record)}"


def _other_acting(record: RunRecord) -> str:
    """List the closing evaluations that the table leaves out: the same policies, acting in another way."""
    shown = record.finals()
    others = [point for point in record.evaluations if point.final and point not in shown]
    if not others:
        return ""
    lines = "".join(
        f"<li>{_STAGE_WORDS.get(point.stage, point.stage)}, {escape(point.acting_label)}: "
        f"{_with_interval(_score_row(point, record).interval)} {escape(readable(record.score_name))}</li>"
        for point in others
    )
    return f"<details><summary>The same policies acting in other ways</summary><ul>{lines}</ul></details>"


def _plot(name: str, plots: Mapping[str, Mapping[str, Path]]) -> str:
    if name not in plots:
        return "<p class='note'>The run has no data for this plot.</p>"
    light, dark = (_data_uri(plots[name][scheme]) for scheme in ("light", "dark"))
    return (
        f"<figure><picture><source media='(prefers-color-scheme: dark)' srcset='{dark}'>"
        f"<img src='{light}' alt='{escape(_PLOT_WORDS[name])}'></picture>"
        f"<figcaption>{escape(_PLOT_WORDS[name])}</figcaption></figure>"
    )


def _films(record: RunRecord) -> str:
    if not record.films:
        return "<p class='note'>No film was recorded: the environment does not render, or not on this machine.</p>"
    return "".join(
        f"<figure><div class='scroll'><img class='film' src='{_data_uri(path)}' alt='{escape(caption)}'></div>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for path, caption in record.films
    )


def _events(record: RunRecord) -> str:
    items = [
        f"<li class='{'kept' if gate['promoted'] else 'held'}'><b>{_STAGE_WORDS.get(gate['stage'], gate['stage'])}: "
        f"{'promoted' if gate['promoted'] else 'not promoted'}</b> {escape(str(gate['reason']))}</li>"
        for gate in record.gates
    ]
    alarms = Counter(
        (row.get("stage", ""), name)
        for row in record.metrics
        for name, value in row.items()
        if name.split("/")[-1].startswith(("alarm", "rollback")) and isinstance(value, int | float) and value > 0
    )
    items += [
        f"<li class='held'><b>{_STAGE_WORDS.get(stage, stage)}: {escape(readable(name))}</b> "
        f"raised in {count} logged {'step' if count == 1 else 'steps'}</li>"
        for (stage, name), count in alarms.items()
    ]
    if not items:
        return "<p class='note'>No gate has decided yet and no alarm was raised.</p>"
    quiet = "" if alarms else "<p class='note'>No alarm was raised.</p>"
    return f"<ul class='events'>{''.join(items)}</ul>{quiet}"


def _cost(record: RunRecord) -> str:
    seconds = record.status.get("seconds", {})
    if not isinstance(seconds, Mapping):
        raise DataError(f"status.json of '{record.folder}' has seconds {seconds!r}; expected one number per stage")
    order = [*(stage for stage in STAGES if stage in seconds), *(name for name in seconds if name not in STAGES)]
    rows = [(_STAGE_WORDS.get(name, readable(name)), _duration(float(seconds[name]))) for name in order]
    rows.append(("All computing", _duration(sum(map(float, seconds.values())))))
    rows.append(("Robot time", _duration(60 * float(record.status.get("robot_minutes", 0.0)))))
    return "<table class='plain'>" + "".join(_pair(rows)) + "</table>"


def _pair(rows: Iterable[tuple[str, str]]) -> Iterable[str]:
    return (f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)


def _cell(row: SummaryRow) -> str:
    interval = row.interval
    if row.rate:
        return f"{100 * interval.mean:.0f}% [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
    return f"{_number(interval.mean)} [{_number(interval.low)}, {_number(interval.high)}]"


def _stacked(cell: str) -> str:
    value, _, interval = cell.partition(" [")
    return f"{value}<small>{interval.rstrip(']').replace(', ', ' to ')}</small>" if interval else value


def _with_interval(interval: Interval, *, signed: bool = False) -> str:
    mean, low, high = (_number(value, signed=signed) for value in (interval.mean, interval.low, interval.high))
    return f"{mean} (95% interval {low} to {high})"


def _number(value: float, *, signed: bool = False) -> str:
    """Three significant digits, never in scientific notation for everyday sizes; a true minus sign."""
    text = f"{value:+.3g}" if signed else f"{value:.3g}"
    if "e" in text and abs(value) < 1e6:
        text = f"{value:+.0f}" if signed else f"{value:.0f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _data_uri(path: Path) -> str:
    data: Any = base64.b64encode(path.read_bytes())
    return f"data:image/png;base64,{data.decode()}"
