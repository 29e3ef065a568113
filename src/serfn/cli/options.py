"""Argument types that the commands share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tyro

from serfn.core.errors import ConfigError


def optional(metavar: str, otherwise: str) -> Any:
    """Annotate an option that may be left out.

    Args:
        metavar: How its value is called in the help.
        otherwise: What happens without it.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {otherwise})")


def refuse_on_resume(what: str, given: Mapping[str, Any]) -> None:
    """Raise if options were given that a resumed run or session would ignore.

    Args:
        what: What is gone on with, such as `run 'runs/cube'`.
        given: Values by option; None, false or nothing where it was left out.

    Raises:
        ConfigError: One was given.
    """
    ignored = [f"--{name}" for name, value in given.items() if value not in (None, False, ())]
    if ignored:
        raise ConfigError(
            f"{what} goes on with its own configuration; leave out {', '.join(ignored)}, or start a new one"
        )
