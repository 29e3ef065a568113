"""Interaction with the robot is what a laboratory pays for: limits on it, and what was used."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from serfn.core.config import from_dict
from serfn.core.errors import ConfigError, DataError


@dataclass(frozen=True)
class InteractionBudget:
    """Limits of one session; None does not limit.

    Attributes:
        minutes: Robot time in episodes, waiting and resets not counted.
        episodes: Episodes, the discarded ones included.
        resets: Times that the scene was put back, by a person or a script.
        interventions: Times that a person took over.

    Raises:
        ConfigError: A limit is not positive.
    """

    minutes: float | None = None
    episodes: int | None = None
    resets: int | None = None
    interventions: int | None = None

    def __post_init__(self) -> None:
        for name in ("minutes", "episodes", "resets", "interventions"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"budget {name} is {value}; it must be above 0, or left out")

    def exhausted(self, used: InteractionUse) -> str | None:
        """Return in words which limit is reached, or None if another episode may begin."""
        for name, count in used.to_dict().items():
            limit = getattr(self, name, None)
            if limit is not None and count >= limit:
                return f"the budget of {limit:g} {name} is used up"
        return None


@dataclass(frozen=True)
class InteractionUse:
    """What was used.

    Attributes:
        minutes: Robot time in episodes.
        episodes: Episodes begun.
        resets: Resets of the scene.
        interventions: Times that a person took over.
        discarded: Episodes that a person threw away.
        stops: Episodes that the safety supervisor or the stop key ended.
    """

    minutes: float = 0.0
    episodes: int = 0
    resets: int = 0
    interventions: int = 0
    discarded: int = 0
    stops: int = 0

    def after_reset(self) -> InteractionUse:
        """Return the use with one more reset."""
        return replace(self, resets=self.resets + 1)

    def after_episode(
        self, *, minutes: float, interventions: int, discarded: bool, stopped: bool
    ) -> InteractionUse:
        """Return the use with one more episode.

        Args:
            minutes: Robot time of the episode.
            interventions: Times that a person took over in it.
            discarded: A person threw it away.
            stopped: The supervisor's latch ended it.
        """
        return replace(
            self,
            minutes=self.minutes + minutes,
            episodes=self.episodes + 1,
            interventions=self.interventions + interventions,
            discarded=self.discarded + discarded,
            stops=self.stops + stopped,
        )

    def to_dict(self) -> dict[str, float]:
        """Return the counts by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def read_use(path: Path) -> InteractionUse:
    """Return what was used so far, from its file; nothing, if there is none.

    Raises:
        DataError: The file is damaged.
    """
    if not path.is_file():
        return InteractionUse()
    try:
        return from_dict(InteractionUse, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' is damaged: {error}; delete it to begin a new budget") from error
