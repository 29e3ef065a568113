"""What a run learns from: identified by its content, found by a path that is only a hint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from serfn.core.errors import CheckpointError, DataError
from serfn.core.files import write_atomically
from serfn.core.spec import TaskSpec
from serfn.data.demonstrations import Demonstrations
from serfn.data.episode import Episode
from serfn.runs.demonstrations import read_demonstrations
from serfn.training.config import TrainConfig

INPUTS = "inputs.json"
"""File of a run folder: the demonstrations that it learns from."""


@dataclass(frozen=True)
class Inputs:
    """Demonstrations of a run.

    Attributes:
        fingerprint: Of their content, see `fingerprint`.
        path: Where they lay when the run saw them last, absolute.
        beside: The same place, seen from the run folder: what holds when both are moved together.
    """

    fingerprint: str
    path: str
    beside: str


def fingerprint(episodes: Sequence[Episode]) -> str:
    """Return a short hash of what is learnt from `episodes`."""
    digest = hashlib.blake2b(digest_size=8)
    for episode in episodes:
        for array in (episode.observations, episode.actions, episode.rewards):
            digest.update(repr(array.shape).encode())
            digest.update(array.data)
        digest.update(repr((episode.terminated, episode.success)).encode())
    return digest.hexdigest()


def write_inputs(folder: Path, path: Path, episodes: Sequence[Episode]) -> None:
    """Keep in a run folder what it learns from and where that lies."""
    place = path.resolve()
    inputs = Inputs(fingerprint(episodes), str(place), os.path.relpath(place, folder.resolve()))
    write_atomically(folder / INPUTS, json.dumps(asdict(inputs), indent=1))


def read_inputs(folder: Path) -> Inputs | None:
    """Return what `write_inputs` kept; None if there is nothing.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / INPUTS
    if not path.is_file():
        return None
    try:
        return Inputs(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"'{path}' is damaged: {error}; delete it and name the data with --demos") from error


def places(hint: Path, folder: Path) -> list[Path]:
    """Return the existing places where the demonstrations of the run in `folder` may lie, likeliest first."""
    known = read_inputs(folder)
    guesses = [hint, folder / hint]
    if known is not None:
        guesses += [Path(known.path), folder / known.beside]
    found: dict[Path, Path] = {}
    for path in guesses:
        if path.exists():
            found.setdefault(path.resolve(), path)
    return list(found.values())


def demonstrations_of_run(
    config: TrainConfig, hint: Path, folder: Path, task: TaskSpec, *, rate_known: bool = True
) -> tuple[Demonstrations, Path]:
    """Read the demonstrations of a run that goes on, wherever they lie now.

    Args:
        config: Configuration of the run.
        hint: Where they are said to lie; what lies there must be theirs.
        folder: Folder of the run.
        task: Task that they must fit.
        rate_known: See `read_demonstrations`.

    Returns:
        The demonstrations and their place.

    Raises:
        CheckpointError: Other demonstrations lie at `hint`.
        DataError: They are nowhere, or cannot be read.
    """
    known = read_inputs(folder)
    for place in places(hint, folder):
        found = read_demonstrations(config, place, task, rate_known=rate_known)
        content = fingerprint(found.episodes)
        if known is None or content == known.fingerprint:
            return found, place
        if place == hint:
            raise CheckpointError(
                f"the demonstrations have changed since the checkpoint in '{folder}': '{hint}' has the "
                f"fingerprint {content}, the run's {known.fingerprint}; resume with the ones of the run, or "
                "choose a new run folder"
            )
    where = f"'{hint}'" if known is None else f"'{hint}' or '{known.path}'"
    raise DataError(
        f"the demonstrations of '{folder}' do not exist in {where}; name their place with --demos: any copy "
        "of the same content will do"
    )
