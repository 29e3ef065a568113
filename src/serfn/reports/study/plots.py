"""The figures of a study, each drawn for a light and for a dark page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from serfn.core.extras import extra
from serfn.reports.run_plots import DARK, FONT_SIZE, LIGHT, WIDTH_INCHES, Palette, style_axes
from serfn.reports.run_words import readable
from serfn.reports.statistics import Interval
from serfn.reports.study.curves import Axis
from serfn.reports.study.modes import FAILED, OTHER, PolicyPanel, WayShares
from serfn.reports.study.record import StudyRecord
from serfn.reports.study.tables import CurveBand, MethodRow, curve_band

with extra("report"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, Patch
    from matplotlib.ticker import MaxNLocator

Schemes = dict[str, Path]
"""Files of one figure by page scheme, `light` and `dark`."""

_FACET_INCHES = (2.6, 1.9)
_ROW_INCHES = 0.34
_LABEL_LETTERS = 30
_AXIS_WORDS: dict[Axis, str] = {"minutes": "robot time, minutes", "episodes": "episodes"}


def save_study_plots(
    record: StudyRecord, rows: Sequence[MethodRow], panels: Mapping[str, Sequence[PolicyPanel]], folder: Path
) -> dict[str, Schemes]:
    """Write every figure that the study has data for.

    Args:
        record: The study.
        rows: Its methods, from `method_rows`.
        panels: Policies after imitation by task, from `policy_panels`.
        folder: Folder of the images; it exists.

    Returns:
        Files by name of the figure: `<task>-scores`, `<task>-ablations`, `<task>-modes`,
        `<task>-minutes-<method>`, `<task>-episodes-<method>`, `<task>-paths-<number>`.
    """
    files: dict[str, Schemes] = {}

    for palette in (LIGHT, DARK):
        for task in record.tasks:
            for name, figure in _figures(record, rows, panels, task, palette).items():
                path = folder / f"{task}-{name}-{palette.name}.png"
                figure.savefig(path, dpi=160, transparent=True)
                files.setdefault(f"{task}-{name}", {})[palette.name] = path
    return files


def _figures(
    record: StudyRecord,
    rows: Sequence[MethodRow],
    panels: Mapping[str, Sequence[PolicyPanel]],
    task: str,
    palette: Palette,
) -> dict[str, Figure]:
    own = [row for row in rows if row.task == task]
    if not own:
        return {}
    figures = {"scores": _scores(record, task, own, palette)}
    ablations = [row for row in own if row.method in record.ablations and row.lead is not None]
    if ablations:
        figures["ablations"] = _ablations(record, task, ablations, palette)
    figures |= _facets(record, task, palette)
    probed = [panel for panel in panels.get(task, ()) if panel.ways is not None]
    if probed:
        figures["modes"] = _modes(probed, palette)
        drawn = {index: panel for index, panel in enumerate(probed) if panel.paths}
        figures |= {
            f"paths-{index}": _paths(panel, _frame(list(drawn.values())), palette)
            for index, panel in drawn.items()
        }
    return figures


def _scores(record: StudyRecord, task: str, rows: Sequence[MethodRow], palette: Palette) -> Figure:
    """Final score of every method with its interval, the best on top."""
    ordered = sorted(rows, key=lambda row: row.score.mean)
    figure, axes = _bars(len(ordered), palette)
    for place, row in enumerate(ordered):
        color = palette.series[0] if row.method == record.reference else palette.series[1]
        _whisker(axes, row.score, place, color)
    _name_rows(axes, [record.methods[row.method].label for row in ordered])
    axes.set_xlabel(f"{readable(record.score_name(task))}, final evaluation")
    return figure


def _ablations(record: StudyRecord, task: str, rows: Sequence[MethodRow], palette: Palette) -> Figure:
    """What each change to the reference costs: variant minus reference, paired on seeds."""
    ordered = sorted(rows, key=lambda row: 0.0 if row.lead is None else -row.lead.mean)
    figure, axes = _bars(len(ordered), palette)
    for place, row in enumerate(ordered):
        if row.lead is None:
            continue
        change = Interval(-row.lead.mean, -row.lead.high, -row.lead.low, row.lead.n)
        color = palette.series[1] if change.mean < 0 else palette.series[0]
        axes.barh(place, change.mean, height=0.55, color=color, alpha=0.45, lw=0)
        _whisker(axes, change, place, color)
    axes.axvline(0, color=palette.text, lw=1)
    _name_rows(axes, [record.methods[row.method].label for row in ordered])
    reference = record.methods[record.reference].label
    axes.set_xlabel(f"{readable(record.score_name(task))}, difference from {reference}")
    return figure


def _facets(record: StudyRecord, task: str, palette: Palette) -> dict[str, Figure]:
    """One small figure per method and axis: its curve and the reference's."""
    figures = {}
    axes_of_x: tuple[Axis, ...] = ("minutes", "episodes")
    for axis in axes_of_x:
        if record.budget(task, axis) == 0:
            continue
        bands = {
            method: band
            for method in record.methods
            if (band := curve_band(record, task, method, axis)) is not None
        }
        ours = bands.get(record.reference)
        level = _level([band for band in bands.values()])
        for method, band in bands.items():
            if method != record.reference:
                figures[f"{axis}-{method}"] = _facet(band, ours, axis, level, palette)
    return figures


