"""Committed episodes: Arrow files whose names carry the checksum of their content.

`00000012-<uid>-<checksum>.arrow` holds the numbers of episode 12 with one row per observation; in the last
row, of the terminal observation, the columns of actions and rewards are 0. What belongs to the whole episode
is JSON under the key `serfn` of the schema. Images lie beside it in `...-<checksum>.images.arrow`, one column
of PNG files per camera, and are named by their checksum in that JSON. A file appears by renaming it, so that
an episode is there whole or not at all, and a file that does not fit its own name is never served.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from serfn.core.errors import DataError
from serfn.core.files import flush_to_disk, whole_file
from serfn.data.episode import EPISODE_COLUMNS, Episode, episode_values
from serfn.data.store.png import decode_png, encode_png

_NAME = re.compile(r"(\d{8,})-([0-9a-f]{16})-([0-9a-f]{16})(\.images)?\.arrow")
_KEY = b"serfn"

Frames = Iterable[Mapping[str, np.ndarray]]
"""Pieces `[n, height, width, channels]` by camera."""


@dataclass(frozen=True, order=True)
class EpisodeFile:
    """One file of an episode, as its name says.

    Attributes:
        number: Number of the episode in its store.
        uid: Identity of the episode everywhere, 16 hexadecimal digits.
        checksum: BLAKE2b of the content, 16 hexadecimal digits.
        images: Whether it holds the images rather than the numbers.
    """

    number: int
    uid: str
    checksum: str
    images: bool = False

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.number:08d}-{self.uid}-{self.checksum}{'.images' if self.images else ''}.arrow"

    @classmethod
    def parse(cls, name: str) -> EpisodeFile | None:
        """Return what a file name says, or None if it is the name of something else."""
        match = _NAME.fullmatch(name)
        return None if match is None else cls(int(match[1]), match[2], match[3], match[4] is not None)


def episode_files(folder: Path) -> list[EpisodeFile]:
    """Return all files of episodes in `folder`, of numbers and of images, by number."""
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(file for name in names if (file := EpisodeFile.parse(name)) is not None)


def checksum(content: bytes | memoryview) -> str:
    """Return the checksum that file names carry."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def write_episode(
    folder: Path, number: int, uid: str, episode: Episode, frames: Frames, *, flush: bool
) -> EpisodeFile:
    """Write one episode; it is committed when this returns, and absent if this raises.

    Args:
        folder: Folder of the files.
        number: Number of the episode in its store.
        uid: Identity of the episode.
        episode: Episode; its own images are ignored.
        frames: Images, together one per observation.
        flush: Force the files to the disk.

    Raises:
        DataError: A file cannot be written.
    """
    images, about = _image_content(frames)
    content = _number_content(episode, json.dumps({**episode_values(episode), "images": about}))
    try:
        if images is not None:
            # First, as the episode counts from the moment when its numbers are there.
            image_file = EpisodeFile(number, uid, about["checksum"], images=True)
            publish(folder / image_file.name, images, flush=flush)
        file = EpisodeFile(number, uid, checksum(content))
        publish(folder / file.name, content, flush=flush)
    except OSError as error:
        raise DataError(f"cannot write episode {number} to '{folder}': {error}; free space") from error
    return file


def publish(path: Path, content: bytes | memoryview, *, flush: bool) -> None:
    """Make a file with `content` appear in one step."""
    try:
        with whole_file(path, flush=flush) as temporary:
            temporary.write_bytes(content)
        if flush:
            flush_to_disk(path.parent)
    except BaseException:
        # The caller hears that it is not there, so it must not be.
        path.unlink(missing_ok=True)
        raise


