"""Where a session keeps its online episodes, to read them back on a resume.

A session of its own writes one safetensors file per round, which needs nothing beyond what the learner needs;
`runtime` gives it the experience store of the run instead.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from serfn.core.errors import CheckpointError
from serfn.core.files import whole_file
from serfn.data.episode import Episode

_ARRAYS = ("observations", "actions", "rewards", "chunk_starts")
_VALUES = ("terminated", "truncated", "success", "seed", "policy_version", "metrics")


class EpisodeLog(Protocol):
    """Keeps the online episodes of a run, in the order of their collection."""

    def keep(self, index: int, episodes: Sequence[Episode]) -> object:
        """Make the episodes of round `index` durable, before anything is learnt from them."""
        ...

    def load(self, rounds: int, episodes: int) -> Sequence[Episode]:
        """Return all `episodes` of the first `rounds` rounds, or raise `CheckpointError`."""
        ...


class RoundFiles:
    """An `EpisodeLog` of one file per round.

    Args:
        folder: Folder of the files; made on the first round.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, index: int, episodes: Sequence[Episode]) -> Path:
        """See `save_round`."""
        return save_round(self._folder, index, episodes)

    def load(self, rounds: int, episodes: int) -> list[Episode]:
        """See `load_rounds`."""
        return load_rounds(self._folder, rounds)


def save_round(folder: Path, index: int, episodes: Sequence[Episode]) -> Path:
    """Write the episodes of one round atomically, replacing an earlier file of that round.

    Raises:
        CheckpointError: The file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    values = []
    for number, episode in enumerate(episodes):
        arrays |= {f"{number}/{name}": getattr(episode, name) for name in _ARRAYS}
        values.append({name: getattr(episode, name) for name in _VALUES})
    path = _path(folder, index)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_bytes(save(arrays, metadata={"episodes": json.dumps(values, default=dict)}))
    except OSError as error:
        raise CheckpointError(
            f"cannot write episodes to '{path}': {error}; check space and permissions"
        ) from error
    return path


def load_rounds(folder: Path, rounds: int) -> list[Episode]:
    """Read the episodes of the first `rounds` rounds, in order.

    Raises:
        CheckpointError: A round is missing or damaged.
    """
    episodes: list[Episode] = []
    for index in range(rounds):
        path = _path(folder, index)
        try:
            with safe_open(path, framework="numpy") as file:
                values = json.loads((file.metadata() or {})["episodes"])
                episodes += [
                    Episode(**{name: file.get_tensor(f"{number}/{name}") for name in _ARRAYS}, **value)
                    for number, value in enumerate(values)
                ]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"episodes '{path}' cannot be read: {error}; restore the file") from error
    return episodes


def _path(folder: Path, index: int) -> Path:
    return folder / f"round_{index:05d}.safetensors"
