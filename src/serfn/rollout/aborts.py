"""Episodes that foreign code cut short: kept as they are, not learnt from, counted, and only so many of them.

A simulator that raises, exits, dies in its own process or returns what its spaces do not have aborts one
episode. The next one begins in an environment that was made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serfn.core.errors import AbortedEpisodesError

MOST_ABORTED = 20
"""Aborted episodes after which whoever runs them (a training run since its start or resume, an evaluation, a
collection) stops: then the environment is what must be looked at."""


@dataclass(frozen=True)
class AbortedEpisode:
    """One of them.

    Attributes:
        seed: Seed of its reset.
        steps: Control steps that were executed before.
        reason: One line that names the environment, the call and its exception.
    """

    seed: int
    steps: int
    reason: str


class Aborts:
    """Counts aborted episodes up to a limit.

    Args:
        told: Takes each of them as it happens.
        limit: Number that is one too many.
    """

    def __init__(
        self, told: Callable[[AbortedEpisode], object] = lambda aborted: None, limit: int = MOST_ABORTED
    ) -> None:
        self.count = 0
        """Aborted episodes so far."""
        self.limit = limit
        self._told = told
        self._last = ""

    def add(self, aborted: AbortedEpisode) -> None:
        """Count one.

        Raises:
            AbortedEpisodesError: It is one too many.
        """
        self.count += 1
        self._last = aborted.reason
        self._told(aborted)
        if self.count >= self.limit:
            raise self.error()

    def error(self) -> AbortedEpisodesError:
        """Return the end of whatever cannot go on, such as an evaluation of which no episode is left."""
        return AbortedEpisodesError(f"{aborted_words(self.count)}, the last one: {self._last}")


def aborted_words(count: int) -> str:
    """Return a number of aborted episodes in words.

    >>> aborted_words(1), aborted_words(3)
    ('1 episode was aborted', '3 episodes were aborted')
    """
    return "1 episode was aborted" if count == 1 else f"{count} episodes were aborted"