def verified(folder: Path, file: EpisodeFile) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: It is missing, or is not what was written.
    """
    path = folder / file.name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"episode {file.number} cannot be read: {error}; restore the file") from error
    if (found := checksum(content)) != file.checksum:
        raise DataError(
            f"episode {file.number} is damaged: '{path}' has checksum {found}; restore the file, or set it "
            "aside with 'serfn data repair'"
        )
    return content


def read_values(folder: Path, file: EpisodeFile) -> tuple[dict[str, Any], int]:
    """Return what belongs to the whole episode, and its number of steps.

    Raises:
        DataError: See `verified`.
    """
    batch = _batch(verified(folder, file))
    return _values(batch), batch.num_rows - 1


def read_episode(folder: Path, file: EpisodeFile, *, images: bool) -> Episode:
    """Return an episode as it was written, with or without its images.

    Raises:
        DataError: See `verified`.
    """
    batch = _batch(verified(folder, file))
    values = _values(batch)
    about = values.pop("images")
    columns = {}
    for name, (_, ndim, extra, _) in EPISODE_COLUMNS.items():
        if name in batch.schema.names:
            column: Any = batch.column(name)
            rows = batch.num_rows - 1 + extra
            flat = column.values if ndim == 2 else column
            array = flat.to_numpy(zero_copy_only=False)
            columns[name] = array.reshape(batch.num_rows, -1)[:rows] if ndim == 2 else array[:rows]
    cameras = _read_images(folder, file, about) if images and about else {}
    return Episode(**columns, **values, images=cameras)


def image_file(file: EpisodeFile, values: Mapping[str, Any]) -> EpisodeFile | None:
    """Return the file with the images of an episode, or None if it has none."""
    about = values["images"]
    return EpisodeFile(file.number, file.uid, about["checksum"], images=True) if about else None


def _number_content(episode: Episode, values: str) -> memoryview:
    columns: dict[str, pa.Array] = {}
    for name, (_, ndim, extra, _) in EPISODE_COLUMNS.items():
        array = getattr(episode, name)
        if array is None:
            continue
        if not extra:
            array = np.concatenate([array, np.zeros_like(array[:1])])
        flat = pa.array(array.reshape(-1))
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, array.shape[1]) if ndim == 2 else flat
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    return _serialised(batch.schema.with_metadata({_KEY: values}), [batch])


def _image_content(frames: Frames) -> tuple[memoryview | None, dict[str, Any]]:
    """Return the image file and what to remember about it; None and nothing without images."""
    batches: list[pa.RecordBatch] = []
    cameras: list[list[Any]] = []
    for piece in frames:
        if not piece:
            continue
        cameras = [[name, list(stack.shape[1:])] for name, stack in piece.items()]
        files = [pa.array([encode_png(image) for image in stack], pa.binary()) for stack in piece.values()]
        # Columns are numbered as not every camera's name is valid in a schema.
        batches.append(pa.record_batch(files, names=[f"camera_{index}" for index in range(len(files))]))
    if not batches:
        return None, {}
    content = _serialised(batches[0].schema, batches)
    return content, {"checksum": checksum(content), "cameras": cameras}


def _read_images(folder: Path, file: EpisodeFile, about: Mapping[str, Any]) -> dict[str, np.ndarray]:
    content = verified(folder, EpisodeFile(file.number, file.uid, about["checksum"], images=True))
    table = pa.ipc.open_file(pa.py_buffer(content)).read_all()
    cameras = {}
    for index, (name, shape) in enumerate(about["cameras"]):
        stack = np.empty((table.num_rows, *shape), np.uint8)
        for row, data in enumerate(table.column(index)):
            stack[row] = decode_png(data.as_py())
        cameras[name] = stack
    return cameras


def _serialised(schema: pa.Schema, batches: list[pa.RecordBatch]) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(use_threads=False)) as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return memoryview(sink.getvalue())


def _batch(content: bytes) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.py_buffer(content)).get_batch(0)


def _values(batch: pa.RecordBatch) -> dict[str, Any]:
    return json.loads((batch.schema.metadata or {})[_KEY])


def image_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return `(height, width, channels)` by camera of the first episode in `folder` that has images."""
    for file in episode_files(folder):
        if not file.images and (cameras := read_values(folder, file)[0]["images"].get("cameras", ())):
            return {name: tuple(shape) for name, shape in cameras}
    return {}
