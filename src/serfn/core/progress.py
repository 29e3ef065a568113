"""How a long job tells what it is doing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Watches a job. Names are those of stages, or of parts such as `demonstrations`."""

    def stage_started(self, name: str, total: int) -> None:
        """Part `name` begins with `total` units of work to do; a resumed run counts what is left."""
        ...

    def advanced(self, name: str, n: int, metrics: Mapping[str, float]) -> None:
        """`n` more units are done; `metrics` are the latest figures, possibly none."""
        ...

    def stage_finished(self, name: str, summary: Mapping[str, float]) -> None:
        """Part `name` is over."""
        ...

    def note(self, text: str) -> None:
        """Something happened that the user should know."""
        ...


class SilentProgress:
    """Watches and says nothing."""

    def stage_started(self, name: str, total: int) -> None:
        """Do nothing."""

    def advanced(self, name: str, n: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def stage_finished(self, name: str, summary: Mapping[str, float]) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


SILENT = SilentProgress()
