"""Progress of long work: live bars on a terminal, a line now and then in a log."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

SHOWN = ("score", "reward", "return", "success", "nll", "td_loss", "loss", "kl", "q_mean")
"""Last parts of the metric names worth a place beside the bar, most telling first."""

_MOST_SHOWN = 4
_LOG_INTERVAL_S = 15.0


class RichProgress:
    """A bar per stage with rate, time left and the metrics so far."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _RateColumn(),
            _LeftColumn(),
            TextColumn("[dim]{task.fields[words]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._metrics: dict[str, dict[str, float]] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage_started(self, name: str, total: int) -> None:
        """Add a bar."""
        self._tasks[name] = self._progress.add_task(name.replace("_", " "), total=total, words="")
        self._metrics[name] = {}

    def advanced(self, name: str, n: int, metrics: Mapping[str, float]) -> None:
        """Move the bar of the stage."""
        if name not in self._tasks:
            # An evaluation may report before the first update of its stage.
            return
        self._metrics[name].update(metrics)
        self._progress.advance(self._tasks[name], n)
        self._progress.update(self._tasks[name], words=shown_metrics(self._metrics[name]))

    def stage_finished(self, name: str, summary: Mapping[str, float]) -> None:
        """Leave the bar as it is, with the summary beside it."""
        self.advanced(name, 0, summary)
        self._progress.stop_task(self._tasks[name])

    def note(self, text: str) -> None:
        """Print above the bars."""
        self._progress.console.print(text, markup=False, highlight=False)


class LogProgress:
    """A line at the start and end of a stage, and now and then between, for output without a terminal."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._started: dict[str, float] = {}
        self._spoke = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def stage_started(self, name: str, total: int) -> None:
        """Announce the stage."""
        self._totals[name], self._done[name], self._started[name] = total, 0, self._clock()
        self.note(f"{name}: {total} to do")

    def advanced(self, name: str, n: int, metrics: Mapping[str, float]) -> None:
        """Count, and speak if it has been quiet for a while."""
        if name not in self._totals:
            return
        self._done[name] += n
        now = self._clock()
        if now - self._spoke < _LOG_INTERVAL_S:
            return
        done, total = self._done[name], self._totals[name]
        rate = done / max(now - self._started[name], 1e-9)
        left = (total - done) / rate if rate > 0 else 0.0
        pace = f"{name}: {done}/{total}, {rate:.1f}/s, {left:.0f} s left"
        self.note(", ".join(filter(None, [pace, shown_metrics(metrics)])))

    def stage_finished(self, name: str, summary: Mapping[str, float]) -> None:
        """Say how it ended."""
        seconds = self._clock() - self._started[name]
        self.note(", ".join(filter(None, [f"{name}: done in {seconds:.0f} s", shown_metrics(summary)])))

    def note(self, text: str) -> None:
        """Print a line."""
        self._spoke = self._clock()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def make_progress() -> RichProgress | LogProgress:
    """Return a listener for standard error, so that standard output stays clean for results."""
    console = Console(stderr=True)
    return RichProgress(console) if console.is_terminal else LogProgress(console)


def shown_metrics(metrics: Mapping[str, float]) -> str:
    """Return the few most telling metrics in words.

    >>> shown_metrics({"critic/gradient_norm": 2.0, "critic/td_loss": 0.01234, "online/return": 3.0})
    'return 3, td loss 0.0123'
    """
    named = {name.split("/")[-1]: value for name, value in metrics.items()}
    telling = [name for name in SHOWN if name in named][:_MOST_SHOWN]
    return ", ".join(f"{name.replace('_', ' ')} {named[name]:.3g}" for name in telling)


def _pace(task: Task) -> float | None:
    """Units per second since the bar began: collecting and evaluating between the updates count."""
    elapsed = task.finished_time if task.finished else task.elapsed
    return task.completed / elapsed if elapsed and task.completed else None


class _RateColumn(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        pace = _pace(task)
        return Text("" if pace is None else f"{pace:.1f}/s", style="progress.data.speed")


class _LeftColumn(ProgressColumn):
    """Time left at the pace so far."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        pace = _pace(task)
        if pace is None or task.total is None or task.finished:
            return Text("")
        minutes, seconds = divmod(round(max(task.total - task.completed, 0) / pace), 60)
        return Text(f"{minutes:02d}:{seconds:02d}", style="progress.remaining")


@contextmanager
def foreign_output_to_stderr() -> Iterator[None]:
    """Send to standard error what Python or a C library prints meanwhile, such as that of a simulator."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:
        # There is no standard output to keep clean.
        yield
        return
    python_output = sys.stdout
    try:
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        yield
    finally:
        sys.stderr.flush()
        # What a C library still buffers must not follow us to standard output.
        ctypes.CDLL(None).fflush(None)
        sys.stdout = python_output
        os.dup2(kept, 1)
        os.close(kept)
