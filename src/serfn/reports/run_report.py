"""One self-contained HTML page that tells what a run achieved, for a reader with five minutes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template

from serfn.core.errors import DataError
from serfn.reports.experience import is_session, load_session, session_rows
from serfn.reports.run_plots import find_option, save_plots
from serfn.reports.run_record import STAGES, RunRecord, load_run
from serfn.reports.run_words import (
    aborted_sentence,
    cell,
    duration,
    episodes_words,
    pace_sentence,
    readable,
    results_table,
    score_row,
    stage_words,
    time_rows,
    verdict_sentence,
    way_sentence,
    with_interval,
)
from serfn.reports.statistics import SummaryRow

_MOST_ALARMS = 5
"""Alarms of one stage that the page shows."""

_PLOT_WORDS = {
    "learning": "Mean score of each evaluation with its 95% interval, against the robot time spent online. "
    "Squares are final evaluations, of the policy after imitation and of what the stage ended with, on "
    "seeds of their own.",
    "likelihood": "How likely the policy finds the recorded chunks, how far it has moved from its reference "
    "(the divergence, estimated on its own samples), and the coefficient λ of the penalty.",
    "critic": "The critic's training error, and its values against the bound that the rewards allow. Values "
    "beyond the bound would mean that the policy exploits errors of the critic.",
}


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder, and its plots into `report_files/`.

    The page needs no other file and no network: images are embedded. A run that is still going can be
    reported too.

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
    page = page_template("run_template.html").substitute(
        style=page_style(),
        title=escape(run_dir.resolve().name),
        subtitle=escape(_subtitle(record)),
        outcome=record.verdict().outcome,
        verdict=escape(verdict_sentence(record)),
        findings=_findings(record),
        results=_results(record) + _sentence(pace_sentence(record)) + _other_acting(record),
        learning=_plot("learning", plots) + _sentence(way_sentence(record)),
        films=_films(record),
        events=_events(record),
        likelihood=_plot("likelihood", plots),
        critic=_plot("critic", plots),
        cost=_cost(record),
        config=escape(json.dumps(record.config, indent=2, ensure_ascii=False)),
        version=version("serfn"),
    )
    path = run_dir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def page_template(name: str) -> Template:
    """Return a page of this package with places for its parts."""
    return Template((files("serfn.reports") / name).read_text(encoding="utf-8"))


def page_style() -> str:
    """Return the style sheet that all pages share."""
    return (files("serfn.reports") / "run_style.css").read_text(encoding="utf-8")


def _subtitle(record: RunRecord) -> str:
    named = [(name, find_option(record.config, name)) for name in ("task", "env", "plant", "seed")]
    # A task's name needs no label; a plant and a seed do.
    parts = [
        str(value) if name in ("task", "env") else f"{name} {value}"
        for name, value in named
        if isinstance(value, str | int)
    ]
    stage = record.status.get("stage", "unknown")
    return " · ".join([*parts, "complete" if record.status.get("complete") else f"in stage {stage}"])


def _findings(record: RunRecord) -> str:
    """List what did not agree when the run met its demonstrations and its environment, and what broke."""
    texts = [str(finding["text"]) for finding in record.findings]
    texts += filter(None, [aborted_sentence(record)])
    if not texts:
        return ""
    items = "".join(f"<li class='held'>{escape(text)}</li>" for text in texts)
    return f"<h2>What to look at</h2><ul class='events'>{items}</ul>"


def _session(folder: Path) -> str:
    """Return what each robot of a session came to, as a table."""
    session = load_session(folder)
    columns = [dict(session_rows(session, robot)) for robot in session.episodes]
    heads = "".join(f"<th>{escape(robot)}</th>" for robot in session.episodes)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>" + "".join(f"<td>{escape(column[name])}</td>" for column in columns)
        for name in (columns[0] if columns else ())
    )
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _results(record: RunRecord) -> str:
    table = results_table(record)
    if not table.points and is_session(record.folder):
        return _session(record.folder)
    if not table.points:
        if record.gates and record.config.get("env") is None:
            return _note("There is no environment: held-out recordings judge, see the gates below.")
        return _note("No stage has been evaluated yet.")
    heads = "".join(
        f"<th scope='col'>{stage_words(point.stage)}<small>{escape(point.acting_label)}<br>"
        f"{episodes_words(point.result)}</small></th>"
        for point in table.points
    )
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>{''.join(map(_table_cell, cells))}</tr>"
        for name, cells in table.rows
    )
    head = f"<thead><tr><td></td>{heads}</tr></thead>"
    return f"<div class='scroll'><table class='results'>{head}<tbody>{body}</tbody></table></div>"


def _table_cell(row: SummaryRow | None) -> str:
    if row is None:
        return "<td>\N{EN DASH}</td>"
    mean, interval = cell(row)
    return f"<td>{mean}<small>{interval}</small></td>"


def _other_acting(record: RunRecord) -> str:
    """List the final evaluations that the table leaves out: the same policies, acting in another way."""
    shown = record.finals()
    lines = [
        f"<li>{stage_words(point.stage)}, {escape(point.acting_label)}: "
        f"{with_interval(score_row(point, record).interval)} {escape(readable(record.score_name))}</li>"
        for point in record.evaluations
        if point.final and point not in shown
    ]
    if not lines:
        return ""
    head = "<summary>The same policies acting in other ways</summary>"
    return f"<details>{head}<ul>{''.join(lines)}</ul></details>"


def _plot(name: str, plots: Mapping[str, Mapping[str, Path]]) -> str:
    if name not in plots:
        return _note("The run has no data for this plot.")
    words = escape(_PLOT_WORDS[name])
    light, dark = (data_uri(plots[name][scheme]) for scheme in ("light", "dark"))
    return (
        f"<figure><picture><source media='(prefers-color-scheme: dark)' srcset='{dark}'>"
        f"<img src='{light}' alt='{words}'></picture><figcaption>{words}</figcaption></figure>"
    )


def _sentence(words: str) -> str:
    """Return a sentence as a note, and nothing where there is nothing to say."""
    return _note(words) if words else ""


def _films(record: RunRecord) -> str:
    if not record.films:
        return _note("No film was recorded: the environment does not render, or not on this machine.")
    return "".join(
        f"<figure><div class='scroll'><img class='film' src='{data_uri(path)}' alt='{escape(caption)}'>"
        f"</div><figcaption>{escape(caption)}</figcaption></figure>"
        for path, caption in record.films
    )


def _events(record: RunRecord) -> str:
    """List what happened in each stage: its alarms, then the decisions of its gate and its rollbacks."""
    if not (record.gates or record.alarms):
        return _note("No gate has decided yet.")
    items = []
    for stage in STAGES:
        alarms = [str(alarm["text"]) for alarm in record.alarms if alarm["stage"] == stage]
        items += [_event(stage, "alarm", text, False) for text in alarms[:_MOST_ALARMS]]
        if len(alarms) > _MOST_ALARMS:
            rest = f"{len(alarms) - _MOST_ALARMS} more, all in alarms.jsonl"
            items.append(_event(stage, "alarms", rest, False))
        items += [
            _event(stage, "promoted" if promoted else "not promoted", str(gate["reason"]), promoted)
            for gate in record.gates
            for promoted in [gate["promoted"]]
            if gate["stage"] == stage
        ]
    return f"<ul class='events'>{''.join(items)}</ul>"


def _event(stage: str, what: str, reason: str, good: bool) -> str:
    kind = "kept" if good else "held"
    return f"<li class='{kind}'><b>{stage_words(stage)}: {escape(what)}</b>{escape(reason)}</li>"


def _cost(record: RunRecord) -> str:
    seconds = record.status.get("seconds", {})
    if not isinstance(seconds, Mapping):
        path = record.folder / "status.json"
        raise DataError(f"'{path}' has seconds {seconds!r}; expected one number per stage")
    order = sorted(seconds, key=lambda name: STAGES.index(name) if name in STAGES else len(STAGES))
    rows = [(stage_words(name), duration(float(seconds[name]))) for name in order]
    rows.append(("All computing", duration(sum(map(float, seconds.values())))))
    rows += time_rows(record)
    rows.append(("Robot time of training", duration(60 * float(record.status.get("robot_minutes", 0.0)))))
    evaluated = sum(point.result.minutes for point in record.evaluations)
    rows.append(("Robot time of evaluation", duration(60 * evaluated)))
    lines = (f"<tr><th scope='row'>{escape(name)}</th><td>{value}</td></tr>" for name, value in rows)
    return f"<table class='plain'>{''.join(lines)}</table>"


def _note(text: str) -> str:
    return f"<p class='note'>{escape(text)}</p>"


def data_uri(path: Path) -> str:
    """Return a PNG file as an address that holds the image itself."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
