"""Words of the command line become a call; words that make no sense become one line."""

from __future__ import annotations

import functools
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import tyro

from serfn.core.errors import SerfnError


class UsageError(SerfnError):
    """The words after `serfn` are not understood."""


@dataclass(frozen=True)
class Group:
    """Commands under a common word, such as `serfn data info`.

    Attributes:
        description: What the help says about the group.
        commands: Functions by name.
    """

    description: str
    commands: Mapping[str, Callable[..., None]]


Commands = Mapping[str, Callable[..., None] | Group]


def parse(
    commands: Commands, description: str, arguments: Sequence[str] | None, prog: str = "serfn"
) -> Callable[[], None]:
    """Return the call that the arguments ask for, ready to be made.

    Args:
        commands: Functions and groups of them by name; the parameters of functions are the options.
        description: What the help says first.
        arguments: Words after `prog`; None takes those of the process.
        prog: Words before.

    Raises:
        UsageError: Unknown words, missing or impossible values.
        SystemExit: The help was asked for, and printed.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and isinstance(group := commands.get(words[0]), Group):
        return parse(group.commands, group.description, words[1:], f"{prog} {words[0]}")
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                {name: _deferred(command) for name, command in commands.items()},
                prog=prog,
                description=description,
                args=words,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if end.code in (None, 0):
            raise
        program = prog if not words or words[0] not in commands else f"{prog} {words[0]}"
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
    # An option that may be left out has None among its values, which nobody writes.
    message = re.sub(r"(\()'None', |, 'None'", r"\1", message)
    hints = " ".join(lines[end:])
    if meant := re.search(r"Perhaps you meant:\s+(--[\w-]+)", hints):
        return f"{message} (did you mean {meant[1]}?)"
    if known := re.search(r"Available subcommands: ((?:\w+, )*\w+)", hints):
        return f"{message}; choose one of {known[1]}"
    return message


def _deferred(command: Callable[..., None] | Group) -> Callable[..., Callable[[], None]]:
    """Return a function with the same parameters that does not call `command` yet."""
    if isinstance(command, Group):

        def stand_for_group() -> Callable[[], None]:
            raise UsageError("a group of commands cannot be called")

        stand_for_group.__doc__ = command.description
        return stand_for_group

    @functools.wraps(command)
    def choose(*values: Any, **options: Any) -> Callable[[], None]:
        return functools.partial(command, *values, **options)

    return choose
