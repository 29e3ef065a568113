"""Labels by key after the end of an episode: its outcome is corrected, its steps stay as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from serfn.data.store.labels import LabelChange
from serfn.data.store.store import EpisodeStore
from serfn.robot.clock import Clock

LATE_LABEL_S = 30.0
"""How long after its end an episode may still be labelled by a key."""


class LateLabels:
    """Labels the episode that ended last.

    Args:
        store: Folder of its store.
        clock: Clock of the loop.
        note: Takes one line for people.
    """

    def __init__(self, store: Path, clock: Clock, note: Callable[[str], None]) -> None:
        self._store, self._clock, self._note = store, clock, note
        self._number: int | None = None
        self._ended_s = -math.inf

    def ended(self, number: int | None) -> None:
        """An episode has ended; `number` is None if nothing of it was kept."""
        self._number, self._ended_s = number, self._clock.now()

    def say(self, label: Literal["success", "failure", "discard"]) -> None:
        """Take a label from a person; too late, it is answered and changes nothing."""
        late_s = self._clock.now() - self._ended_s
        if self._number is None or late_s > LATE_LABEL_S:
            self._note(f"'{label}' comes too late: no episode ended in the last {LATE_LABEL_S:g} s")
            return
        change = (
            LabelChange(source="operator", discard=True)
            if label == "discard"
            else LabelChange(source="operator", success=label == "success")
        )
        EpisodeStore(self._store).relabel(self._number, change)
        self._note(f"episode {self._number} of the store: {label}, said {late_s:.0f} s after its end")
