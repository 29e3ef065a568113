"""Errors caused by input. Each message names the received value and the remedy."""

from __future__ import annotations


class SerfnError(ValueError):
    """Bad input of any kind; the command line prints its message and exits with status 2."""


class ConfigError(SerfnError):
    """A configuration or specification has an unknown key, a wrong type or an impossible value."""


class DataError(SerfnError):
    """Recorded data (episodes, demonstrations, files) cannot be used as it is.

    Args:
        message: What was found, and the remedy.
        step: Control step of the episode at which it was found, where there is one.
    """

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


class AbortedEpisodesError(SerfnError):
    """An environment aborted too many episodes to go on; what was recorded and learnt before is kept."""


class CheckpointError(SerfnError):
    """A checkpoint or policy bundle is missing, incomplete or does not fit."""
