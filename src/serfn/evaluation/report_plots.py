"""The plots of a report, each drawn for a light and for a dark page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from serfn.evaluation.run_record import STAGES, EvaluationPoint, RunRecord
from serfn.evaluation.statistics import mean_t_interval

_POINTS_PER_STAGE = 200


@dataclass(frozen=True)
class Palette:
    """Colours of one page scheme."""

    name: str
    text: str
    grid: str
    series: tuple[str, ...]


LIGHT = Palette("light", "#4a4f55", "#e3e1dc", ("#0f6b66", "#c0562b", "#5b5ea6", "#8a7a2f"))
DARK = Palette("dark", "#b4b9be", "#34383c", ("#56c4b7", "#f0986b", "#a3a6e8", "#d3c26a"))

Draw = Callable[[RunRecord, Palette], "Figure | None"]


def save_plots(record: RunRecord, folder: Path) -> dict[str, dict[str, Path]]:
    """Write every plot that the run has data for.

    Returns:
        Files by plot name (`learning`, `likelihood`, `critic`) and page scheme (`light`, `dark`).
    """
    plots: dict[str, Draw] = {"learning": _learning, "likelihood": _likelihood, "critic": _critic}
    files: dict[str, dict[str, Path]] = {}
    for name, draw in plots.items():
        for palette in (LIGHT, DARK):
            figure = draw(record, palette)
            if figure is not None:
                path = folder / f"{name}-{palette.name}.png"
                figure.savefig(path, dpi=160, transparent=True)
                files.setdefault(name, {})[palette.name] = path
    return files


def readable(name: str) -> str:
    """Return a metric's name as people write it: `rev_per_min` is rev/min."""
    return name.replace("_per_", "/").replace("_", " ")


def _learning(record: RunRecord, palette: Palette) -> Figure | None:
    online = [point for point in record.evaluations if point.stage == "online"]
    if not online:
        return None
    figure, (axes,) = _figure(1, palette, height=3.4)
    before = {point.stage: point for point in record.finals() if point.stage != "online"}
    for index, (label, points) in enumerate(_by_acting(online).items()):
        color = palette.series[index % len(palette.series)]
        if "offline" in before and before["offline"].acting_label == label and points[0].robot_minutes > 0:
            points = [before["offline"], *points]
        _band(axes, points, color, label)
    if "imitation" in before:
        level = mean_t_interval(before["imitation"].result.scores)
        axes.axhspan(level.low, level.high, color=palette.text, alpha=0.12, lw=0)
        axes.axhline(level.mean, color=palette.text, lw=1, ls=(0, (4, 3)))
        right = max(point.robot_minutes for point in online)
        axes.annotate(
            "imitation", (right, level.mean), xytext=(0, 3), textcoords="offset points", ha="right", color=palette.text
        )
    axes.set_xlabel("robot time, minutes")
    axes.set_ylabel(readable(record.score_name))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    _episode_axis(axes, online, palette)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        _legend(axes, palette)
    return figure


def _likelihood(record: RunRecord, palette: Palette) -> Figure | None:
    panels: list[tuple[str, str, float]] = [
        ("policy/nll", "log-likelihood\nper dimension", -1.0),
        ("policy/kl", "KL to reference\nper dimension", 1.0),
        ("policy/strength", "regularisation λ", 1.0),
    ]
    present = [panel for panel in panels if any(record.series(stage, panel[0])[0] for stage in STAGES)]
    if not present:
        return None
    figure, rows = _figure(len(present), palette, height=0.6 + 1.6 * len(present))
    for axes, (name, label, sign) in zip(rows, present, strict=True):
        _stage_series(axes, record, [(name, "", sign)], palette)
        axes.set_ylabel(label)
        if name == "policy/strength" and axes.get_ylim()[0] > 0:
            axes.set_yscale("log")
    rows[-1].set_xlabel("updates, all stages in a row")
    return figure


def _critic(record: RunRecord, palette: Palette) -> Figure | None:
    values = [("critic/q_mean", "mean Q", 1.0), ("critic/q_max", "largest Q", 1.0)]
    names = ["critic/td_loss", *(name for name, _, _ in values)]
    if not any(record.series(stage, name)[0] for stage in STAGES for name in names):
        return None
    figure, (loss, value) = _figure(2, palette, height=3.8)
    _stage_series(loss, record, [("critic/td_loss", "", 1.0)], palette)
    if loss.lines and loss.get_ylim()[0] > 0:
        loss.set_yscale("log")
    loss.set_ylabel("TD loss")
    _stage_series(value, record, values, palette)
    bounds = [bound for bound in (find_option(record.config, name) for name in ("v_min", "v_max")) if bound is not None]
    for bound in bounds:
        value.axhline(float(bound), color=palette.text, lw=1, ls=(0, (1, 2)))
    if bounds:
        value.annotate(
            "bound", (0, float(bounds[-1])), xytext=(3, -10), textcoords="offset points", color=palette.text
        )
    value.set_ylabel("Q")
    value.set_xlabel("updates, all stages in a row")
    _legend(value, palette)
    return figure


