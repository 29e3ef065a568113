"""The optional arrays of an NPZ file: what a robot records beyond observations, actions and rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serfn.core.errors import DataError
from serfn.data.episode import Episode

IMAGE = "image_"
TEXTS = ("task", "success_source")
"""Arrays that hold text."""


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
    if any(episode.proposed_actions is not None for episode in episodes):
        arrays["proposed_actions"] = np.concatenate(
            [_or_filled(episode.proposed_actions, episode.actions.shape, np.nan) for episode in episodes]
        )
    if any(episode.interventions is not None for episode in episodes):
        arrays["interventions"] = np.concatenate(
            [_or_filled(episode.interventions, (episode.length,), -1).astype(np.int8) for episode in episodes]
        )
    if any(episode.timestamps_s is not None for episode in episodes):
        arrays["timestamps_s"] = np.concatenate(
            [_or_filled(episode.timestamps_s, (episode.length + 1,), np.nan) for episode in episodes]
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
    rows = {"proposed_actions": steps, "interventions": steps, "timestamps_s": steps + episodes}
    rows |= {name: episodes for name in (*TEXTS, "interrupted")}
    rows |= {name: steps + episodes for name in arrays if name.startswith(IMAGE)}
    for name, expected in rows.items():
        if name in arrays and (arrays[name].ndim == 0 or len(arrays[name]) != expected):
            raise DataError(f"{name} has shape {arrays[name].shape}; expected {expected} rows")
    extras: list[dict[str, Any]] = []
    for index, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        seen = slice(start + index, end + index + 1)
        values = {
            "task": _text(arrays, "task", index),
            "success_source": _text(arrays, "success_source", index) or None,
            "interrupted": bool(arrays["interrupted"][index]) if "interrupted" in arrays else False,
            "proposed_actions": _known(arrays.get("proposed_actions"), slice(start, end)),
            "timestamps_s": _known(arrays.get("timestamps_s"), seen),
            "images": {
                name.removeprefix(IMAGE): array[seen]
                for name, array in arrays.items()
                if name.startswith(IMAGE)
            },
        }
        acted = arrays.get("interventions")
        if acted is not None and (acted[start:end] >= 0).all():
            values["interventions"] = acted[start:end] > 0
        extras.append(values)
    return extras


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


def _or_filled(values: np.ndarray | None, shape: tuple[int, ...], missing: float) -> np.ndarray:
    return np.full(shape, missing) if values is None else values


def _known(values: np.ndarray | None, rows: slice) -> np.ndarray | None:
    """Return the rows of an episode, or None where all of them are NaN, which stands for not recorded."""
    if values is None or np.isnan(values[rows]).all():
        return None
    return values[rows]


def _text(arrays: Mapping[str, np.ndarray], name: str, index: int) -> str:
    return str(arrays[name][index]) if name in arrays else ""
