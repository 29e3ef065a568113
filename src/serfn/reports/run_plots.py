"""The plots of a report, each drawn for a light and for a dark page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serfn.core.extras import extra
from serfn.reports.run_record import STAGES, EvaluationPoint, RunRecord
from serfn.reports.run_words import readable
from serfn.reports.statistics import mean_t_interval

with extra("report"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 5.6
FONT_SIZE = 9
_POINTS_PER_STAGE = 200
_LETTER_FRACTION = 0.013
"""Width of a letter as a fraction of the axes, to leave out names that do not fit."""
_WIDE_LABEL = 40
"""Characters beyond which two labels do not fit beside each other."""


@dataclass(frozen=True)
class Palette:
    """Colours of one page scheme."""

    name: str
    text: str
    grid: str
    series: tuple[str, ...]


LIGHT = Palette("light", "#4a4f55", "#e3e1dc", ("#0f6b66", "#c0562b", "#5b5ea6", "#8a7a2f"))
DARK = Palette("dark", "#b4b9be", "#34383c", ("#56c4b7", "#f0986b", "#a3a6e8", "#d3c26a"))


def save_plots(record: RunRecord, folder: Path) -> dict[str, dict[str, Path]]:
    """Write every plot that the run has data for.

    Returns:
        Files by plot name (`learning`, `likelihood`, `critic`) and page scheme (`light`, `dark`).
    """
    draw: dict[str, Callable[[RunRecord, Palette], Figure | None]] = {
        "learning": _learning,
        "likelihood": _likelihood,
        "critic": _critic,
    }
    files: dict[str, dict[str, Path]] = {}
    for name in draw:
        for palette in (LIGHT, DARK):
            figure = draw[name](record, palette)
            if figure is not None:
                path = folder / f"{name}-{palette.name}.png"
                figure.savefig(path, dpi=160, transparent=True)
                files.setdefault(name, {})[palette.name] = path
    return files


def find_option(config: Any, name: str) -> Any:
    """Return the first option called `name` anywhere in a nested configuration, or None."""
    if isinstance(config, dict):
        if config.get(name) is not None:
            return config[name]
        found = (find_option(value, name) for value in config.values())
        return next((value for value in found if value is not None), None)
    return None


def style_axes(axes: Axes, palette: Palette) -> None:
    """Give axes the look of all reports: a light grid, no frame, the page's colours."""
    axes.grid(axis="y", color=palette.grid, lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.grid)
    axes.tick_params(color=palette.grid, labelcolor=palette.text, labelsize=FONT_SIZE, which="both")
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=palette.text, fontsize=FONT_SIZE)


def _learning(record: RunRecord, palette: Palette) -> Figure | None:
    online = [point for point in record.evaluations if point.stage == "online"]
    if not online:
        return None
    figure, (axes,) = _figure(1, palette, height=3.2)
    before = {point.stage: point for point in record.finals() if point.stage != "online"}
    for index, (label, points) in enumerate(_by_acting(online).items()):
        color = palette.series[index % len(palette.series)]
        path = [point for point in points if not point.final] or points
        closing = [point for point in points if point not in path]
        if "offline" in before and before["offline"].acting_label == label and path[0].robot_minutes > 0:
            path = [before["offline"], *path]
        _band(axes, path, color, label)
        if closing:
            _closing(axes, closing[-1], color, f"{label}, final evaluation")
    with_these_seeds = record.interim()[0]
    if with_these_seeds is not None:
        _level(axes, with_these_seeds, palette.text, "imitation")
        if "imitation" in before:
            _closing(axes, before["imitation"], palette.text, "imitation, final evaluation")
    elif "imitation" in before:
        _level(axes, before["imitation"], palette.text, "imitation")
    axes.set_xlabel("robot time, minutes")
    axes.set_ylabel(readable(record.score_name))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    _episode_axis(axes, online, palette)
    _legend(figure, axes, palette)
    return figure


