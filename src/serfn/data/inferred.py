"""Outcomes that a data set does not state but its rewards tell, for all formats alike; each guess is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from serfn.data.episode import Episode

_SPARSE = ((0.0, 1.0), (-1.0, 0.0))
"""Rewards of a step without and with success, as sparse tasks give them."""


def success_by_rewards(episodes: Sequence[Episode]) -> tuple[tuple[Episode, ...], str | None]:
    """Tell success by rewards, where nothing else does and they are 0 and 1, or −1 and 0.

    Returns:
        The episodes, and what was inferred; None if nothing was.
    """
    if any(episode.success is not None for episode in episodes):
        return tuple(episodes), None
    found = set(np.unique(np.concatenate([episode.rewards for episode in episodes])).tolist())
    for without, with_success in _SPARSE:
        if found == {without, with_success}:
            solved = [bool((episode.rewards == with_success).any()) for episode in episodes]
            told = tuple(
                replace(episode, success=success, success_source="rewards")
                for episode, success in zip(episodes, solved, strict=True)
            )
            return told, (
                f"success: inferred from rewards of {without:g} and {with_success:g}: "
                f"{sum(solved)} of {len(solved)} episodes succeed"
            )
    return tuple(episodes), None


def ends_by_success(episodes: Sequence[Episode]) -> tuple[tuple[Episode, ...], str | None]:
    """Take flags that end every episode for ends of the recording where the task was not solved.

    A recording that flags its last step whatever happened does not say that the task ended there, and an
    unsolved episode would be valued as if nothing came after it.

    Returns:
        The episodes, and what was assumed; None if nothing was.
    """
    unsolved = [episode.success is False for episode in episodes]
    if not (all(episode.terminated for episode in episodes) and any(unsolved)):
        return tuple(episodes), None
    cut = tuple(
        replace(episode, terminated=False, truncated=True) if left else episode
        for episode, left in zip(episodes, unsolved, strict=True)
    )
    return cut, (
        f"ends: every episode is flagged done; the {sum(unsolved)} without success are taken as cut off, "
        "not as ended by the task"
    )
