"""Words of the command line become a call; words that make no sense become one line."""

from __future__ import annotations

import functools
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from typing import Any

import tyro

from serfn.core.errors import SerfnError


class UsageError(SerfnError):
    """The words after `serfn` are not understood."""


def parse(
    commands: Mapping[str, Callable[..., None]], description: str, arguments: Sequence[str] | None
) -> Callable[[], None]:
    """Return the call that the arguments ask for, ready to be made.

    Args:
        commands: Functions by name; their parameters are the options.
        description: What the help says first.
        arguments: Words after `serfn`; None takes those of the process.

    Raises:
        UsageError: Unknown words, missing or impossible values.
        SystemExit: The help was asked for, and printed.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                {name: _deferred(command) for name, command in commands.items()},
                prog="serfn",
                description=description,
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if end.code in (None, 0):
            raise
        words = sys.argv[1:] if arguments is None else list(arguments)
        program = "serfn" if not words or words[0] not in commands else f"serfn {words[0]}"
        raise UsageError(f"{usage_sentence(said.getvalue())}; see {program} --help") from None


def usage_sentence(text: str) -> str:
    r"""Return the parser's framed message as one sentence.

    The frame has a title, the message and hints, with rules between them; where it cannot be drawn, it
    consists of dashes.

    >>> usage_sentence(" Bad choice\n ----\n  invalid choice 'huge'\n  for '--budget'.\n  ----\n  Hints")
    "invalid choice 'huge' for '--budget'"
    """
    lines = [line.strip("╭╮╰╯│ ") for line in text.splitlines()]
    rules = [number for number, line in enumerate(lines) if number > 0 and not line.strip("─-")]
    start = 2 if 1 in rules else 1
    end = next((number for number in rules if number >= start), len(lines))
    message = " ".join(" ".join(lines[start:end]).split()).partition(" Got errors:")[0].rstrip(".")
    hints = " ".join(lines[end:])
    if meant := re.search(r"Perhaps you meant:\s+(--[\w-]+)", hints):
        return f"{message} (did you mean {meant[1]}?)"
    if known := re.search(r"Available subcommands: ((?:\w+, )*\w+)", hints):
        return f"{message}; choose one of {known[1]}"
    return message


def _deferred(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Return a function with the same parameters that does not call `command` yet."""

    @functools.wraps(command)
    def choose(*values: Any, **options: Any) -> Callable[[], None]:
        return functools.partial(command, *values, **options)

    return choose