def _likelihood(record: RunRecord, palette: Palette) -> Figure | None:
    panels = [
        ("policy/nll", "log-likelihood\nper dimension", -1.0),
        ("policy/kl", "KL to reference\nper dimension", 1.0),
        ("policy/coefficient", "coefficient λ", 1.0),
    ]
    present = [panel for panel in panels if _logged(record, panel[0])]
    if not present:
        return None
    figure, rows = _figure(len(present), palette, height=0.6 + 1.4 * len(present))
    for axes, (name, label, sign) in zip(rows, present, strict=True):
        _stage_lines(axes, record, [(name, "", sign)], palette)
        axes.set_ylabel(label)
        if name == "policy/coefficient":
            _log_if_wide(axes)
    _name_stages(rows[0], record, palette)
    rows[-1].set_xlabel("updates, all stages in a row")
    return figure


def _critic(record: RunRecord, palette: Palette) -> Figure | None:
    values = [
        ("critic/q_mean", "mean Q, recorded chunks", 1.0),
        ("critic/q_max", "largest Q, recorded chunks", 1.0),
        ("policy/q_max", "largest Q, policy's chunks", 1.0),
    ]
    values = [metric for metric in values if _logged(record, metric[0])]
    if not values or not _logged(record, "critic/td_loss"):
        return None
    figure, (loss, value) = _figure(2, palette, height=3.8)
    _stage_lines(loss, record, [("critic/td_loss", "", 1.0)], palette)
    _log_if_wide(loss)
    loss.set_ylabel("TD error, squared")
    _name_stages(loss, record, palette)
    _stage_lines(value, record, values, palette)
    for index, name in enumerate(("v_min", "v_max")):
        bound = find_option(record.config, name)
        if isinstance(bound, int | float):
            line = "bound" if index == 0 else "_"
            value.axhline(bound, color=palette.text, lw=1, ls=(0, (1, 2)), label=line)
    value.set_ylabel("Q")
    value.set_xlabel("updates, all stages in a row")
    _legend(figure, value, palette)
    return figure


def _logged(record: RunRecord, name: str) -> bool:
    return any(record.series(stage, name)[0] for stage in STAGES)


def _by_acting(points: Sequence[EvaluationPoint]) -> dict[str, list[EvaluationPoint]]:
    groups: dict[str, list[EvaluationPoint]] = {}
    for point in sorted(points, key=lambda point: (point.robot_minutes, point.final)):
        groups.setdefault(point.acting_label, []).append(point)
    return groups


def _band(axes: Axes, points: Sequence[EvaluationPoint], color: str, label: str) -> None:
    minutes = [0.0 if point.stage == "offline" else point.robot_minutes for point in points]
    intervals = [mean_t_interval(point.result.scores) for point in points]
    means = np.array([interval.mean for interval in intervals])
    low = np.array([interval.low for interval in intervals])
    high = np.array([interval.high for interval in intervals])
    if len(points) > 1:
        axes.fill_between(minutes, low, high, where=np.isfinite(low), color=color, alpha=0.18, lw=0)
        axes.plot(minutes, means, color=color, lw=2, marker="o", ms=4, label=label)
    else:
        axes.errorbar(minutes, means, [means - low, high - means], color=color, fmt="o", ms=4, label=label)


def _level(axes: Axes, point: EvaluationPoint, color: str, label: str) -> None:
    """Draw an evaluation as a level with its interval, to compare a path with."""
    interval = mean_t_interval(point.result.scores)
    axes.axhspan(interval.low, interval.high, color=color, alpha=0.12, lw=0)
    axes.axhline(interval.mean, color=color, lw=1, ls=(0, (4, 3)), label=label)


def _closing(axes: Axes, point: EvaluationPoint, color: str, label: str) -> None:
    """Draw a final evaluation apart: it judges anew, with seeds of its own."""
    interval = mean_t_interval(point.result.scores)
    axes.errorbar(
        point.robot_minutes,
        interval.mean,
        yerr=[[interval.mean - interval.low], [interval.high - interval.mean]],
        marker="s",
        markersize=6,
        capsize=3,
        ls="none",
        color=color,
        clip_on=False,
        label=label,
    )


