"""The optional arrays of an NPZ file: what a robot records beyond observations, actions and rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serfn.core.errors import DataError
from serfn.data.episode import EPISODE_COLUMNS, Column, Episode

IMAGE = "image_"
TEXTS = ("task", "success_source")
"""Arrays that hold text."""

NAMES = ("observation_names", "action_names")
"""Arrays that name dimensions."""
_COLUMNS = {name: column for name, column in EPISODE_COLUMNS.items() if column.optional}


def extra_arrays(episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    """Return the optional arrays of episodes; what no episode has gets none.

    Raises:
        DataError: Cameras differ between episodes, or have a name that an array cannot have.
    """
    arrays: dict[str, np.ndarray] = {}
    if any(episode.task for episode in episodes):
        arrays["task"] = np.array([episode.task for episode in episodes])
    if any(episode.success_source for episode in episodes):
        arrays["success_source"] = np.array([episode.success_source or "" for episode in episodes])
    if any(episode.interrupted for episode in episodes):
        arrays["interrupted"] = np.array([episode.interrupted for episode in episodes])
    for name, column in _COLUMNS.items():
        rows = [getattr(episode, name) for episode in episodes]
        if any(own is not None for own in rows):
            arrays[name] = np.concatenate(
                [_or_unknown(own, column, episode) for own, episode in zip(rows, episodes, strict=True)]
            )
    return arrays | _image_arrays(episodes)


def extras_of_episodes(arrays: Mapping[str, np.ndarray], ends: np.ndarray) -> list[dict[str, Any]]:
    """Return the optional arguments of `Episode` for each episode.

    Args:
        arrays: All arrays of the file.
        ends: `[E]` exclusive ends of the episodes in steps.

    Raises:
        DataError: An array has another number of rows than steps, observations or episodes.
    """
    episodes, steps = len(ends), int(ends[-1])
    rows = {name: steps + column.extra * episodes for name, column in _COLUMNS.items()}
    rows |= {name: episodes for name in (*TEXTS, "interrupted")}
    rows |= {name: steps + episodes for name in arrays if name.startswith(IMAGE)}
    for name, expected in rows.items():
        if name in arrays and (arrays[name].ndim == 0 or len(arrays[name]) != expected):
            raise DataError(f"{name} has shape {arrays[name].shape}; expected {expected} rows")
    extras: list[dict[str, Any]] = []
    for index, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        seen = slice(start + index, end + index + 1)
        columns = {
            name: _known(arrays[name][seen if column.extra else slice(start, end)], column)
            for name, column in _COLUMNS.items()
            if name in arrays
        }
        values = {
            "task": _text(arrays, "task", index),
            "success_source": _text(arrays, "success_source", index) or None,
            "interrupted": bool(arrays["interrupted"][index]) if "interrupted" in arrays else False,
            **columns,
            "images": {
                name.removeprefix(IMAGE): array[seen]
                for name, array in arrays.items()
                if name.startswith(IMAGE)
            },
        }
        extras.append(values)
    return extras


def task_arrays(arrays: Mapping[str, np.ndarray], obs: int, action: int) -> dict[str, Any]:
    """Return the optional arguments of `Demonstrations`: rate and names.

    Args:
        arrays: All arrays of the file.
        obs: Dimensions of an observation.
        action: Dimensions of an action.

    Raises:
        DataError: The rate is not one positive number, or names are not as many as dimensions.
    """
    values: dict[str, Any] = {}
    if "control_hz" in arrays:
        rate = arrays["control_hz"]
        if rate.size != 1 or not 0 < float(rate.reshape(())) < np.inf:
            raise DataError(f"control_hz is {rate.tolist()}; give one positive number of steps per second")
        values["control_hz"] = float(rate.reshape(()))
    for name, dim in zip(NAMES, (obs, action), strict=True):
        if name in arrays:
            if arrays[name].shape != (dim,):
                raise DataError(f"{name} has shape {arrays[name].shape}; give one name per dimension ({dim})")
            values[name] = tuple(map(str, arrays[name]))
    return values


def _image_arrays(episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    shapes = [{name: images.shape[1:] for name, images in episode.images.items()} for episode in episodes]
    for index, found in enumerate(shapes):
        if found != shapes[0]:
            raise DataError(
                f"episode {index} has the cameras {found}, episode 0 {shapes[0]}; an NPZ file needs the same "
                "in all"
            )
    for name in shapes[0]:
        if not name.isprintable():
            raise DataError(f"camera name {name!r} cannot name an array; rename it")
    return {
        IMAGE + name: np.concatenate([episode.images[name] for episode in episodes]) for name in shapes[0]
    }


def _or_unknown(rows: np.ndarray | None, column: Column, episode: Episode) -> np.ndarray:
    """Return rows as they are stored: flags as integers with -1 for unknown, numbers with NaN."""
    flags = column.dtype is np.bool_
    if rows is not None:
        return rows.astype(np.int8) if flags else rows
    size = () if column.ndim == 1 else episode.actions.shape[1:]
    shape = (episode.length + column.extra, *size)
    return np.full(shape, -1, np.int8) if flags else np.full(shape, np.nan)


def _known(rows: np.ndarray, column: Column) -> np.ndarray | None:
    """Return the rows of an episode, or None where they stand for not recorded."""
    if column.dtype is np.bool_:
        return rows > 0 if (rows >= 0).all() else None
    return None if np.isnan(rows).all() else rows


def _text(arrays: Mapping[str, np.ndarray], name: str, index: int) -> str:
    return str(arrays[name][index]) if name in arrays else ""
