"""One self-contained HTML page that tells what a study found, for a reader with five minutes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path

from serfn.core.files import write_atomically
from serfn.reports.run_report import page_style, page_template
from serfn.reports.study.csv_tables import write_tables
from serfn.reports.study.html import cell, head_cell, note, notes, plural, table
from serfn.reports.study.modes import policy_panels
from serfn.reports.study.plots import save_study_plots
from serfn.reports.study.record import StudyRecord, load_study_record
from serfn.reports.study.sections import TaskSection
from serfn.reports.study.tables import RunRow, method_rows, overall_better, run_rows
from serfn.reports.study.words import interval_cell, overall_outcome, seeds_words, verdict_sentences


def write_study_report(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Write `report.html` into a study's folder, and its figures and tables into `report_files/`.

    The page needs no other file and no network. A study that is not complete can be reported too.

    Args:
        folder: Folder of a study, see `serfn.studies.study`.

    Returns:
        Path of the page, and its verdicts, one sentence per task.

    Raises:
        DataError: The folder is no study or holds a broken file.
    """
    record = load_study_record(folder)
    rows = run_rows(record)
    methods = method_rows(record, rows)
    panels = {task: policy_panels(record, task) for task in record.tasks}
    files = folder / "report_files"
    files.mkdir(exist_ok=True)
    write_tables(record, files)
    figures = save_study_plots(record, methods, panels, files)
    sections = [
        TaskSection(record, task, methods, rows, panels[task], figures).html()
        for task in record.tasks
        if any(row.task == task for row in methods)
    ]
    verdicts = tuple(verdict_sentences(record, methods))
    page = page_template("study/template.html").substitute(
        style=page_style(),
        title=escape(record.title),
        subtitle=escape(_subtitle(record)),
        outcome=overall_outcome(methods),
        verdict="".join(f"<p>{escape(sentence)}</p>" for sentence in verdicts),
        sections=_diverged(record) + "".join(sections) + _overall(record, rows),
        methods=_methods(record),
        version=version("serfn"),
    )
    path = folder / "report.html"
    write_atomically(path, page)
    return path, verdicts


def _subtitle(record: StudyRecord) -> str:
    done = len(record.runs)
    parts = [
        " and ".join(task.label for task in record.tasks.values()),
        plural(len(record.methods), "method"),
        seeds_words([len(record.seeds)]),
        "complete" if done == record.planned else f"{done} of {record.planned} runs done",
    ]
    return " · ".join(parts)


def _diverged(record: StudyRecord) -> str:
    """Say which runs diverged: they count with their last evaluation."""
    found = [
        f"{record.methods[run.method].label}, seed {run.seed}: {reason.strip()}"
        for run in record.runs
        if run.diverged
        for reason in [run.measures.outcome.partition(":")[2]]
    ]
    return notes("Runs that diverged count with their last evaluation:", found) if found else ""


def _overall(record: StudyRecord, rows: Sequence[RunRow]) -> str:
    if len(record.tasks) < 2:
        return ""
    ours = record.methods[record.reference].label
    lines = [
        f"<tr>{head_cell(record.methods[method].label, f'n = {interval.n}')}"
        f"{cell(*interval_cell(interval, percent=True))}</tr>"
        for method, interval in overall_better(record, rows).items()
    ]
    words = (
        f"Chance that a run of {ours} beats one of the method on the same task, averaged over the tasks; n "
        "counts runs; 95% bootstrap interval, stratified by task."
    )
    return "<h2>All tasks</h2>" + table([f"P({ours} better)"], lines) + note(words)


def _methods(record: StudyRecord) -> str:
    items = [
        f"<dt>{escape(method.label)}</dt><dd>{escape(method.summary)}"
        f"{f'<br>{escape(method.citation)}' if method.citation else ''}</dd>"
        for method in record.methods.values()
    ]
    return f"<dl>{''.join(items)}</dl>"