def _facet(
    band: CurveBand, ours: CurveBand | None, axis: Axis, level: tuple[float, float], palette: Palette
) -> Figure:
    figure = Figure(figsize=_FACET_INCHES, layout="constrained")
    axes = figure.subplots()
    style_axes(axes, palette)
    shown = [(band, palette.series[1])]
    if ours is not None:
        shown.insert(0, (ours, palette.series[0]))
    for one, color in shown:
        finite = np.isfinite(one.low)
        axes.fill_between(one.x, one.low, one.high, where=finite, color=color, alpha=0.18, lw=0)
        axes.plot(one.x, one.middle, color=color, lw=2)
    axes.set_xlim(0, band.x[-1])
    axes.set_ylim(*level)
    axes.set_xlabel(_AXIS_WORDS[axis])
    return figure


def _modes(panels: Sequence[PolicyPanel], palette: Palette) -> Figure:
    """Which way the policies go from one start after imitation, and how often they fail."""
    figure, axes = _bars(len(panels), palette, legend=True)
    colors = _way_colors([panel.ways for panel in panels if panel.ways is not None], palette)
    for place, panel in enumerate(reversed(panels)):
        if panel.ways is None:
            continue
        left = 0.0
        for name, share in panel.ways.bars():
            if name in colors:
                axes.barh(place, share, left=left, height=0.6, color=colors[name], lw=0)
            left += share
    _name_rows(axes, [panel.label for panel in reversed(panels)])
    axes.set_xlim(0, 1)
    axes.grid(visible=False)
    axes.set_xlabel("share of episodes from one start")
    figure.legend(
        handles=[Patch(color=color, label=name) for name, color in colors.items()],
        loc="outside lower left",
        ncols=min(4, len(colors)),
        frameon=False,
        labelcolor=palette.text,
        fontsize=FONT_SIZE,
    )
    return figure


def _way_colors(ways: Sequence[WayShares], palette: Palette) -> dict[str, str]:
    """Return a colour for every way, and for what else a bar of ways shows."""
    good = (palette.series[0], palette.series[2], palette.series[3])
    colors = {name: good[number % len(good)] for number, name in enumerate(ways[0].shares)}
    if any(one.other > 0 for one in ways):
        colors[OTHER] = palette.text
    return {**colors, FAILED: palette.grid}


def _paths(panel: PolicyPanel, frame: tuple[float, float, float, float], palette: Palette) -> Figure:
    """Paths from one start; failures in the second colour, with a cross where they end."""
    left, right, bottom, top = frame
    width = _FACET_INCHES[0]
    shape = min(2.0, max(0.4, (top - bottom) / (right - left)))
    figure = Figure(figsize=(width, 0.3 + (width - 0.4) * shape), layout="constrained")
    axes = figure.subplots()
    style_axes(axes, palette)
    axes.grid(visible=False)
    for x, y, radius in panel.circles:
        axes.add_patch(Circle((x, y), radius, color=palette.grid, lw=0, zorder=0))
    for points, success in panel.paths:
        x, y = np.asarray(points).T
        color = palette.series[0] if success else palette.series[1]
        axes.plot(x, y, color=color, lw=0.9, alpha=0.6)
        if not success:
            axes.plot(x[-1], y[-1], color=color, marker="x", ms=4)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    return figure


def _frame(panels: Sequence[PolicyPanel]) -> tuple[float, float, float, float]:
    """Common limits (left, right, bottom, top) of all paths and obstacles, with a margin."""
    corners = [point for panel in panels for points, _ in panel.paths for point in points]
    for panel in panels:
        corners += [(x + side * r, y + side * r) for x, y, r in panel.circles for side in (-1, 1)]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    margin = 0.04 * float((high - low).max() or 1.0)
    return low[0] - margin, high[0] + margin, low[1] - margin, high[1] + margin


def _bars(count: int, palette: Palette, *, legend: bool = False) -> tuple[Figure, Axes]:
    height = 0.65 + _ROW_INCHES * count + (0.3 if legend else 0.0)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    style_axes(axes, palette)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=palette.grid, lw=0.8)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    wrapped = ["\n".join(textwrap.wrap(label, _LABEL_LETTERS)) for label in labels]
    axes.set_yticks(range(len(labels)), wrapped)
    axes.set_ylim(-0.6, len(labels) - 0.4)


def _whisker(axes: Axes, interval: Interval, place: float, color: str) -> None:
    if np.isfinite(interval.low):
        axes.plot([interval.low, interval.high], [place, place], color=color, lw=2, solid_capstyle="butt")
    axes.plot(interval.mean, place, color=color, marker="o", ms=6)


def _level(bands: Sequence[CurveBand]) -> tuple[float, float]:
    """Common limits of all facets of a task, so that they compare."""
    values = np.concatenate([np.concatenate([band.middle, band.low, band.high]) for band in bands])
    values = values[np.isfinite(values)]
    low, high = min(0.0, float(values.min())), float(values.max())
    margin = 0.05 * (high - low or 1.0)
    return low - (margin if low < 0 else 0.0), high + margin
