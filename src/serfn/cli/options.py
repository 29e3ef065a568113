"""Argument types that the commands share."""

from __future__ import annotations

from typing import Any

import tyro


def optional(metavar: str, otherwise: str) -> Any:
    """Annotate an option that may be left out.

    Args:
        metavar: How its value is called in the help.
        otherwise: What happens without it.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {otherwise})")
