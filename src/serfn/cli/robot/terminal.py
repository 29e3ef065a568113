"""The person at the terminal: whether there is one, their keys, and what they are shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from serfn.robot.contract import Robot
    from serfn.robot.keyboard import KeyboardOperator


SWITCH_S = 5e-4
"""How soon another thread of the interpreter lets the control loop in."""


def at_terminal() -> bool:
    """Return whether somebody can see the screen and press keys."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def pressed_enter(console: Console) -> bool:
    """Ask the person at this terminal; without one, nobody says yes."""
    if not at_terminal():
        return False
    console.print("read the limits, then press enter to let it move; Ctrl-C ends")
    return bool(sys.stdin.readline())


def person_at_keys(robot: Robot, stack: ExitStack) -> KeyboardOperator | None:
    """Return the person at this terminal; None without one."""
    if not at_terminal():
        return None
    from serfn.cli.robot.screen import KeyReader
    from serfn.robot.keyboard import KeyboardOperator
    from serfn.robot.teleoperation import KeyboardJog

    person = KeyboardOperator(KeyboardJog(robot.info.action))
    stack.enter_context(KeyReader(person.press))
    return person


@contextmanager
def session_watcher(console: Console, status: Path, person: KeyboardOperator | None) -> Iterator[Any]:
    """Show a session: a live panel to a person at the keys, lines otherwise."""
    from serfn.cli.robot.screen import RobotLog, RobotScreen

    if person is None:
        yield RobotLog(console)
        return
    with RobotScreen(console, status) as screen:
        yield screen
