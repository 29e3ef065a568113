"""How an episode ended, from the flags that foreign formats keep per step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serfn.core.errors import DataError
from serfn.data.mapping import Field


@dataclass(frozen=True, eq=False)
class Outcome:
    """Rewards and end of one episode, see `serfn.data.episode.Episode`."""

    rewards: np.ndarray
    terminated: bool
    truncated: bool
    success: bool | None


def decide(
    steps: int,
    *,
    rewards: np.ndarray | None,
    success: np.ndarray | None,
    terminated: np.ndarray | None,
    truncated: np.ndarray | None,
    assume_success: bool,
) -> Outcome:
    """Return how an episode of `steps` steps ended.

    Without rewards, a success is rewarded by 1 at its last step. Without flags of the end, a success
    terminates and everything else is truncated, as its value after the last step is unknown rather than 0.

    Args:
        steps: Number of steps T.
        rewards: `[T]`, or None.
        success: `[T]`, set at any step of a successful episode, or None.
        terminated: `[T]`, of which the last counts, or None.
        truncated: `[T]`, of which the last counts, or None.
        assume_success: Where `success` is None, the episode was a success.

    Raises:
        DataError: There are neither rewards nor anything that tells success.
    """
    solved = True if assume_success else None
    if success is not None:
        solved = bool(np.any(success > 0))
    if rewards is None:
        if solved is None:
            raise DataError("neither rewards nor success are known; name them in the mapping")
        rewards = np.zeros(steps, np.float32)
        rewards[-1] = float(solved)
    ended = None if terminated is None else bool(terminated[-1])
    cut = None if truncated is None else bool(truncated[-1])
    if ended is None:
        ended = solved is True if cut is None else not cut
    return Outcome(rewards=rewards, terminated=ended, truncated=bool(cut) or not ended, success=solved)


def outcome_notes(
    rewards: Field | None,
    success: Field | None,
    terminated: Field | None,
    truncated: Field | None,
    assume_success: bool,
    found: str,
) -> list[str]:
    """Return what `decide` will assume, one sentence each.

    Raises:
        DataError: There is nothing to decide by; the message lists what was `found`.
    """
    notes = []
    if success is None and assume_success:
        notes.append("success: assumed for every episode")
    if rewards is None:
        if success is None and not assume_success:
            raise DataError(
                "neither rewards nor success are there; name them in the mapping, or set assume_success if "
                f"every episode is a success; found {found}"
            )
        notes.append("no rewards: 1 at the last step of each success, 0 elsewhere")
    if terminated is None and truncated is None:
        notes.append("no terminated or truncated: successful episodes terminate, all others are truncated")
    return notes
