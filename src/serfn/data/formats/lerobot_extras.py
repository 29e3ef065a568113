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
from serfn.data.episode import Episode
from serfn.data.formats.images import decode_image
from serfn.data.source import understood
from serfn.data.store.png import encode_png

VERSION = 1

SCHEMA = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("length", pa.int64()),
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
        ("interrupted", pa.bool_()),
        ("success", pa.bool_()),
        ("success_source", pa.string()),
        ("seed", pa.int64()),
        ("policy_version", pa.int64()),
        ("metrics", pa.map_(pa.string(), pa.float64())),
        ("chunk_starts", pa.list_(pa.bool_())),
        ("interventions", pa.list_(pa.bool_())),
        ("proposed_actions", pa.list_(pa.float32())),
        ("timestamps_s", pa.list_(pa.float64())),
        ("terminal_observation", pa.list_(pa.float32())),
        ("terminal_images", pa.map_(pa.string(), pa.binary())),
    ]
)


def to_table(index: int, episode: Episode) -> pa.Table:
    """Return the row of episode number `index`; terminal images are PNG.

    Raises:
        DataError: A seed or version does not fit 64 bits.
    """
    row = {
        "episode_index": index,
        "length": episode.length,
        "terminated": bool(episode.terminated),
        "truncated": bool(episode.truncated),
        "interrupted": episode.interrupted,
        "success": episode.success,
        "success_source": episode.success_source,
        "seed": episode.seed,
        "policy_version": episode.policy_version,
        "metrics": [(name, float(value)) for name, value in episode.metrics.items()],
        "chunk_starts": episode.chunk_starts,
        "interventions": episode.interventions,
        "proposed_actions": None if episode.proposed_actions is None else episode.proposed_actions.ravel(),
        "timestamps_s": episode.timestamps_s,
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


def terminal_image(row: Mapping[str, Any], camera: str, like: np.ndarray) -> np.ndarray:
    """Return the terminal image of a camera `[1, height, width, channels]`, or repeat the last of `like`."""
    stored = dict(row["terminal_images"] or ())
    return like[-1:] if camera not in stored else decode_image(stored[camera], like.shape[1:])[None]
