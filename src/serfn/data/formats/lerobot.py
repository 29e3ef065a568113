"""Reading a LeRobotDataset v3.0; its layout is described by `serfn.data.formats.lerobot_layout`.

LeRobot keeps neither the observation after the last step nor the difference between termination and time
limit. What this package writes has both beside it; for the data of others, the last observation is repeated,
and the end is decided as `serfn.data.formats.outcome` says. Frames are read file by file; memory holds one
episode.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serfn.core.errors import ConfigError, DataError
from serfn.core.spec import ActionSpec
from serfn.data.episode import Episode
from serfn.data.formats import lerobot_layout as layout
from serfn.data.formats.images import decode_image, read_frames
from serfn.data.formats.lerobot_extras import VERSION, Extras, episode_arguments, terminal_image
from serfn.data.formats.lerobot_index import Info, read_episode_rows, read_tasks
from serfn.data.formats.parts import Guess, Parts, choose_parts
from serfn.data.mapping import GUESS_ALL, Field, NameMapping, listing
from serfn.data.source import EpisodeResult, EpisodeSource, examine, understood

_ROWS = 1024
_ROWS_WITH_IMAGES = 64


def open_lerobot(path: str | Path, mapping: NameMapping = GUESS_ALL) -> EpisodeSource:
    """Open a LeRobotDataset v3.0.

    Args:
        path: Its folder.
        mapping: Which features mean what. Guessed are: all vectors `observation.*` (the state first),
            `action`, all cameras, `next.reward`, `next.success`, `next.done` with `next.truncated`, and the
            three names of interventions.

    Raises:
        DataError: The data set cannot be read, is of another version, lacks a feature (those found are
            listed), or its index contradicts itself. Episodes raise it when they are read.
    """
    root = Path(path)
    with understood(f"LeRobotDataset '{root}'", pa.ArrowException):
        info = Info.load(root)
        tasks = read_tasks(root / layout.TASKS)
        rows = read_episode_rows(root, info)
        parts = _choose(info, mapping)
        spec = _check_extras(root, len(rows), parts)
    notes = parts.notes
    if not (root / layout.EXTRAS).is_file():
        notes += ("no terminal observations: the last observation of each episode is repeated",)
    reader = _Reader(root, info, tasks, rows, parts)
    return EpisodeSource(
        path=root,
        format="lerobot",
        count=len(rows),
        results=reader.episodes,
        content=listing(info.fields.values()),
        control_hz=info.fps,
        action_spec=spec,
        observation_names=parts.names(parts.observations),
        action_names=parts.names(parts.actions),
        guessed_order=parts.guessed_order,
        notes=notes,
    )


def _choose(info: Info, mapping: NameMapping) -> Parts:
    fields = {name: field for name, field in info.fields.items() if name not in layout.AUTOMATIC}
    vectors = sorted(
        (
            name
            for name, field in fields.items()
            if name.startswith("observation") and field.is_vector and len(field.shape) == 1
        ),
        key=lambda name: (name != layout.STATE, name != layout.ENVIRONMENT_STATE, name),
    )
    # `next.done` marks any end; only together with `next.truncated` does it say which one.
    tells_end = layout.TRUNCATED in fields or mapping.truncated is not None
    guess = Guess(
        observations=vectors,
        actions=[layout.ACTION],
        reward=[layout.REWARD],
        success=[layout.SUCCESS],
        terminated=[layout.DONE] if tells_end else [],
        truncated=[layout.TRUNCATED],
        intervention=layout.INTERVENTIONS,
    )
    return choose_parts(fields, mapping, guess)


def _check_extras(root: Path, episodes: int, parts: Parts) -> ActionSpec | None:
    """Check what lies beside the data set, if anything, and return the bounds of its actions."""
    path = root / layout.EXTRAS
    if not path.is_file():
        return None
    raw = json.loads((root / layout.EXTRAS_INFO).read_text(encoding="utf-8"))
    if raw.get("version") != VERSION:
        raise DataError(f"'{path}' has version {raw.get('version')}; this package reads {VERSION}")
    Extras.open(path, episodes).file.close()
    whole = [field.name for field in parts.actions] == [layout.ACTION]
    if not whole or raw["action_spec"] is None:
        return None
    try:
        return ActionSpec.from_dict(raw["action_spec"])
    except ConfigError as error:
        raise DataError(f"'{root / layout.EXTRAS_INFO}': {error}") from error


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads the episodes of a data set that was understood."""

    root: Path
    info: Info
    tasks: Mapping[int, str]
    rows: list[dict[str, Any]]
    parts: Parts

    def episodes(self) -> Iterator[EpisodeResult]:
        """Yield the episodes in order; a data file that cannot be read costs the episodes in it."""
        path = self.root / layout.EXTRAS
        with ExitStack() as stack:
            extras = Extras.open(path, len(self.rows)) if path.is_file() else None
            if extras is not None:
                stack.enter_context(extras.file)
            places = groupby(self.rows, lambda row: (row["data/chunk_index"], row["data/file_index"]))
            for (chunk, number), rows in places:
                file = self.root / self.info.data_path.format(chunk_index=chunk, file_index=number)
                yield from self._of_file(file, list(rows), extras)

    def _of_file(
        self, file: Path, rows: list[dict[str, Any]], extras: Extras | None
    ) -> Iterator[EpisodeResult]:
        tables = _Tables(self._tables(file))
        for row in rows:
            index = row["episode_index"]

            def read(row: dict[str, Any] = row, index: int = index) -> Episode:
                table = tables.of_row(row)
                beside = None if extras is None else extras.row(index, len(table))
                return self._episode(row, table, beside)

            yield examine(file, f"episode {index}", read, pa.ArrowException)

    def _tables(self, path: Path) -> Iterator[tuple[int, pa.Table]]:
        """Yield the frames of each episode of a file, which is read in batches."""
        columns = self._columns()
        images = any(camera.dtype != "video" for camera in self.parts.images)
        kept: list[pa.RecordBatch] = []
        current: int | None = None
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise DataError(f"it lacks {missing}; found {file.schema_arrow.names}")
            rows = _ROWS_WITH_IMAGES if images else _ROWS
            for batch in file.iter_batches(rows, columns=columns):
                for index, piece in _by_episode(batch):
                    if kept and index != current:
                        yield current or 0, pa.Table.from_batches(kept)
                        kept = []
                    current = index
                    kept.append(piece)
        if kept:
            yield current or 0, pa.Table.from_batches(kept)

    def _episode(self, row: Mapping[str, Any], table: pa.Table, beside: Mapping[str, Any] | None) -> Episode:
        steps = len(table)
        expected = np.arange(row["dataset_from_index"], row["dataset_to_index"])
        if not np.array_equal(_numbers(table, self.info.fields["index"]), expected):
            raise DataError(
                f"the column 'index' does not run from {expected[0]} to {expected[-1]} as its row says"
            )
        parts = self.parts

        def scalar(field: Field) -> np.ndarray:
            values = _scalar(table, field)
            if field.name == layout.DONE and parts.truncated is not None:
                return (values > 0) & ~(_scalar(table, parts.truncated) > 0)
            return values

        outcome = parts.outcome(steps, scalar)
        observations = _vector(table, parts.observations)
        images = {_camera_name(camera): self._images(row, table, camera) for camera in parts.images}
        common = {
            "actions": _vector(table, parts.actions),
            "task": self._task(table),
        }
        if beside is not None and len(beside["terminal_observation"] or ()) == observations.shape[1]:
            return Episode(
                **common,
                **episode_arguments(beside, common["actions"]),
                observations=np.vstack([observations, beside["terminal_observation"]]),
                rewards=outcome.rewards,
                images={
                    name: np.concatenate([array, terminal_image(beside, name, array)])
                    for name, array in images.items()
                },
            )
        return Episode(
            **common,
            observations=np.concatenate([observations, observations[-1:]]),
            rewards=outcome.rewards,
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            success=outcome.success,
            chunk_starts=np.ones(steps, bool),
            interventions=parts.interventions(scalar),
            images={name: np.concatenate([array, array[-1:]]) for name, array in images.items()},
        )

    def _columns(self) -> list[str]:
        """Return the columns of the data files that are needed."""
        chosen = [field.name for field in self.parts.fields if field.dtype != "video"]
        return list(dict.fromkeys([*chosen, *layout.AUTOMATIC]))

    def _task(self, table: pa.Table) -> str:
        number = int(_numbers(table, self.info.fields["task_index"])[0])
        if number not in self.tasks:
            raise DataError(f"task {number} is not in {layout.TASKS}, which has {sorted(self.tasks)}")
        return self.tasks[number]

    def _images(self, row: Mapping[str, Any], table: pa.Table, camera: Field) -> np.ndarray:
        if len(camera.shape) != 3:
            raise DataError(f"camera '{camera}' must have a shape of height, width and channels")
        if camera.dtype == "video":
            return self._video(row, table, camera)
        if camera.dtype != "image":
            # Columns of arrays are often wider than their feature says.
            values = _numbers(table, camera)
            if not np.array_equal(values, pixels := values.astype(np.uint8)):
                raise DataError(f"'{camera.name}' holds values outside 0 to 255")
            return pixels
        images = np.empty((len(table), *camera.shape), np.uint8)
        for number, item in enumerate(table.column(camera.name).to_pylist()):
            data = item["bytes"] if isinstance(item, dict) else item
            if not isinstance(data, bytes):
                raise DataError(f"frame {number} of '{camera.name}' is not stored in the file")
            images[number] = decode_image(data, camera.shape)
        return images

    def _video(self, row: Mapping[str, Any], table: pa.Table, camera: Field) -> np.ndarray:
        key = camera.name
        path = self.root / (self.info.video_path or layout.VIDEO_PATH).format(
            video_key=key,
            chunk_index=row[f"videos/{key}/chunk_index"],
            file_index=row[f"videos/{key}/file_index"],
        )
        times = _numbers(table, self.info.fields["timestamp"]) + float(row[f"videos/{key}/from_timestamp"])
        return read_frames(path, times, camera.shape, self.info.fps)


