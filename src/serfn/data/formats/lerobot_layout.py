"""Where a LeRobotDataset v3.0 keeps what, and how its features are described; shared by reader and writer.

Layout::

    meta/info.json                                  rate, features, paths
    meta/stats.json                                 statistics of every feature
    meta/tasks.parquet                              instructions, numbered
    meta/episodes/chunk-000/file-000.parquet        one row per episode
    data/chunk-000/file-000.parquet                 one row per frame
    videos/{video_key}/chunk-000/file-000.mp4       frames of many episodes, one after the other
    serfn/episodes.parquet, serfn/dataset.json      ours: what LeRobot has no place for, and ignores

The last folder holds the terminal observation, how an episode ended, proposed actions, chunk boundaries and
timestamps as measured; see `serfn.data.formats.lerobot_extras`.

Reference: the loader and writer of LeRobot 0.6.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
EPISODES_PATH = f"meta/episodes/{PLACE}.parquet"
DATA_PATH = f"data/{PLACE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{PLACE}.mp4"
EXTRAS = "serfn/episodes.parquet"
EXTRAS_INFO = "serfn/dataset.json"

STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
CAMERA = "observation.images."
ACTION = "action"
REWARD = "next.reward"
DONE = "next.done"
TRUNCATED = "next.truncated"
SUCCESS = "next.success"
INTERVENTION = "complementary_info.is_intervention"
INTERVENTIONS = ("intervention", "is_intervention", INTERVENTION)
"""Names under which interventions appear."""

AUTOMATIC = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""Columns of every data set, and their dtypes."""

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How Hugging Face's `datasets` keeps an image in a column."""


def feature(dtype: str, shape: tuple[int, ...], names: list[str] | None = None) -> dict[str, Any]:
    """Return the description of one feature."""
    return {"dtype": dtype, "shape": list(shape), "names": names}


def column_type(description: dict[str, Any]) -> pa.DataType:
    """Return the Arrow type of a feature's column; a feature of shape (1,) is a scalar."""
    if description["dtype"] == "image":
        return IMAGE_TYPE
    scalar = pa.from_numpy_dtype(description["dtype"])
    size = description["shape"][0]
    return scalar if size == 1 else pa.list_(scalar, size)


def datasets_type(description: dict[str, Any]) -> dict[str, Any]:
    """Return a feature as Hugging Face's `datasets` describes it in a file; its viewer then shows images."""
    if description["dtype"] == "image":
        return {"_type": "Image"}
    value = {"dtype": description["dtype"], "_type": "Value"}
    size = description["shape"][0]
    return value if size == 1 else {"feature": value, "length": size, "_type": "Sequence"}
