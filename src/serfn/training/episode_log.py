"""Where a session keeps its online episodes, to read them back on a resume.

A session of its own writes one safetensors file per round, which needs nothing beyond what the learner needs;
`runs` gives it the experience store of the run instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from serfn.core.errors import CheckpointError, DataError
from serfn.core.files import whole_file
from serfn.data.episode import Episode
from serfn.data.episode_bytes import decode_episodes, encode_episodes


class EpisodeLog(Protocol):
    """Keeps the online episodes of a run, in the order of their collection."""

    def keep(self, index: int, episodes: Sequence[Episode]) -> object:
        """Make the episodes of round `index` durable, before anything is learnt from them."""
        ...

    def load(self, rounds: int, episodes: int) -> Sequence[Episode]:
        """Return those of the first `episodes` episodes (`rounds` rounds) that ended, or raise.

        Raises:
            CheckpointError: One is missing.
        """
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
    path = _path(folder, index)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_bytes(encode_episodes(episodes))
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
            episodes += decode_episodes(path.read_bytes())
        except (OSError, DataError) as error:
            raise CheckpointError(f"episodes '{path}' cannot be read: {error}; restore the file") from error
    return episodes


def _path(folder: Path, index: int) -> Path:
    return folder / f"round_{index:05d}.safetensors"