class _Tables:
    """The frames of a file, episode by episode, matched with the rows of the index in their order.

    Args:
        tables: Number and frames of each episode in the file.
    """

    def __init__(self, tables: Iterator[tuple[int, pa.Table]]) -> None:
        self._tables = tables
        self._ahead: tuple[int, pa.Table] | None = None
        self._broken: Exception | None = None

    def of_row(self, row: Mapping[str, Any]) -> pa.Table:
        """Return the frames of the episode that `row` describes; those of a later one wait for its row.

        Raises:
            DataError: They are missing or not as many as promised.
            Exception: Whatever the library said about the file, for every row from there on.
        """
        wanted = row["episode_index"]
        while self._ahead is None or self._ahead[0] < wanted:
            if self._broken is not None:
                raise self._broken
            try:
                self._ahead = next(self._tables, None)
            except Exception as error:
                self._broken = error
                raise
            if self._ahead is None:
                break
        found = self._ahead
        if found is not None and found[0] == wanted:
            self._ahead = None
        if found is None or found[0] != wanted or len(found[1]) != row["length"]:
            held = "end" if found is None else f"hold {len(found[1])} frames of episode {found[0]}"
            raise DataError(
                f"the index promises {row['length']} frames of episode {wanted} where the data files {held}; "
                "the data set is incomplete"
            )
        return found[1]


