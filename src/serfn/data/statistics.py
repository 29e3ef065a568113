"""Mean and spread of observations, for the normalisers of policies and critics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serfn.core.errors import DataError
from serfn.data.episode import Episode

STD_FLOOR = 1e-2
"""Least standard deviation returned: a dimension that hardly moves must not be blown up when it does move."""


@dataclass(frozen=True, eq=False)
class ObservationStatistics:
    """Mean and standard deviation per dimension.

    Args:
        mean: `[obs]` float32.
        std: `[obs]` float32, at least `STD_FLOOR`.
    """

    mean: np.ndarray
    std: np.ndarray


def observation_statistics(episodes: Sequence[Episode]) -> ObservationStatistics:
    """Return the statistics of all observations of `episodes`, terminal ones included.

    Sums run in float64 around the first observation, so that a large offset does not cost precision and no
    copy of the whole data set is made.

    Raises:
        DataError: There are no episodes or their dimensions differ.
    """
    if not episodes:
        raise DataError("statistics need at least one episode, got 0")
    origin = episodes[0].observations[0].astype(np.float64)
    total, squares, count = np.zeros_like(origin), np.zeros_like(origin), 0
    for index, episode in enumerate(episodes):
        if episode.observations.shape[1] != len(origin):
            raise DataError(
                f"episode {index} has {episode.observations.shape[1]} observation dimensions, the first has "
                f"{len(origin)}; use episodes of one task"
            )
        centered = episode.observations.astype(np.float64) - origin
        total += centered.sum(axis=0)
        squares += np.square(centered).sum(axis=0)
        count += len(centered)
    mean = total / count
    variance = np.maximum(squares / count - np.square(mean), 0.0)
    std = np.maximum(np.sqrt(variance), STD_FLOOR)
    return ObservationStatistics(mean=(origin + mean).astype(np.float32), std=std.astype(np.float32))
