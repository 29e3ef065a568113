"""What the page of a study says about one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from serfn.core.words import number
from serfn.reports.run_words import duration, readable
from serfn.reports.study.budget import TOLERANCE, violations
from serfn.reports.study.curves import Axis
from serfn.reports.study.html import cell, facet, head_cell, note, notes, picture, plural, table
from serfn.reports.study.modes import PolicyPanel
from serfn.reports.study.plots import Schemes
from serfn.reports.study.record import StudyRecord
from serfn.reports.study.tables import MethodRow, RunRow
from serfn.reports.study.words import decimals, interval_cell, outcome_word, reach_cell, seeds_words


class TaskSection:
    """One task: who is better, how they adapt, what each part is worth, what it costs.

    Args:
        record: The study.
        task: Name of the task; at least one of its runs has been evaluated.
        methods: Rows of all methods, from `method_rows`.
        runs: Rows of all runs, from `run_rows`.
        panels: Policies of the task after imitation, from `policy_panels`.
        figures: Files of the figures, from `save_study_plots`.
    """

    def __init__(
        self,
        record: StudyRecord,
        task: str,
        methods: Sequence[MethodRow],
        runs: Sequence[RunRow],
        panels: Sequence[PolicyPanel],
        figures: Mapping[str, Schemes],
    ) -> None:
        self._record, self._task, self._panels = record, record.tasks[task], panels
        self._methods = [row for row in methods if row.task == task]
        self._runs = [row for row in runs if row.task == task]
        self._figures = {
            name.removeprefix(f"{task}-"): files
            for name, files in figures.items()
            if name.startswith(f"{task}-")
        }
        self._score = readable(record.score_name(task))
        self._ours = record.methods[record.reference].label
        self._seeds = seeds_words([row.seeds for row in self._methods])
        counts = [row.evaluation_episodes for row in self._runs]
        self._episodes = f"{min(counts)}" + (f" to {max(counts)}" if max(counts) > min(counts) else "")

    def html(self) -> str:
        """Return the section."""
        several = len(self._record.tasks) > 1
        title = f"{self._task.label}: results" if several else "Results"
        scores = (
            f"Final {self._score} of each method: interquartile mean over {self._seeds} of {self._episodes} "
            f"evaluation episodes each, with its 95% bootstrap interval; {self._ours} in its own colour."
        )
        parts = [
            f"<h2>{escape(title)}</h2>",
            self._verdicts(),
            self._figure("scores", scores),
            "<h2>Adaptation</h2>",
            self._curves(),
            self._speed(),
            self._ablations(),
            self._ways(),
            "<h2>Cost and fairness</h2>",
            self._cost(),
            self._fairness(),
        ]
        return "".join(parts)

    def _verdicts(self) -> str:
        tells_success = any(row.success is not None for row in self._methods) and self._score != "success"
        heads = [f"final {self._score}", f"{self._ours} minus it", f"P({self._ours} better)"]
        heads += ["success"] if tells_success else []
        lines = []
        for row in sorted(self._methods, key=lambda row: -row.score.mean):
            lead, interval = interval_cell(row.lead, signed=True)
            cells = [cell(*interval_cell(row.score))]
            if row.method == self._record.reference:
                cells += [cell("")] * 2
            else:
                cells.append(cell(f"{lead} {outcome_word(row)}", interval, kind=row.outcome))
                cells.append(cell(*interval_cell(row.better, percent=True)))
            if tells_success:
                cells.append(cell(*interval_cell(row.success, percent=True)))
            lines.append(self._line(row, cells))
        words = (
            f"{self._seeds.capitalize()}, {self._episodes} evaluation episodes each, best first. Difference: "
            f"paired on equal seeds, 95% t interval; {self._ours} is ahead or behind where it excludes zero, "
            "and the matter is open where it does not. P: chance that a run of "
            f"{self._ours} beats one of the method."
        )
        return table(heads, lines) + note(words)

    def _curves(self) -> str:
        minutes, episodes = self._grid("minutes"), self._grid("episodes")
        if not minutes:
            return note("No method of this study has an online stage.")
        key = (
            f"<p class='key'>{escape(self._score.capitalize())} while adapting: "
            f"<b class='first'>{escape(self._ours)}</b> against <b class='second'>each method</b>; "
            f"interquartile mean over {self._seeds} and 95% bootstrap interval. Same axes everywhere.</p>"
        )
        more = f"<details><summary>The same against episodes</summary>{key}{episodes}</details>"
        return key + minutes + more

    def _grid(self, axis: Axis) -> str:
        facets = [
            facet(
                self._label(row),
                f"n = {row.seeds}",
                picture(self._figures[name], f"{self._score} of {self._label(row)} against {axis}"),
            )
            for row in self._methods
            if (name := f"{axis}-{row.method}") in self._figures
        ]
        return f"<div class='facets'>{''.join(facets)}</div>" if facets else ""

    def _speed(self) -> str:
        heads = ["mean while adapting", f"{self._ours} minus it", "worst dip"]
        threshold = self._task.threshold
        if threshold is not None:
            heads += ["robot time to threshold", "episodes to it"]
        lines = []
        for row in sorted(self._methods, key=lambda row: -row.area.mean):
            largest = abs(row.deepest_dip)
            cells = [
                cell(*interval_cell(row.area)),
                cell("") if row.area_lead is None else cell(*interval_cell(row.area_lead, signed=True)),
                cell(
                    decimals(row.dip, largest=largest),
                    f"deepest {decimals(row.deepest_dip, largest=largest)}",
                ),
            ]
            if threshold is not None:
                cells.append(cell(*reach_cell(row, row.reach_minutes, " min")))
                cells.append(cell(*reach_cell(row, row.reach_episodes, "")))
            lines.append(self._line(row, cells))
        words = (
            f"{self._seeds.capitalize()}. Mean while adapting: area under the curve against robot time, "
            "divided by the common budget (interquartile mean, 95% bootstrap interval; difference paired, "
            "95% t interval). Worst dip: how far the lowest evaluation lies below imitation, mean over seeds."
        )
        if threshold is not None:
            words += (
                f" Threshold: {self._score} of {number(threshold)}; median over seeds (Kaplan-Meier), where "
                "seeds that never get there are censored at the end of the budget, and how many got there."
            )
        return "<h3>Speed and stability</h3>" + table(heads, lines) + note(words)

    def _ablations(self) -> str:
        if "ablations" not in self._figures:
            return ""
        words = (
            f"Final {self._score} of {self._ours} with one part changed, minus that of {self._ours}: mean "
            f"over {self._seeds}, paired, with its 95% t interval. Left of the line, the change hurts."
        )
        return "<h2>Ablations</h2>" + self._figure("ablations", words)

    def _ways(self) -> str:
        if not any(panel.likelihood or panel.ways for panel in self._panels):
            return ""
        seeds = seeds_words([panel.seeds for panel in self._panels])
        probed = [panel for panel in self._panels if panel.ways is not None]
        heads = ["log-likelihood", *(["mode coverage", "fails"] if probed else [])]
        lines = []
        for panel in self._panels:
            cells = [cell(*interval_cell(panel.likelihood))]
            if panel.ways is not None:
                cells.append(cell(*interval_cell(panel.ways.coverage)))
                cells.append(cell(f"{100 * panel.ways.failed:.0f}%"))
            below = f"{plural(len(panel.methods), 'method')}, chunks of {panel.chunk_size}"
            head = head_cell(panel.label, below)
            lines.append(f"<tr>{head}{''.join(cells)}</tr>")
        words = (
            f"Policies after imitation, {seeds}, means with 95% t intervals. Log-likelihood: of "
            "demonstrations that no policy has seen, in nats per action dimension; policies without a "
            "density have none, and chunks of different lengths do not compare."
        )
        title = "Several ways" if probed else "Likelihood"
        if not probed:
            return f"<h2>{title}</h2>" + table(heads, lines) + note(words)
        words += (
            " Mode coverage: share of the rarest way, times the number of ways; 1 if all are taken equally "
            "often without failing, 0 if one is lost."
        )
        episodes = sum(panel.ways.episodes for panel in probed[:1] if panel.ways is not None)
        bars = (
            f"Which way the policies go from one and the same start: {episodes} episodes each, over {seeds}. "
            "A policy that cannot choose averages between the ways, and fails where the average leads to "
            "nothing."
        )
        facets = [
            facet(
                panel.label,
                f"{len(panel.paths)} episodes, n = 1 seed",
                picture(self._figures[f"paths-{index}"], f"paths of {panel.label}"),
            )
            for index, panel in enumerate(probed)
            if f"paths-{index}" in self._figures
        ]
        key = (
            "<p class='key'>Paths from that start: <b class='first'>success</b>, "
            "<b class='second'>failure</b>.</p>"
        )
        paths = f"{key}<div class='facets'>{''.join(facets)}</div>" if facets else ""
        return f"<h2>{title}</h2>" + table(heads, lines) + note(words) + self._figure("modes", bars) + paths

    def _cost(self) -> str:
        heads = ["computing", "of it imitation", "robot time", "updates", "parameters"]
        lines = []
        for row in self._methods:
            runs = [run for run in self._runs if run.method == row.method]
            policy, critic = (
                _mean([getattr(run, name) for run in runs])
                for name in ("policy_parameters", "critic_parameters")
            )
            cells = [
                cell(duration(_mean([run.seconds for run in runs]))),
                cell(duration(_mean([run.seconds_imitation for run in runs]))),
                cell(duration(60 * _mean([run.robot_minutes for run in runs]))),
                cell(f"{_mean([run.updates for run in runs]):,.0f}"),
                cell(f"{policy + critic:,.0f}", f"policy {policy:,.0f}"),
            ]
            lines.append(self._line(row, cells))
        words = (
            f"Means over {self._seeds}; wall-clock time on one core with other runs beside it. Imitation is "
            "computed once for all methods with the same policy, and counted for each as if it had paid "
            "alone."
        )
        return table(heads, lines) + note(words)

    def _fairness(self) -> str:
        found = [one for one in violations(self._record, self._runs) if one.task == self._task.name]
        if not found:
            return note(
                "Environment steps, gradient updates and parameters of all methods lie within "
                f"{TOLERANCE:.0%} of those of {self._ours}."
            )
        items = [
            f"{self._record.methods[one.method].label}: {one.used:,.0f} {one.quantity} against "
            f"{one.reference:,.0f}"
            for one in found
        ]
        head = f"Budgets that differ from that of {self._ours} by more than {TOLERANCE:.0%}:"
        return notes(head, items)

    def _figure(self, name: str, words: str) -> str:
        if name not in self._figures:
            return ""
        image = picture(self._figures[name], words)
        return f"<figure>{image}<figcaption>{escape(words)}</figcaption></figure>"

    def _line(self, row: MethodRow, cells: Sequence[str]) -> str:
        kind = " class='reference'" if row.method == self._record.reference else ""
        return f"<tr{kind}>{head_cell(self._label(row), f'n = {row.seeds}')}{''.join(cells)}</tr>"

    def _label(self, row: MethodRow) -> str:
        return self._record.methods[row.method].label


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
