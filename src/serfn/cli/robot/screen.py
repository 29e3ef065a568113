"""What a person sees and presses during a session on a robot: a live panel, and single keys.

It needs a terminal and nothing else, so it works over SSH. Without a terminal there are lines, and nobody to
ask.
"""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import threading
import tty
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from serfn.robot.keyboard import HELP
from serfn.sessions.session import Outcome, Phase, RobotSession

_REFRESH_HZ = 4
_SHOWN_OUTCOMES = 6
_POLL_S = 0.1
_STYLES: dict[Phase, str] = {"running": "green", "stopped": "bold red", "waiting": "yellow"}


class KeyReader:
    """Reads single keys from a terminal in a thread of its own; a context manager that restores the terminal.

    Args:
        press: Takes each key.
    """

    def __init__(self, press: Callable[[str], None]) -> None:
        self._press = press
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="serfn-keys", daemon=True)

    def __enter__(self) -> Self:
        self._descriptor = sys.stdin.fileno()
        self._settings = termios.tcgetattr(self._descriptor)
        # Keys come at once and are not echoed; Ctrl-C still interrupts.
        tty.setcbreak(self._descriptor)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join(timeout=1.0)
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._settings)

    def _read(self) -> None:
        while not self._closed.is_set():
            if not select.select([self._descriptor], [], [], _POLL_S)[0]:
                continue
            read = os.read(self._descriptor, 64)
            if not read:
                return
            for key in keys_in(read):
                self._press(key)


def keys_in(read: bytes) -> str:
    r"""Return the keys in what a terminal sent; arrows and other sequences mean nothing.

    >>> keys_in(b"s "), keys_in(b"\x1b[A"), keys_in(b"\xff")
    ('s ', '', '')
    """
    return "" if read.startswith(b"\x1b") else read.decode(errors="ignore")


class RobotScreen:
    """A live panel about a session; a `SessionWatcher`.

    Args:
        console: Terminal to draw on.
        status: Status file of the learner.
    """

    def __init__(self, console: Console, status: Path) -> None:
        self._console = console
        self._status = status
        self._session: RobotSession | None = None
        self._phase: Phase = "starting"
        self._text = ""
        self._outcomes: deque[str] = deque(maxlen=_SHOWN_OUTCOMES)
        self._timing = "no steps yet"
        self._live = Live(
            console=console, get_renderable=self.render, refresh_per_second=_REFRESH_HZ, transient=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def attach(self, session: RobotSession) -> None:
        """Show this robot."""
        self._session = session

    def phase(self, phase: Phase, text: str) -> None:
        """Show what is going on."""
        self._phase, self._text = phase, text

    def episode_ended(self, outcome: Outcome) -> None:
        """Show the outcome, and how punctual the loop was so far."""
        self._outcomes.append(outcome_line(outcome))
        if self._session is not None:
            self._timing = timing_line(self._session)

    def note(self, text: str) -> None:
        """Print above the panel."""
        self._console.print(text, markup=False, highlight=False)

    def render(self) -> RenderableType:
        """Return the panel as it is now."""
        rows = Table.grid(padding=(0, 2))
        rows.add_row("", Text(f"{self._phase}: {self._text}", style=_STYLES.get(self._phase, "")))
        if self._session is not None:
            for name, value in session_rows(self._session, self._status):
                rows.add_row(name, value)
        rows.add_row("timing", self._timing)
        for line in self._outcomes:
            rows.add_row("", Text(line, style="dim"))
        keys = Table.grid(padding=(0, 3))
        shown = [f"{key}  {meaning}" for key, meaning in HELP]
        for index in range(0, len(shown), 2):
            keys.add_row(*shown[index : index + 2])
        return Panel(Group(rows, Text(), keys), title="serfn robot", border_style="dim")


class RobotLog:
    """Lines about a session, for output without a terminal; a `SessionWatcher`."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def attach(self, session: RobotSession) -> None:
        """Lines say nothing about the session as a whole."""

    def phase(self, phase: Phase, text: str) -> None:
        """Say what matters, not every reset."""
        if phase in ("stopped", "waiting", "learning", "over"):
            self.note(f"{phase}: {text}")

    def episode_ended(self, outcome: Outcome) -> None:
        """Print the outcome."""
        self.note(outcome_line(outcome))

    def note(self, text: str) -> None:
        """Print."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def outcome_line(outcome: Outcome) -> str:
    """Return one line about an episode."""
    report, recorded = outcome.report, outcome.recorded
    ending = report.ending
    success = {True: "success", False: "no success", None: "success unknown"}[ending.success]
    parts = [
        f"episode {report.header.index}: {report.steps} steps, {ending.reason}, {success}",
        f"return {recorded.return_:.2f}",
    ]
    if version := report.header.policy_version:
        parts.append(f"policy {version}")
    if version and recorded.interventions:
        parts.append(f"{recorded.interventions} take-overs")
    if recorded.safety_steps:
        parts.append(f"{recorded.safety_steps} steps limited")
    if not ending.keep:
        parts.append("discarded")
    if report.cause is not None:
        parts.append(f"stopped: {report.cause.detail}")
    return ", ".join(parts)


def timing_line(session: RobotSession) -> str:
    """Return how punctual the loop was."""
    timing = session.loop.timing.summary()
    return (
        f"{timing.steps} steps, {timing.missed} deadlines missed ({timing.miss_rate:.2%}), jitter p50 "
        f"{timing.jitter_p50_ms:.2f} ms, p99 {timing.jitter_p99_ms:.2f} ms"
    )


def session_rows(session: RobotSession, status: Path) -> list[tuple[str, str]]:
    """Return what is worth showing about a session, as names and values."""
    used, limits = session.use, session.config.budget

    def of(value: float, limit: float | None, digits: int = 0) -> str:
        return f"{value:.{digits}f}" if limit is None else f"{value:.{digits}f} of {limit:g}"

    rows = [
        ("robot", f"{session.robot.robot.info.name}, {session.robot.state}, {session.control_hz:g} Hz"),
        ("policy", "a person moves it" if session.slot is None else f"version {session.slot.version}"),
        (
            "budget",
            f"{of(used.minutes, limits.minutes, 1)} minutes, {of(used.episodes, limits.episodes)} episodes, "
            f"{of(used.resets, limits.resets)} resets, {of(used.interventions, limits.interventions)} "
            "take-overs",
        ),
    ]
    if learner := _learner(status):
        rows.append(("learner", learner))
    return rows


def _learner(status: Path) -> str:
    try:
        values = json.loads(status.read_text(encoding="utf-8"))
        return f"{values['updates']} updates from {values['episodes']} episodes"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