def find_option(config: Any, name: str) -> Any:
    """Return the first option called `name` anywhere in a nested configuration, or None."""
    if isinstance(config, dict):
        if config.get(name) is not None:
            return config[name]
        found = (find_option(value, name) for value in config.values())
        return next((value for value in found if value is not None), None)
    return None


def _by_acting(points: Sequence[EvaluationPoint]) -> dict[str, list[EvaluationPoint]]:
    groups: dict[str, list[EvaluationPoint]] = {}
    for point in sorted(points, key=lambda point: (point.robot_minutes, point.final)):
        groups.setdefault(point.acting_label, []).append(point)
    return groups


def _band(axes: Axes, points: Sequence[EvaluationPoint], color: str, label: str) -> None:
    minutes = np.array([0.0 if point.stage == "offline" else point.robot_minutes for point in points])
    intervals = [mean_t_interval(point.result.scores) for point in points]
    low = np.array([interval.low for interval in intervals])
    high = np.array([interval.high for interval in intervals])
    means = np.array([interval.mean for interval in intervals])
    finite = np.isfinite(low)
    axes.fill_between(minutes, low, high, where=finite, color=color, alpha=0.18, lw=0)
    axes.plot(minutes, means, color=color, lw=2, marker="o", ms=4, label=label)


def _episode_axis(axes: Axes, points: Sequence[EvaluationPoint], palette: Palette) -> None:
    """Show the number of episodes above the robot time; the two grow together, not in proportion."""
    pairs = sorted({(point.robot_minutes, float(point.episodes)) for point in points} | {(0.0, 0.0)})
    minutes, episodes = (np.array(column) for column in zip(*pairs, strict=True))
    if len(pairs) < 2 or not (np.diff(minutes) > 0).all() or not (np.diff(episodes) > 0).all():
        return
    slope = episodes[-1] / minutes[-1]
    # Beyond the last evaluation (the margin of the plot) the average rate goes on.
    minutes = np.append(minutes, 2 * minutes[-1])
    episodes = np.append(episodes, episodes[-1] + slope * minutes[-2])
    above = axes.secondary_xaxis(
        "top",
        functions=(lambda x: np.interp(x, minutes, episodes), lambda x: np.interp(x, episodes, minutes)),
    )
    above.set_xlabel("episodes", color=palette.text)
    above.tick_params(color=palette.grid, labelcolor=palette.text)
    above.spines["top"].set_visible(False)


def _stage_series(
    axes: Axes, record: RunRecord, metrics: Sequence[tuple[str, str, float]], palette: Palette
) -> None:
    """Draw metrics `(name, label, sign)` of all stages one after the other, with the stages marked."""
    offset = 0.0
    for stage in STAGES:
        last = max((float(row["step"]) for row in record.metrics if row.get("stage") == stage), default=0.0)
        if last == 0.0:
            continue
        if offset > 0:
            axes.axvline(offset, color=palette.grid, lw=1)
        for index, (name, label, sign) in enumerate(metrics):
            steps, values = _thin(*record.series(stage, name))
            color = palette.series[index % len(palette.series)]
            known = label in axes.get_legend_handles_labels()[1]
            axes.plot(
                offset + steps, sign * values, color=color, lw=1.5, label="_" if known or not label else label
            )
        if axes.get_subplotspec().is_first_row():  # type: ignore[union-attr]
            axes.annotate(
                stage.replace("_", " "),
                (offset, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, 4),
                textcoords="offset points",
                color=palette.text,
                fontsize=8,
            )
        offset += last
    axes.set_xlim(0, offset or 1)


def _thin(steps: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Average neighbouring rows so that a long stage stays a readable line."""
    groups = np.array_split(np.arange(len(steps)), min(len(steps), _POINTS_PER_STAGE) or 1)
    filled = [group for group in groups if len(group)]
    return (
        np.array([np.asarray(steps)[group].mean() for group in filled]),
        np.array([np.asarray(values)[group].mean() for group in filled]),
    )


def _figure(rows: int, palette: Palette, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6.4, height), layout="constrained")
    grid: np.ndarray = figure.subplots(rows, 1, sharex=rows > 1, squeeze=False)
    axes: list[Axes] = list(grid[:, 0])
    for one in axes:
        one.grid(axis="y", color=palette.grid, lw=0.8)
        one.set_axisbelow(True)
        for side in ("top", "right", "left"):
            one.spines[side].set_visible(False)
        one.spines["bottom"].set_color(palette.grid)
        one.tick_params(color=palette.grid, labelcolor=palette.text, labelsize=9)
        one.xaxis.label.set_color(palette.text)
        one.yaxis.label.set_color(palette.text)
    return figure, axes


def _legend(axes: Axes, palette: Palette) -> None:
    axes.legend(frameon=False, labelcolor=palette.text, fontsize=9, loc="best")
