"""Whether the methods of a study had equal budgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from serfn.reports.study.record import StudyRecord
from serfn.reports.study.tables import RunRow

TOLERANCE = 0.1
"""Relative difference from the reference that still counts as equal."""


@dataclass(frozen=True)
class Violation:
    """A method that did not have the reference's budget.

    Attributes:
        task: Task.
        method: Method.
        quantity: What differs.
        used: Mean over the method's runs.
        reference: Mean over the reference's.
    """

    task: str
    method: str
    quantity: str
    used: float
    reference: float


def violations(record: StudyRecord, rows: Sequence[RunRow]) -> list[Violation]:
    """Return where a method's budget differs from the reference's by more than 10%."""
    quantities: dict[str, Callable[[RunRow], float]] = {
        "environment steps": lambda row: row.environment_steps,
        "gradient updates": lambda row: row.updates,
        "parameters": lambda row: row.policy_parameters + row.critic_parameters,
    }
    found = []
    for task in record.tasks:
        for name, read in quantities.items():
            means = {
                method: float(np.mean(values))
                for method in record.methods
                if (values := [read(row) for row in rows if (row.task, row.method) == (task, method)])
            }
            fair = means.get(record.reference)
            found += [
                Violation(task, method, name, mean, fair)
                for method, mean in means.items()
                if fair is not None and abs(mean - fair) > TOLERANCE * fair
            ]
    return found
