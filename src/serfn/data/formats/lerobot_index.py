"""The index of a LeRobotDataset: what it says about its features, tasks and episodes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from serfn.core.errors import DataError
from serfn.data.formats import lerobot_layout as layout
from serfn.data.mapping import Field


@dataclass(frozen=True)
class Info:
    """What `info.json` says.

    Args:
        fps: Frames, and control steps, per second.
        fields: Features, without depth maps.
        data_path: Template of the paths of data files.
        video_path: Template of the paths of videos.
        total_episodes: Number of episodes.
    """

    fps: float
    fields: Mapping[str, Field]
    data_path: str
    video_path: str | None
    total_episodes: int

    @classmethod
    def load(cls, root: Path) -> Info:
        """Read it.

        Raises:
            DataError: Another version, or a rate that is not positive.
        """
        raw = json.loads((root / layout.INFO).read_text(encoding="utf-8"))
        version = str(raw.get("codebase_version"))
        if not version.startswith("v3."):
            raise DataError(
                f"'{root}' is a LeRobotDataset of version {version}; only v3.0 is read, convert it with "
                "LeRobot's own script convert_dataset_v21_to_v30"
            )
        fps = float(raw["fps"])
        if not (0 < fps < math.inf):
            raise DataError(f"'{root / layout.INFO}' says fps {raw['fps']}; it must be positive")
        fields = {
            name: Field(name, str(item["dtype"]), _shape(item), _names(item))
            for name, item in raw["features"].items()
            if not (item.get("info") or {}).get("is_depth_map")
        }
        return cls(
            fps=fps,
            fields=fields,
            data_path=str(raw.get("data_path", layout.DATA_PATH)),
            video_path=raw.get("video_path"),
            total_episodes=int(raw["total_episodes"]),
        )


def _names(item: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a vector's numbers; LeRobot keeps them as a list, or as lists by kind."""
    names = item.get("names")
    if isinstance(names, dict):
        names = [name for group in names.values() if isinstance(group, list) for name in group]
    shape = tuple(item["shape"])
    if not isinstance(names, list) or len(shape) != 1 or len(names) != shape[0]:
        return ()
    return tuple(map(str, names))


def _shape(item: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of a feature; that of a camera as height, width and channels, whatever its order."""
    shape = tuple(int(size) for size in item["shape"])
    names = item.get("names")
    channels_first = isinstance(names, list) and bool(names) and str(names[0]).startswith("channel")
    if item["dtype"] in ("image", "video") and len(shape) == 3 and channels_first:
        return (shape[1], shape[2], shape[0])
    return shape


def read_tasks(path: Path) -> dict[int, str]:
    """Return the instructions by number; the column of their text is pandas' index, whatever its name.

    Raises:
        DataError: There are other columns.
    """
    table = pq.read_table(path)
    names = [name for name in table.column_names if name != "task_index"]
    if len(names) != 1:
        raise DataError(f"'{path}' has the columns {table.column_names}; expected task_index and task")
    numbers = table.column("task_index").to_pylist()
    return {
        int(number): str(text)
        for number, text in zip(numbers, table.column(names[0]).to_pylist(), strict=True)
    }


def read_episode_rows(root: Path, info: Info) -> list[dict[str, Any]]:
    """Return the rows of all episodes without statistics, ordered.

    Raises:
        DataError: They contradict themselves or `info`.
    """
    files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    rows: list[dict[str, Any]] = []
    for file in files:
        names = [name for name in pq.read_schema(file).names if not name.startswith("stats/")]
        rows += pq.read_table(file, columns=names).to_pylist()
    rows.sort(key=lambda row: row["episode_index"])
    indices = [row["episode_index"] for row in rows]
    if not rows or len(rows) != info.total_episodes or indices != list(range(len(rows))):
        raise DataError(
            f"'{root}' lists {len(rows)} episodes in meta/episodes, its info.json {info.total_episodes}; "
            "they must be numbered from 0"
        )
    for row in rows:
        if row["dataset_to_index"] - row["dataset_from_index"] != row["length"] or row["length"] < 1:
            raise DataError(
                f"'{root}': episode {row['episode_index']} has length {row['length']} but frames "
                f"{row['dataset_from_index']} to {row['dataset_to_index']}"
            )
    return rows
