"""What an episode knows and LeRobot has no place for, kept beside its data set in one row per episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serfn.core.errors import DataError
from serfn.data.episode import EPISODE_COLUMNS, EPISODE_VALUES, Episode, episode_values
from serfn.data.formats.images import decode_image
from serfn.data.source import understood
from serfn.data.store.png import encode_png

VERSION = 1

_ITS_OWN = ("observations", "actions", "rewards", "task")
"""What LeRobot keeps by itself."""

_TYPES = {
    "terminated": pa.bool_(),
    "truncated": pa.bool_(),
    "interrupted": pa.bool_(),
    "success": pa.bool_(),
    "success_source": pa.string(),
    "seed": pa.int64(),
    "policy_version": pa.int64(),
    "metrics": pa.map_(pa.string(), pa.float64()),
}
VALUES = tuple(name for name in EPISODE_VALUES if name not in _ITS_OWN)
"""Values of a whole episode that are kept beside the data set."""
COLUMNS = {name: column for name, column in EPISODE_COLUMNS.items() if name not in _ITS_OWN}
"""Arrays of an episode that are kept beside the data set."""

SCHEMA = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("length", pa.int64()),
        *((name, _TYPES[name]) for name in VALUES),
        *((name, pa.list_(pa.from_numpy_dtype(column.dtype))) for name, column in COLUMNS.items()),
        ("terminal_observation", pa.list_(pa.float32())),
        ("terminal_images", pa.map_(pa.string(), pa.binary())),
    ]
)


def to_table(index: int, episode: Episode) -> pa.Table:
    """Return the row of episode number `index`; terminal images are PNG.

    Raises:
        DataError: A seed or version does not fit 64 bits.
    """
    values = episode_values(episode)
    arrays = {name: getattr(episode, name) for name in COLUMNS}
    row = {
        "episode_index": index,
        "length": episode.length,
        **{name: values[name] for name in VALUES},
        "metrics": list(values["metrics"].items()),
        **{name: None if array is None else array.ravel() for name, array in arrays.items()},
        "terminal_observation": episode.observations[-1],
        "terminal_images": [(name, encode_png(images[-1])) for name, images in episode.images.items()],
    }
    try:
        return pa.Table.from_pylist([row], schema=SCHEMA)
    except (OverflowError, pa.ArrowException, ValueError) as error:
        raise DataError(f"episode {index} cannot be stored: {error}; correct its values") from error


@dataclass(frozen=True, eq=False)
class Extras:
    """The extra rows of a data set, read one at a time.

    Args:
        path: The file.
        file: The file, opened; it has one row group per episode.
    """

    path: Path
    file: pq.ParquetFile

    @classmethod
    def open(cls, path: Path, episodes: int) -> Extras:
        """Open the file of a data set with so many episodes.

        Raises:
            DataError: The file cannot be read or belongs to another number of episodes.
        """
        with understood(f"'{path}'", pa.ArrowException):
            file = pq.ParquetFile(path, page_checksum_verification=True)
            groups, names = file.num_row_groups, file.schema_arrow.names
        missing = [name for name in SCHEMA.names if name not in names]
        if missing or groups != episodes:
            raise DataError(
                f"'{path}' describes {groups} episodes and lacks {missing or 'nothing'}, the data set has "
                f"{episodes}; it was changed by another tool, delete the folder 'serfn' to read it without"
            )
        return cls(path, file)

    def row(self, index: int, length: int) -> dict[str, Any]:
        """Return the row of episode number `index` of `length` steps as a mapping.

        Raises:
            DataError: The row cannot be read or describes another episode.
        """
        with understood(f"'{self.path}'", pa.ArrowException):
            row = self.file.read_row_group(index, columns=SCHEMA.names).to_pylist()[0]
        if (row["episode_index"], row["length"]) != (index, length):
            raise DataError(
                f"'{self.path}' describes episode {row['episode_index']} of {row['length']} steps, the data "
                f"set has episode {index} of {length}; it was changed by another tool, delete the folder "
                "'serfn' to read it without"
            )
        return row


def episode_arguments(row: Mapping[str, Any], actions: np.ndarray) -> dict[str, Any]:
    """Return what a row says as arguments of `Episode`, whose `actions` are `[T, action]`."""
    arguments = {name: row[name] for name in (*VALUES, *COLUMNS)}
    arguments["metrics"] = dict(row["metrics"] or ())
    for name, column in COLUMNS.items():
        if column.ndim == 2 and row[name] is not None:
            arguments[name] = np.asarray(row[name], column.dtype).reshape(actions.shape)
    return arguments


def terminal_image(row: Mapping[str, Any], camera: str, like: np.ndarray) -> np.ndarray:
    """Return the terminal image of a camera `[1, height, width, channels]`, or repeat the last of `like`."""
    stored = dict(row["terminal_images"] or ())
    return like[-1:] if camera not in stored else decode_image(stored[camera], like.shape[1:])[None]
