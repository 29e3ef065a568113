"""Outcomes that a data set does not state but its rewards tell, for all formats alike; each guess is said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from serfn.data.episode import Episode

_SPARSE = ((0.0, 1.0), (-1.0, 0.0))
"""Rewards of a step without and with success, as sparse tasks give them."""


@dataclass(frozen=True)
class InferredOutcomes:
    """What was inferred from all episodes of a data set, to be told of each.

    Attributes:
        success_reward: Reward of a step that tells success, where nothing else does; None if none does.
        ends_are_cuts: Whether an episode without success counts as cut off although it is flagged done.
        notes: What was guessed, one sentence each.
    """

    success_reward: float | None = None
    ends_are_cuts: bool = False
    notes: tuple[str, ...] = ()

    def tell(self, episode: Episode) -> Episode:
        """Return the episode with its inferred outcome."""
        if self.success_reward is not None:
            solved = bool((episode.rewards == self.success_reward).any())
            episode = replace(episode, success=solved, success_source="rewards")
        if self.ends_are_cuts and episode.success is False:
            episode = replace(episode, terminated=False, truncated=True)
        return episode


def infer_outcomes(episodes: Iterable[Episode], *, done_at_every_end: bool = False) -> InferredOutcomes:
    """Look at all episodes once, and return what their rewards tell of success and of their ends.

    Success is told by rewards where nothing else does and they are 0 and 1, or −1 and 0. A recording that
    flags its last step whatever happened does not say that the task ended there: an unsolved episode would be
    valued as if nothing came after it.

    Args:
        episodes: Of one data set, read once and not kept.
        done_at_every_end: Whether the format commonly flags every end as done.
    """
    rewards: set[float] = set()
    found: list[tuple[bool | None, bool, set[float]]] = []
    for episode in episodes:
        # More values than a sparse reward has are of no interest.
        own = set(np.unique(episode.rewards)[:4].tolist())
        rewards |= own
        found.append((episode.success, episode.terminated, own))
    notes: list[str] = []
    told, with_success = [success for success, _, _ in found], None
    if all(success is None for success in told):
        with_success = next((high for low, high in _SPARSE if rewards == {low, high}), None)
    if with_success is not None:
        low = dict((high, low) for low, high in _SPARSE)[with_success]
        told = [with_success in own for _, _, own in found]
        notes.append(
            f"success: inferred from rewards of {low:g} and {with_success:g}: {sum(map(bool, told))} of "
            f"{len(told)} episodes succeed"
        )
    unsolved = sum(success is False for success in told)
    cuts = done_at_every_end and unsolved > 0 and all(terminated for _, terminated, _ in found)
    if cuts:
        notes.append(
            f"ends: every episode is flagged done; the {unsolved} without success are taken as cut off, not "
            "as ended by the task"
        )
    return InferredOutcomes(with_success, cuts, tuple(notes))
