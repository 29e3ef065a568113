"""Episodes at another control rate, where it is known what their actions mean.

What an action does between two steps decides how it can be resampled, and no data set says it:

- `targets` are absolute positions: they are interpolated linearly, and the last one is held;
- `rates` are velocities, forces or torques, which act as long as they are held: each new step gets the mean
  over its time, so that what they add up to stays the same.

Displacements per step are neither. Their size belongs to the rate of the controller that they were recorded
with, so that they cannot be resampled here: record them at the rate of the task.

Observations are interpolated linearly; an image, an intervention and a label stay until the next one. A
reward is paid at the new step in which its old step ends, so that the return of an episode stays the same.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from serfn.core.errors import DataError
from serfn.data.episode import Episode

ActionKind = Literal["targets", "rates"]
"""What actions mean while time passes."""


def resample(episode: Episode, from_hz: float, to_hz: float, actions: ActionKind) -> Episode:
    """Return an episode of the same duration with another number of steps.

    Args:
        episode: Recorded at `from_hz`.
        from_hz: Its control steps per second.
        to_hz: Control steps per second of the result.
        actions: What its actions mean.

    Raises:
        DataError: A rate is not positive, or the episode is shorter than half a new step.
    """
    if not (0 < from_hz < np.inf and 0 < to_hz < np.inf):
        raise DataError(f"the rates are {from_hz} and {to_hz} steps per second; both must be positive")
    if from_hz == to_hz:
        return episode
    old, new = episode.length, round(episode.length * to_hz / from_hz)
    if new < 1:
        raise DataError(
            f"an episode of {old} steps at {from_hz:g} Hz is shorter than half a step at {to_hz:g} Hz; leave "
            "it out, or resample to a higher rate"
        )
    # Times in old steps; the new steps share the episode's duration equally, so that both ends stay.
    edges = np.linspace(0.0, old, new + 1)
    starts = np.minimum(np.floor(edges).astype(int), old)
    held = np.minimum(starts[:-1], old - 1)
    paid = np.clip(np.searchsorted(edges, np.arange(1, old + 1), side="left") - 1, 0, new - 1)
    asked, acted, times = episode.proposed_actions, episode.interventions, episode.timestamps_s
    return dataclasses.replace(
        episode,
        observations=_interpolated(episode.observations, edges),
        actions=_actions(episode.actions, edges, actions),
        proposed_actions=None if asked is None else _actions(asked, edges, actions),
        rewards=np.bincount(paid, weights=episode.rewards, minlength=new),
        chunk_starts=_starts(episode.chunk_starts, held),
        interventions=None if acted is None else acted[held],
        timestamps_s=None if times is None else np.interp(edges, np.arange(old + 1), times),
        images={name: images[starts] for name, images in episode.images.items()},
    )


def _interpolated(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return rows of `[n, dim]` at fractional row numbers; beyond the last row it is held."""
    below = np.minimum(np.floor(at).astype(int), len(values) - 1)
    above = np.minimum(below + 1, len(values) - 1)
    share = (at - below)[:, None].clip(0.0, 1.0)
    return values[below] * (1 - share) + values[above] * share


def _actions(actions: np.ndarray, edges: np.ndarray, kind: ActionKind) -> np.ndarray:
    if kind == "targets":
        return _interpolated(actions, edges[:-1])
    total = np.concatenate([np.zeros((1, actions.shape[1])), np.cumsum(actions, axis=0, dtype=np.float64)])
    return np.diff(_interpolated(total, edges), axis=0) / np.diff(edges)[:, None]


def _starts(chunk_starts: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return where a chunk was decided: where the first new step falls into such an old one."""
    if chunk_starts.all():
        return np.ones(len(held), np.bool_)
    first = np.diff(held, prepend=-1) > 0
    return chunk_starts[held] & first