def _by_episode(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Split a batch where its episode changes."""
    indices = batch.column("episode_index").to_numpy(zero_copy_only=False)
    cuts = np.flatnonzero(np.diff(indices)) + 1
    for start, stop in zip(np.r_[0, cuts], np.r_[cuts, len(indices)], strict=True):
        if stop > start:
            yield int(indices[start]), batch.slice(start, stop - start)


def _vector(table: pa.Table, fields: tuple[Field, ...]) -> np.ndarray:
    """Return `[T, n]` float32 of several features side by side."""
    with np.errstate(over="ignore"):
        columns = [_numbers(table, field).reshape(len(table), -1).astype(np.float32) for field in fields]
    return np.concatenate(columns, axis=1)


def _scalar(table: pa.Table, field: Field) -> np.ndarray:
    return _numbers(table, field).reshape(len(table))


def _numbers(table: pa.Table, field: Field) -> np.ndarray:
    """Return the values of a feature `[T, *shape]`, where a single number has no dimension."""
    column = table.column(field.name).combine_chunks()
    values = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    while isinstance(values, pa.ExtensionArray):
        values = values.storage
    while pa.types.is_nested(values.type):
        values = values.flatten()
    if values.null_count:
        raise DataError(f"'{field.name}' has {values.null_count} missing values; fill or drop them")
    array = values.to_numpy(zero_copy_only=False)
    size = math.prod(field.shape)
    if array.dtype.kind not in "biuf" or len(array) != len(table) * size:
        raise DataError(
            f"'{field.name}' holds {len(array)} values of {array.dtype} in {len(table)} frames; its feature "
            f"says {field.dtype} {list(field.shape)}"
        )
    return array if size == 1 else array.reshape(len(table), *field.shape)


def _camera_name(camera: Field) -> str:
    return camera.name.removeprefix(layout.CAMERA)
