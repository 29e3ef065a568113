"""Writing a LeRobotDataset v3.0; its layout is described by `serfn.data.formats.lerobot_layout`.

One row group per episode in the data files, images as PNG inside them or as H.264 videos of many episodes,
statistics per episode and of the whole. A data set appears whole or not at all, and is written episode by
episode: memory holds one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serfn.core.errors import ConfigError, DataError
from serfn.core.files import flush_to_disk, unused_path
from serfn.core.spec import ActionSpec
from serfn.data.episode import Episode
from serfn.data.formats import lerobot_extras, lerobot_stats
from serfn.data.formats import lerobot_layout as layout
from serfn.data.formats.images import as_fraction, as_number
from serfn.data.formats.lerobot_files import Places, Tables, Videos
from serfn.data.store.png import encode_png

_MB = 1 << 20


@dataclass(frozen=True)
class LeRobotOptions:
    """How to write a LeRobotDataset.

    Args:
        fps: Control steps per second.
        images: `png` keeps images exactly, inside the data files; `video` is small and slightly lossy.
        robot_type: Name of the robot, or None.
        data_mb: Size in MiB from which a new data file is begun.
        video_mb: Size in MiB from which a new video file is begun.
        files_per_chunk: Files in one folder.

    Raises:
        ConfigError: A number is not positive.
    """

    fps: float
    images: Literal["png", "video"] = "png"
    robot_type: str | None = None
    data_mb: float = 100
    video_mb: float = 200
    files_per_chunk: int = 1000

    def __post_init__(self) -> None:
        for name in ("fps", "data_mb", "video_mb", "files_per_chunk"):
            if not (0 < getattr(self, name) < float("inf")):
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be a positive number")
        if as_fraction(self.fps) == 0:
            raise ConfigError(f"fps is {self.fps}; videos need more than one frame in 1000 s")


def write_lerobot(
    path: str | Path,
    episodes: Iterable[Episode],
    options: LeRobotOptions,
    action_spec: ActionSpec | None = None,
    written: Callable[[Episode], None] | None = None,
) -> int:
    """Write episodes as a new LeRobotDataset.

    Args:
        path: Folder to make; its parent must exist.
        episodes: At least one episode; all of the same sizes and cameras. Consumed one at a time.
        options: How to write.
        action_spec: Bounds of the actions, kept beside the data set; its names become those of the actions.
        written: Called after each episode.

    Returns:
        Number of episodes.

    Raises:
        ConfigError: The folder exists, or PyAV is missing.
        DataError: There are no episodes, they differ in size, or an image or name cannot be stored.
    """
    path = Path(path)
    if path.exists():
        raise ConfigError(f"'{path}' already exists; choose another folder")
    temporary = unused_path(path)
    writer: _Writer | None = None
    try:
        for episode in episodes:
            writer = writer or _Writer(temporary, episode, options, action_spec)
            writer.write(episode)
            if written is not None:
                written(episode)
        if writer is None:
            raise DataError(f"'{path}': nothing to write; give at least one episode")
        writer.finish()
        temporary.rename(path)
        flush_to_disk(path.parent)
    except BaseException:
        if writer is not None:
            with suppress(OSError, ValueError):
                writer.abandon()
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return writer.episodes


class _Writer:
    """A data set in the making, with the features of its first episode."""

    def __init__(
        self, root: Path, first: Episode, options: LeRobotOptions, action_spec: ActionSpec | None
    ) -> None:
        self._root, self._options, self._action_spec = root, options, action_spec
        # The rate that a video has exactly; timestamps must not drift away from its frames.
        self._fps = float(as_fraction(options.fps))
        self.features = _features(first, options, action_spec)
        self.episodes = self._frames = 0
        self._tasks: dict[str, int] = {}
        self._stats: dict[str, lerobot_stats.FeatureStats] = {}
        self._schema = _data_schema(self.features)
        root.mkdir()
        self._data = Tables(root, layout.DATA_PATH, self._places(options.data_mb))
        self._rows = Tables(root, layout.EPISODES_PATH, self._places(options.data_mb))
        extras = root / layout.EXTRAS
        extras.parent.mkdir()
        self._extras = pq.ParquetWriter(
            extras, lerobot_extras.SCHEMA, compression="snappy", write_page_checksum=True
        )
        self._videos = {
            key: Videos(root, key, self._fps, self._places(options.video_mb))
            for key, description in self.features.items()
            if description["dtype"] == "video"
        }

    def write(self, episode: Episode) -> None:
        index = self.episodes
        if (found := _features(episode, self._options, self._action_spec)) != self.features:
            raise DataError(
                f"episode {index} has {_sizes(found)}; the first one has {_sizes(self.features)}; "
                "write episodes of one task and robot"
            )
        task = self._tasks.setdefault(episode.task, len(self._tasks))
        columns = self._columns(episode, task)
        images = {f"{layout.CAMERA}{name}": array[:-1] for name, array in episode.images.items()}
        stats = {name: lerobot_stats.vector_stats(values) for name, values in columns.items()}
        stats |= {key: lerobot_stats.image_stats(array) for key, array in images.items()}
        place = self._data.place(self._schema)
        row: dict[str, Any] = {
            "episode_index": index,
            "tasks": [episode.task],
            "length": episode.length,
            "data/chunk_index": place.chunk,
            "data/file_index": place.file,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + episode.length,
        }
        self._data.write(self._table(columns, images))
        for key, videos in self._videos.items():
            row |= videos.write(images[key])
        self._extras.write_table(lerobot_extras.to_table(index, episode))
        self._write_row(row, stats)
        self._stats = lerobot_stats.merged(self._stats, stats) if self._stats else stats
        self.episodes += 1
        self._frames += episode.length

    def finish(self) -> None:
        """Write what is known only at the end, and flush everything to disk."""
        self.abandon()
        _write_tasks(self._root / layout.TASKS, list(self._tasks))
        for key, videos in self._videos.items():
            self.features[key]["info"] = videos.info
        stats = {
            name: {part: value.tolist() for part, value in parts.items()}
            for name, parts in self._stats.items()
        }
        spec = None if self._action_spec is None else self._action_spec.to_dict()
        extras = {"version": lerobot_extras.VERSION, "action_spec": spec}
        for name, content in (
            (layout.STATS, stats),
            (layout.EXTRAS_INFO, extras),
            (layout.INFO, self._info()),
        ):
            text = json.dumps(content, indent=4, ensure_ascii=False)
            (self._root / name).write_text(text, encoding="utf-8")
        for file in self._root.rglob("*"):
            flush_to_disk(file)

    def abandon(self) -> None:
        """Close all files as they are."""
        self._data.close()
        self._rows.close()
        self._extras.close()
        for videos in self._videos.values():
            videos.close()

    def _places(self, limit_mb: float) -> Places:
        return Places(self._options.files_per_chunk, limit_mb * _MB)

    def _columns(self, episode: Episode, task: int) -> dict[str, np.ndarray]:
        """Return the numbers of every frame by feature."""
        steps = episode.length
        last = np.arange(steps) == steps - 1
        acted = np.zeros(steps, bool) if episode.interventions is None else episode.interventions
        return {
            layout.STATE: episode.observations[:-1],
            layout.ACTION: episode.actions,
            layout.REWARD: episode.rewards,
            layout.DONE: last,
            layout.TRUNCATED: last & (not episode.terminated),
            layout.SUCCESS: last & (episode.success is True),
            layout.INTERVENTION: acted,
            "timestamp": (np.arange(steps) / self._fps).astype(np.float32),
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, self.episodes),
            "index": np.arange(self._frames, self._frames + steps),
            "task_index": np.full(steps, task),
        }

    def _table(self, columns: dict[str, np.ndarray], images: dict[str, np.ndarray]) -> pa.Table:
        arrays = []
        for name in self._schema.names:
            kind = self._schema.field(name).type
            if name in images:
                pngs = [
                    {"bytes": encode_png(image), "path": f"frame-{number:06d}.png"}
                    for number, image in enumerate(images[name])
                ]
                arrays.append(pa.array(pngs, kind))
            elif pa.types.is_fixed_size_list(kind):
                flat = pa.array(columns[name].ravel(), kind.value_type)
                arrays.append(pa.FixedSizeListArray.from_arrays(flat, kind.list_size))
            else:
                arrays.append(pa.array(columns[name].reshape(-1), kind))
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def _write_row(self, row: dict[str, Any], stats: dict[str, lerobot_stats.FeatureStats]) -> None:
        row |= {
            f"stats/{name}/{part}": value.tolist()
            for name, parts in stats.items()
            for part, value in parts.items()
        }
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        place = self._rows.place(pa.Table.from_pylist([row]).schema)
        row |= {"meta/episodes/chunk_index": place.chunk, "meta/episodes/file_index": place.file}
        self._rows.write(pa.Table.from_pylist([row]))

    def _info(self) -> dict[str, Any]:
        options = self._options
        return {
            "codebase_version": "v3.0",
            "fps": as_number(self._fps),
            "features": self.features,
            "total_episodes": self.episodes,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": options.files_per_chunk,
            "data_files_size_in_mb": max(1, round(options.data_mb)),
            "video_files_size_in_mb": max(1, round(options.video_mb)),
            "data_path": layout.DATA_PATH,
            "video_path": layout.VIDEO_PATH if self._videos else None,
            "robot_type": options.robot_type,
            "splits": {"train": f"0:{self.episodes}"},
        }


def _features(
    episode: Episode, options: LeRobotOptions, action_spec: ActionSpec | None
) -> dict[str, dict[str, Any]]:
    """Return the features of an episode in the order of the columns."""
    names = list(action_spec.names) or None if action_spec else None
    features = {
        layout.STATE: layout.feature("float32", episode.observations.shape[1:]),
        layout.ACTION: layout.feature("float32", episode.actions.shape[1:], names),
        layout.REWARD: layout.feature("float32", (1,)),
    }
    for name in (layout.DONE, layout.TRUNCATED, layout.SUCCESS, layout.INTERVENTION):
        features[name] = layout.feature("bool", (1,))
    for camera, images in episode.images.items():
        shape = images.shape[1:]
        dtype = "image" if options.images == "png" else "video"
        if shape[2] not in (1, 3):
            raise DataError(f"camera '{camera}' has {shape[2]} channels; LeRobot knows 1 and 3")
        features[layout.CAMERA + _checked(camera)] = layout.feature(
            dtype, shape, ["height", "width", "channels"]
        )
    return features | {name: layout.feature(dtype, (1,)) for name, dtype in layout.AUTOMATIC.items()}


def _checked(camera: str) -> str:
    """Return the name of a camera that can be part of a feature and of a folder."""
    if "/" in camera or not camera.isprintable() or len(camera.encode("utf-8", "replace")) > 200:
        raise DataError(f"camera name {camera!r} cannot be part of a LeRobot feature; rename it without '/'")
    return camera


def _sizes(features: dict[str, dict[str, Any]]) -> str:
    return ", ".join(
        f"{name} {description['shape']}"
        for name, description in features.items()
        if name not in layout.AUTOMATIC
    )


def _data_schema(features: dict[str, dict[str, Any]]) -> pa.Schema:
    stored = {name: description for name, description in features.items() if description["dtype"] != "video"}
    described = {"info": {"features": {name: layout.datasets_type(item) for name, item in stored.items()}}}
    return pa.schema(
        [(name, layout.column_type(item)) for name, item in stored.items()],
        metadata={"huggingface": json.dumps(described)},
    )


def _write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """Write the tasks so that pandas reads them as its index, by the metadata that it leaves in a file."""

    def column(name: str | None, pandas: str, numpy: str) -> dict[str, Any]:
        return {
            "name": name,
            "field_name": name,
            "pandas_type": pandas,
            "numpy_type": numpy,
            "metadata": None,
        }

    described = {
        "index_columns": ["task"],
        "column_indexes": [column(None, "unicode", "object") | {"metadata": {"encoding": "UTF-8"}}],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    schema = pa.schema(
        [("task_index", pa.int64()), ("task", pa.string())], metadata={"pandas": json.dumps(described)}
    )
    pq.write_table(pa.table([list(range(len(tasks))), list(tasks)], schema=schema), path)
