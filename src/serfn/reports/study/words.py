"""The results of a study as sentences and cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

from serfn.core.words import number
from serfn.reports.statistics import Interval
from serfn.reports.study.record import StudyRecord
from serfn.reports.study.tables import MethodRow, Outcome

_DASH = "\N{EN DASH}"
_MOST_NAMES = 3


def verdict_sentences(record: StudyRecord, rows: Sequence[MethodRow]) -> list[str]:
    """Say, per task, where the reference stands against the others."""
    return [_verdict(record, task, [row for row in rows if row.task == task]) for task in record.tasks]


def overall_outcome(rows: Sequence[MethodRow]) -> str:
    """Return the class of the verdict: `improved`, `worse`, `within` or `open`, as in the report of a run."""
    outcomes = {row.outcome for row in rows if row.lead is not None}
    if not outcomes:
        return "open"
    if "behind" in outcomes:
        return "worse" if "ahead" not in outcomes else "within"
    return "improved" if "ahead" in outcomes else "within"


def outcome_word(row: MethodRow) -> str:
    """Return in a word where the reference stands against a method."""
    return "no pairs" if row.lead is None else row.outcome


def interval_cell(
    interval: Interval | None, *, percent: bool = False, signed: bool = False
) -> tuple[str, str]:
    """Return a mean and its interval for a table cell, with equal decimals; a dash where there is none."""
    if interval is None:
        return _DASH, ""
    bounds = [value for value in (interval.low, interval.mean, interval.high) if math.isfinite(value)]

    def words(value: float) -> str:
        if percent:
            return f"{100 * value:.0f}%"
        return decimals(value, largest=max(map(abs, bounds)), signed=signed)

    if len(bounds) < 3:
        return words(interval.mean), "one seed"
    return words(interval.mean), f"{words(interval.low)} to {words(interval.high)}"


def decimals(value: float, *, largest: float, signed: bool = False) -> str:
    """Return a number with the decimals that suit the `largest` of its cell.

    >>> decimals(0.8, largest=0.95), decimals(12.34, largest=50), decimals(-0.001, largest=1, signed=True)
    ('0.80', '12.3', '0.00')
    """
    places = 2 if largest < 10 else 1 if largest < 100 else 0
    # Adding zero turns a rounded -0.0 into 0.0.
    rounded = round(value, places) + 0.0
    sign = "+" if signed and rounded != 0 else ""
    return f"{rounded:{sign}.{places}f}".replace("-", "\N{MINUS SIGN}")


def seeds_words(counts: Sequence[int]) -> str:
    """Return the number of seeds of several rows in words.

    >>> seeds_words([5, 5]), seeds_words([3, 5]), seeds_words([1])
    ('5 seeds', '3 to 5 seeds', '1 seed')
    """
    low, high = min(counts), max(counts)
    if low == high:
        return f"{low} seed" if low == 1 else f"{low} seeds"
    return f"{low} to {high} seeds"


def reach_cell(row: MethodRow, value: float | None, unit: str) -> tuple[str, str]:
    """Return the median experience to the threshold, and how many seeds reached it."""
    if value is None or row.reached is None:
        return _DASH, ""
    median = "never" if math.isinf(value) else f"{number(value)}{unit}"
    return median, f"{row.reached} of {row.seeds} seeds"


def _verdict(record: StudyRecord, task: str, rows: Sequence[MethodRow]) -> str:
    ours = record.methods[record.reference].label
    compared = [row for row in rows if row.lead is not None]
    start = "" if len(record.tasks) == 1 else f"{record.tasks[task].label}: "
    if not compared:
        return f"{start}nothing to compare yet."
    rivals = [row for row in compared if row.method not in record.ablations]
    variants = [row for row in compared if row.method in record.ablations]
    sentences = []
    if rivals:
        noun = " method" if len(rivals) == 1 else " methods"
        sentences.append(f"{ours[:1].upper()}{ours[1:]} is {_standing(record, rivals, noun)}.")
    if variants:
        subject = "it" if rivals else ours
        sentences.append(f"Of its variants, {subject} is {_standing(record, variants, '')}.")
    seeds = seeds_words([row.seeds for row in compared])
    return f"{start}{' '.join(sentences)} Final scores, paired over {seeds}."


def _standing(record: StudyRecord, rows: Sequence[MethodRow], noun: str) -> str:
    groups: dict[Outcome, list[str]] = {"ahead": [], "behind": [], "open": []}
    for row in rows:
        groups[row.outcome].append(record.methods[row.method].label)
    ahead = len(groups["ahead"])
    parts = [f"ahead of {ahead or 'none'} of {len(rows)}{noun}"]
    if groups["behind"]:
        parts.append(f"behind {_names(groups['behind'])}")
    if groups["open"]:
        parts.append(f"with no difference shown from {_names(groups['open'])}")
    return ", ".join(parts)


def _names(labels: Sequence[str]) -> str:
    return "; ".join(labels) if len(labels) <= _MOST_NAMES else f"{len(labels)} others"
