"""The results of a run as words and cells, for the page and for the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from serfn.core.errors import DataError
from serfn.core.results import EvaluationResult
from serfn.core.words import number
from serfn.reports.run_record import EvaluationPoint, RunRecord
from serfn.reports.statistics import Interval, SummaryRow, paired_interval, summarize

_STAGE_WORDS = {
    "imitation": "Imitation",
    "critic_warmup": "Critic warm-up",
    "offline": "Offline",
    "online": "Online",
}

_TIME_WORDS = {
    "learning": "learning",
    "simulation": "simulating online episodes",
    "acting": "acting in online episodes",
    "evaluation/simulation": "simulating evaluations",
    "evaluation/acting": "acting in evaluations",
    "films": "films",
    "records": "logs",
}


@dataclass(frozen=True)
class ResultsTable:
    """Metrics by stage.

    Args:
        points: The final evaluation of each stage: the columns.
        rows: Label of each metric and its summary per column, None where a stage did not report it.
    """

    points: tuple[EvaluationPoint, ...]
    rows: tuple[tuple[str, tuple[SummaryRow | None, ...]], ...]


def results_table(record: RunRecord) -> ResultsTable:
    """Lay out the final evaluations of a run, the score first."""
    points = tuple(record.finals())
    columns = [{row.name: row for row in summarize(point.result, record.score_name)} for point in points]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = tuple((readable(name), tuple(column.get(name) for column in columns)) for name in names)
    return ResultsTable(points, rows)


def verdict_sentence(record: RunRecord) -> str:
    """Say in plain words whether the run made its policy better than imitation."""
    finals = record.finals()
    if not finals:
        if record.gates and record.config.get("env") is None:
            last = record.gates[-1]
            said = "promoted" if last.get("promoted") else "not promoted"
            return f"No environment; {last.get('stage')}: {said}, {last.get('reason')}."
        return "No stage has been evaluated yet."
    name = readable(record.score_name)
    first, last = (score_row(point, record).interval for point in (finals[0], finals[-1]))
    verdict = record.verdict()
    stage = stage_words(finals[-1].stage).lower()
    if verdict.difference is None:
        return f"After {stage}, {name} is {with_interval(last)}; there is nothing to compare with yet."
    minutes = finals[-1].robot_minutes
    spent = f" and {minutes:.0f} min of robot time" if minutes > 0 else ""
    change = f"{name} went from {number(first.mean)} to {number(last.mean)}"
    gap, low, high = (
        number(value, signed=True)
        for value in (verdict.difference.mean, verdict.difference.low, verdict.difference.high)
    )
    history = f"after {stage} training{spent}, {change}"
    if verdict.outcome == "within":
        return (
            f"No improvement shown: {history}; the difference of {gap} is within the interval "
            f"(95%: {low} to {high})."
        )
    return f"{verdict.outcome.capitalize()}: {history}, a difference of {gap} (95% interval {low} to {high})."


def pace_sentence(record: RunRecord) -> str:
    """Say how much sooner the last policy succeeds than imitation where both do, with equal seeds.

    Empty where that cannot be said, or where success ends no episode.
    """
    first, last = record.times_to_success()
    if len(first) < 2 or len({*first, *last}) == 1:
        return ""
    gained = paired_interval(first, last)
    sooner, low, high = gained.mean, gained.low, gained.high
    if sooner < 0:
        sooner, low, high = -sooner, -high, -low
    return (
        f"Where both succeed ({len(first)} seeds) it takes {sum(last) / len(last):.1f} s, and took "
        f"{sum(first) / len(first):.1f} s after imitation: {sooner:.1f} s "
        f"{'more' if gained.mean < 0 else 'less'} (95% interval {low:.1f} to {high:.1f})."
    )


def aborted_sentence(record: RunRecord) -> str:
    """Say how many episodes the environment's own code cut short, and why; empty where it cut none."""
    if not record.aborted:
        return ""
    online = sum(bool(row.get("online")) for row in record.aborted)
    last = record.aborted[-1].get("reason", "no reason is on file")
    return (
        f"Aborted episodes: {online} online, {len(record.aborted) - online} of evaluations. Nothing is "
        f"learnt or measured from them. The last one: {last}."
    )


def episodes_words(result: EvaluationResult) -> str:
    """Return how many episodes a result is of, and how many besides were aborted."""
    return f"{result.episodes} episodes" + (f", {result.aborted} aborted" if result.aborted else "")


def way_sentence(record: RunRecord) -> str:
    """Say whether an interim evaluation fell below imitation with the same seeds.

    Empty where there is nothing to compare.
    """
    imitation, way = record.interim()
    if imitation is None or not way:
        return ""
    level, scores = imitation.result.mean_score, [point.result.mean_score for point in way]
    below = sum(score < level for score in scores)
    verb = "lies" if below == 1 else "lie"
    name, seeds = readable(record.score_name), imitation.result.episodes
    return (
        f"{below} of {len(scores)} interim evaluations {verb} below imitation with the same {seeds} "
        f"seeds: {name} {number(level)} after imitation, at least {number(min(scores))} online."
    )


def time_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Return what the computing was spent on, and each part's share; empty for runs that did not measure it.

    Raises:
        DataError: `status.json` has something else there.
    """
    parts = record.status.get("time", {})
    try:
        spent = {str(name): (float(part["seconds"]), float(part["share"])) for name, part in parts.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        path = record.folder / "status.json"
        raise DataError(f"'{path}' has time {parts!r}; expected seconds and share of each part") from error
    return [
        (f"of which {_TIME_WORDS.get(name, readable(name))}", f"{duration(seconds)} ({share:.0%})")
        for name, (seconds, share) in sorted(spent.items(), key=lambda item: -item[1][0])
    ]


def score_row(point: EvaluationPoint, record: RunRecord) -> SummaryRow:
    """Summarise the score of one evaluation."""
    return summarize(point.result, record.score_name)[0]


def stage_words(stage: str) -> str:
    """Return a stage's name as people write it."""
    return _STAGE_WORDS.get(stage, readable(stage).capitalize())


def readable(name: str) -> str:
    """Return a metric's name as people write it.

    >>> readable("rev_per_min")
    'rev/min'
    """
    return name.replace("_per_", "/").replace("_", " ")


def cell(row: SummaryRow) -> tuple[str, str]:
    """Return the mean of a table cell, and its interval."""
    low, mean, high = row.interval.low, row.interval.mean, row.interval.high
    if row.rate:
        return f"{100 * mean:.0f}%", f"{100 * low:.0f} to {100 * high:.0f}"
    return number(mean), f"{number(low)} to {number(high)}"


def with_interval(interval: Interval) -> str:
    """Return a mean with its 95% interval in one phrase."""
    mean, low, high = number(interval.mean), number(interval.low), number(interval.high)
    return f"{mean} (95% interval {low} to {high})"


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    >>> duration(42), duration(600), duration(7200)
    ('42 s', '10.0 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
