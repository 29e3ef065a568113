"""A data format: one CSV file, a row a step; columns `episode`, `obs.*`, `action.*`, `reward`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from serfn.core.errors import DataError
from serfn.data.datasets import DataFormat
from serfn.data.episode import Episode
from serfn.data.mapping import GUESS_ALL, NameMapping
from serfn.data.source import EpisodeSource


def holds(path: Path) -> bool:
    """Return whether a path is such a file."""
    return path.suffix == ".csv"


def open_csv(path: str | Path, mapping: NameMapping = GUESS_ALL) -> EpisodeSource:
    """Open a file; the last row of each episode is what was observed after its last step.

    Raises:
        DataError: A column is missing, or a value is no number.
    """
    path = Path(path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    obs, actions = ([name for name in names if name.startswith(part)] for part in ("obs.", "action."))
    if not (obs and actions and "episode" in names and "reward" in names):
        raise DataError(f"'{path}' has columns {names}; it needs episode, obs.*, action.* and reward")
    episodes = [list(group) for _, group in groupby(rows, key=lambda row: row["episode"])]

    def read() -> Iterator[Episode]:
        for steps in episodes:
            try:
                yield Episode(
                    observations=np.array([[row[name] for name in obs] for row in steps], np.float64),
                    actions=np.array([[row[name] for name in actions] for row in steps[:-1]], np.float64),
                    rewards=np.array([row["reward"] for row in steps[:-1]], np.float64),
                    terminated=False,
                    truncated=True,
                    chunk_starts=np.ones(len(steps) - 1, np.bool_),
                )
            except ValueError as error:
                raise DataError(f"'{path}': {error}; correct the file") from error

    return EpisodeSource(path, "mylab-csv", len(episodes), read, f"observations {obs}, actions {actions}")


CSV = DataFormat(holds, open_csv)
