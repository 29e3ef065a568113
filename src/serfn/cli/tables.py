"""Results as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from serfn.core.results import EvaluationResult
from serfn.reports.experience import SessionRecord, session_rows
from serfn.reports.run_record import RunRecord
from serfn.reports.run_words import (
    aborted_sentence,
    cell,
    episodes_words,
    pace_sentence,
    readable,
    results_table,
    stage_words,
    verdict_sentence,
)
from serfn.reports.statistics import SummaryRow, summarize


def print_run(console: Console, record: RunRecord) -> None:
    """Print the stages side by side, and the verdict."""
    results = results_table(record)
    if results.points:
        table = _table("")
        for point in results.points:
            table.add_column(f"{stage_words(point.stage)}\n[dim]{point.acting_label}")
        for name, cells in results.rows:
            table.add_row(name, *("–" if row is None else _words(row) for row in cells))
        console.print(table)
        episodes = {point.result.episodes for point in results.points}
        counts = " and ".join(str(count) for count in sorted(episodes))
        console.print(f"[dim]means with 95% intervals over {counts} evaluation episodes per stage")
    if aborted := aborted_sentence(record):
        console.print(aborted, markup=False, highlight=False)
    console.print(verdict_sentence(record), highlight=False)
    if pace := pace_sentence(record):
        console.print(pace, highlight=False)


def print_session(console: Console, record: SessionRecord) -> None:
    """Print what each robot of a session came to: success over robot time, policies, people."""
    table = _table("robot")
    for name in record.episodes:
        table.add_column(name)
    columns = [session_rows(record, name) for name in record.episodes]
    for row, _ in columns[0] if columns else ():
        table.add_row(row, *(dict(column)[row] for column in columns))
    console.print(table)


def print_evaluation(console: Console, result: EvaluationResult) -> None:
    """Print one evaluation."""
    table = _table(episodes_words(result))
    table.add_column("mean, 95% interval")
    for row in summarize(result):
        table.add_row(readable(row.name), _words(row))
    console.print(table)


def _table(corner: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column(corner, style="dim")
    return table


def _words(row: SummaryRow) -> str:
    mean, interval = cell(row)
    return f"[bold]{mean}[/bold] [dim]({interval})[/dim]"
