"""`random:SEED` names a plant that is drawn from the family of its task.

A policy that is better on one plant may have been tuned to it. Convention: choose on seeds 0 to 4, judge on
100 to 109 (docs/studies.md).
"""

from __future__ import annotations

from collections.abc import Iterable

from serfn.core.errors import ConfigError

_PREFIX = "random:"


def seed_of(choice: str) -> int | None:
    """Return the seed of `random:SEED`; None for any other name.

    Raises:
        ConfigError: the seed is not a whole number of 0 or more.
    """
    if not choice.startswith(_PREFIX):
        return None
    text = choice.removeprefix(_PREFIX)
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"plant {choice!r} has no seed; give a whole number of 0 or more, as in random:3")
    return int(text)


def unknown_plant(choice: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a name that no plant has."""
    return ConfigError(
        f"unknown plant {choice!r}; choose one of {', '.join(known)}, or random:SEED for one drawn at random"
    )
