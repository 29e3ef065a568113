"""Errors caused by input. Each message names the received value and the remedy."""

from __future__ import annotations


class SerfnError(ValueError):
    """Bad input of any kind; the command line prints its message and exits with status 2."""


class ConfigError(SerfnError):
    """A configuration or specification has an unknown key, a wrong type or an impossible value."""


class DataError(SerfnError):
    """Recorded data (episodes, demonstrations, files) cannot be used as it is."""


class CheckpointError(SerfnError):
    """A checkpoint or policy bundle is missing, incomplete or does not fit."""
