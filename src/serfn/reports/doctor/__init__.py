"""Is it learning, and if not, why: what the files of a run or a session say, one finding per cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from serfn.core.errors import SerfnError
from serfn.reports.doctor.case import Case, read_case
from serfn.reports.doctor.checks import CHECKS, FEW, Diagnosis

__all__ = ["CHECKS", "FEW", "Case", "Diagnosis", "Rounds", "diagnose", "examine", "read_case"]


def examine(folder: Path) -> list[Diagnosis]:
    """Return what is wrong with a run or a session, finished or at work; empty if nothing was found.

    Raises:
        DataError: The folder holds neither, or its files are damaged.
    """
    return diagnose(read_case(folder))


def diagnose(case: Case) -> list[Diagnosis]:
    """Return the findings of all checks, in their order."""
    found = [check(case) for check in CHECKS]
    return [finding for finding in found if finding is not None]


class Rounds:
    """Looks at a run or a session again and again while it is at work, and tells each finding once.

    Args:
        folder: Its folder.
        tell: Takes one line.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder, self._tell = folder, tell
        self._told: set[str] = set()

    def look(self) -> None:
        """Tell what holds now and was not told yet; files that cannot be read are no finding."""
        try:
            found = examine(self._folder)
        except (SerfnError, OSError):
            return
        for finding in found:
            if finding.name not in self._told:
                self._told.add(finding.name)
                self._tell(f"doctor: {finding.text}")