def _episode_axis(axes: Axes, points: Sequence[EvaluationPoint], palette: Palette) -> None:
    """Show the number of episodes above the robot time; the two grow together, not in proportion."""
    pairs = sorted({(point.robot_minutes, float(point.episodes)) for point in points} | {(0.0, 0.0)})
    minutes, episodes = (np.array(column) for column in zip(*pairs, strict=True))
    if len(pairs) < 2 or not (np.diff(minutes) > 0).all() or not (np.diff(episodes) > 0).all():
        return
    # Beyond the last evaluation, in the margin of the plot, the average rate goes on.
    minutes, episodes = np.append(minutes, 2 * minutes[-1]), np.append(episodes, 2 * episodes[-1])

    def to_episodes(x: Any) -> np.ndarray:
        return np.interp(x, minutes, episodes)

    def to_minutes(x: Any) -> np.ndarray:
        return np.interp(x, episodes, minutes)

    above = axes.secondary_xaxis("top", functions=(to_episodes, to_minutes))
    above.set_xlabel("episodes", color=palette.text, fontsize=FONT_SIZE)
    above.tick_params(color=palette.grid, labelcolor=palette.text, labelsize=FONT_SIZE)
    above.spines["top"].set_visible(False)


def _stage_spans(record: RunRecord) -> dict[str, tuple[float, float]]:
    """Return where each stage starts and how long it is when all are laid end to end."""
    spans: dict[str, tuple[float, float]] = {}
    offset = 0.0
    for stage in STAGES:
        length = max((float(row["step"]) for row in record.metrics if row.get("stage") == stage), default=0.0)
        if length > 0:
            spans[stage] = (offset, length)
            offset += length
    return spans


def _stage_lines(
    axes: Axes, record: RunRecord, metrics: Sequence[tuple[str, str, float]], palette: Palette
) -> None:
    """Draw metrics `(name, label, sign)` of all stages end to end."""
    spans = _stage_spans(record)
    for index, (name, label, sign) in enumerate(metrics):
        parts = []
        for stage, (offset, _) in spans.items():
            steps, values = _thin(*record.series(stage, name))
            # A NaN between stages interrupts the line.
            parts.append(np.stack([np.append(offset + steps, np.nan), np.append(sign * values, np.nan)]))
        x, y = np.concatenate(parts, axis=1)
        axes.plot(x, y, color=palette.series[index], lw=1.5, label=label or "_")
    for offset, _ in list(spans.values())[1:]:
        axes.axvline(offset, color=palette.grid, lw=1)
    axes.set_xlim(0, sum(length for _, length in spans.values()))


def _name_stages(axes: Axes, record: RunRecord, palette: Palette) -> None:
    """Write the stages above the topmost panel, where they are wide enough for their name."""
    spans = _stage_spans(record)
    total = sum(length for _, length in spans.values())
    for stage, (offset, length) in spans.items():
        name = "critic" if stage == "critic_warmup" else stage
        if length / total > _LETTER_FRACTION * len(name):
            axes.annotate(
                name,
                (offset + length / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                color=palette.text,
                fontsize=FONT_SIZE,
            )


def _log_if_wide(axes: Axes) -> None:
    """Use a logarithmic axis for positive values that span more than a decade."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")


def _thin(steps: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Average neighbouring rows so that a long stage stays a readable line."""
    if not steps:
        return np.zeros(0), np.zeros(0)
    groups = np.array_split(np.arange(len(steps)), min(len(steps), _POINTS_PER_STAGE))
    rows = np.array([steps, values])
    x, y = np.stack([rows[:, group].mean(axis=1) for group in groups], axis=1)
    return x, y


def _figure(rows: int, palette: Palette, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    grid: np.ndarray = figure.subplots(rows, 1, sharex=rows > 1, squeeze=False)
    axes: list[Axes] = list(grid[:, 0])
    for one in axes:
        style_axes(one, palette)
    return figure, axes


def _legend(figure: Figure, axes: Axes, palette: Palette) -> None:
    """Name the lines below the plot, where they cover nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=1 if max(map(len, labels), default=0) > _WIDE_LABEL else 2,
        frameon=False,
        labelcolor=palette.text,
        fontsize=FONT_SIZE,
    )
