"""Running policies in environments, measuring them with intervals, and reporting a run."""

from __future__ import annotations

from serfn.evaluation.environments import make_env, task_spec
from serfn.evaluation.film import record_frames, save_film_strip
from serfn.evaluation.report import write_report
from serfn.evaluation.rollouts import evaluation_result, rollout
from serfn.evaluation.statistics import Interval, SummaryRow, difference_interval, summarize

__all__ = [
    "Interval",
    "SummaryRow",
    "difference_interval",
    "evaluation_result",
    "make_env",
    "record_frames",
    "rollout",
    "save_film_strip",
    "summarize",
    "task_spec",
    "write_report",
]
