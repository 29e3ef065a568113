"""Values that would set a scale by themselves, and dimensions that never move: said before they do harm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serfn.data.episode import Episode

LONE_DEVIATIONS = 20.0
"""Distance from the median, in robust standard deviations, from which a value counts as an extreme."""

_MAD_TO_STD = 1.4826
_LONE_SHARE = 1e-3
_MOST_NAMED = 5


def extremes(episodes: Sequence[Episode]) -> tuple[str, ...]:
    """Return what is odd about the numbers of `episodes`, one sentence each.

    A value is alone if at most one of a thousand in its dimension is further than `LONE_DEVIATIONS` robust
    standard deviations (1.4826 times the median distance from the median, as of a normal distribution) from
    the median. A dimension whose values are mostly equal has no such deviation, and is not judged.
    """
    notes = []
    starts = np.cumsum([0, *(episode.length + 1 for episode in episodes)])
    values = np.concatenate([episode.observations for episode in episodes])
    notes += _lone("observation", values, starts)
    if still := np.flatnonzero(np.ptp(values, axis=0) == 0).tolist():
        notes.append(f"observation dimensions {_some(still)} never move")
    starts = np.cumsum([0, *(episode.length for episode in episodes)])
    notes += _lone("action", np.concatenate([episode.actions for episode in episodes]), starts)
    rewards = np.concatenate([episode.rewards for episode in episodes])
    return (*notes, *_lone("reward", rewards[:, None], starts))


def _lone(what: str, values: np.ndarray, starts: np.ndarray) -> list[str]:
    """Return a sentence for each dimension of `values` `[rows, size]` with a lone extreme."""
    notes = []
    for dimension in range(values.shape[1]):
        column = values[:, dimension].astype(np.float64)
        median = float(np.median(column))
        distance = np.abs(column - median)
        deviation = _MAD_TO_STD * float(np.median(distance))
        far = np.flatnonzero(distance > LONE_DEVIATIONS * deviation) if deviation > 0 else np.empty(0, int)
        if 0 < len(far) <= max(1.0, _LONE_SHARE * len(column)):
            row = int(np.argmax(distance))
            episode = int(np.searchsorted(starts, row, side="right")) - 1
            name = what if values.shape[1] == 1 else f"{what} dimension {dimension}"
            notes.append(
                f"{name} is {column[row]:g} in episode {episode}, step {row - int(starts[episode])}: "
                f"{distance[row] / deviation:.0f} robust standard deviations from its median {median:g}; "
                f"{len(far)} of {len(column)} values are beyond {LONE_DEVIATIONS:g}, and would set the scale"
            )
    left = len(notes) - _MOST_NAMED
    return (
        notes if left <= 0 else [*notes[:_MOST_NAMED], f"{left} more dimensions of {what} have such a value"]
    )


def _some(dimensions: list[int]) -> str:
    return f"{dimensions[:10]}{f' and {len(dimensions) - 10} more' if len(dimensions) > 10 else ''}"
