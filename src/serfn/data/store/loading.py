"""From a store to what learning draws from."""

from __future__ import annotations

from collections.abc import Callable

from serfn.data.episode import Episode
from serfn.data.replay import ChunkReplay
from serfn.data.store.store import EpisodeStore


def add_stored(
    replay: ChunkReplay,
    store: EpisodeStore,
    *,
    after: int = -1,
    to_learning: Callable[[Episode], Episode] = lambda episode: episode,
) -> int:
    """Put the episodes of a store into a replay, except for those that were set aside.

    A learner follows a store that another process writes by refreshing it and calling this with the number
    returned before. Corrected labels decide which episodes may be imitated; what is already in the replay
    keeps the label of its entry.

    Args:
        replay: Replay of the same dimensions.
        store: Where the episodes are.
        after: Number of the last episode that is already there.
        to_learning: Turns an episode into one with learning rewards.

    Returns:
        Number of the last episode looked at.

    Raises:
        DataError: An episode is damaged, or does not fit the replay.
    """
    for number in store.numbers:
        if number > after and not store.labels(number).discard:
            replay.add(to_learning(store.episode(number, images=False)))
    return max(store.numbers, default=after)
