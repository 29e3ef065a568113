"""The journal of one running episode: each executed chunk is on file before the next one starts.

A journal is a file of records (`serfn.data.store.records`): one START with what is known at the reset, one
CHUNK per executed chunk, and an END once the episode is over. It is read back when the episode is committed
to its final file, or after a crash.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serfn.core.errors import DataError
from serfn.core.files import flush_to_disk
from serfn.data.episode import Episode
from serfn.data.store.chunks import IMAGE, INTERRUPTED, Ending, EpisodeStart, ExecutedChunk
from serfn.data.store.records import Buffer, frame, pack, scan, unpack, write_all

SUFFIX = ".journal"

_START, _CHUNK, _END = 1, 2, 3


class Journal:
    """Writes the journal of one episode.

    Args:
        path: File to make.
        start: What is known at the beginning.
        flush: Force every record to the disk before returning.

    Raises:
        DataError: The file cannot be written.
    """

    def __init__(self, path: Path, start: EpisodeStart, *, flush: bool) -> None:
        self.path = path
        self.steps = 0
        self._start = start
        self._flush = flush
        self._last_time = start.timestamp_s
        self._layout: dict[str, tuple[int, ...]] | None = None
        self._position = (0, 0)
        self._broken: str | None = None
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except OSError as error:
            raise DataError(f"cannot write '{path}': {error}; check space and permissions") from error
        values = {"seed": start.seed, "policy_version": start.policy_version, "task": start.task}
        arrays = {IMAGE + name: image[None] for name, image in start.images.items()}
        arrays["observations"] = start.observation[None]
        if start.timestamp_s is not None:
            arrays["timestamps_s"] = np.array([start.timestamp_s])
        try:
            self._write(_START, pack(values, arrays))
            if flush:
                flush_to_disk(path.parent)
        except BaseException:
            self.close()
            path.unlink(missing_ok=True)
            raise

    def append(self, chunk: ExecutedChunk) -> None:
        """Write one chunk; when this returns, it survives the end of this process.

        Raises:
            DataError: The chunk does not fit the start or the chunks before, and nothing is written; or it
                cannot be written, and may be tried again once there is space.
        """
        layout = {name: array.shape[1:] for name, array in chunk.arrays.items()}
        self._check_fit(chunk, layout)
        self._write(_CHUNK, pack({}, chunk.arrays))
        self._layout = layout
        self.steps += chunk.length
        if chunk.timestamps_s is not None:
            self._last_time = float(chunk.timestamps_s[-1])

    def end(self, ending: Ending) -> None:
        """Write how the episode ended.

        Raises:
            DataError: There is no chunk, or it cannot be written.
        """
        if self.steps == 0:
            raise DataError("the episode has no steps; discard the recording")
        values = {name: getattr(ending, name) for name in ending.__dataclass_fields__}
        self._write(_END, pack(values, {}))

    def close(self) -> None:
        """Close the file; the journal stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _check_fit(self, chunk: ExecutedChunk, layout: Mapping[str, tuple[int, ...]]) -> None:
        start = self._start
        cameras = {IMAGE + name: image.shape for name, image in start.images.items()}
        found = {name: shape for name, shape in layout.items() if name.startswith(IMAGE)}
        if found != cameras or (chunk.timestamps_s is None) != (start.timestamp_s is None):
            timed = [value is not None for value in (start.timestamp_s, chunk.timestamps_s)]
            raise DataError(
                f"the episode began with cameras {cameras} and timestamps {timed[0]}, a chunk has {found} "
                f"and {timed[1]}; record the same throughout an episode"
            )
        if layout["observations"] != start.observation.shape:
            raise DataError(
                f"a chunk has observations of {layout['observations']}, the start {start.observation.shape}"
            )
        if self._layout is not None and layout != self._layout:
            raise DataError(f"a chunk brings {dict(layout)}, the ones before {self._layout}; keep to them")
        if chunk.timestamps_s is not None and chunk.timestamps_s[0] < (self._last_time or 0.0):
            raise DataError(
                f"a chunk starts at {chunk.timestamps_s[0]:g} s, before {self._last_time:g} s; use a "
                "monotonic clock"
            )

    def _write(self, kind: int, parts: list[Buffer]) -> None:
        if self._broken is not None:
            raise DataError(f"'{self.path}' takes no more records: {self._broken}; finish the episode")
        size, records = self._position
        try:
            # What an earlier write left that failed or was interrupted; nobody was told that it is there.
            if os.fstat(self._descriptor).st_size != size:
                os.ftruncate(self._descriptor, size)
            write_all(self._descriptor, buffers := frame(kind, records, parts))
        except OSError as error:
            raise DataError(f"cannot write '{self.path}': {error}; free space and try again") from error
        self._position = (size + sum(map(len, buffers)), records + 1)
        if self._flush:
            self._to_disk()

    def _to_disk(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            # After a failed flush nobody knows what is on the disk, and trying again would succeed wrongly.
            self._broken = f"the disk failed ({error})"
            raise DataError(f"cannot flush '{self.path}': {error}; check the disk") from error


@dataclass(frozen=True, eq=False)
class JournalContent:
    """What a journal holds, up to its last whole record.

    Attributes:
        start: What was known at the beginning; None if not even that is whole.
        chunks: Arrays of the chunks, views of the file.
        ending: How the episode ended; None if nobody wrote it.
        damage: What is wrong with the file beyond a write that was cut short.
    """

    start: EpisodeStart | None
    chunks: tuple[dict[str, np.ndarray], ...]
    ending: Ending | None
    damage: str | None

    @property
    def steps(self) -> int:
        """Control steps of the whole chunks."""
        return sum(len(chunk["actions"]) for chunk in self.chunks)

    def episode(self) -> Episode:
        """Return the episode without its images; it is interrupted if nobody wrote its end.

        Raises:
            DataError: There is no whole chunk.
        """
        start, chunks = self.start, self.chunks
        if start is None or not chunks:
            raise DataError("the journal has no whole chunk")
        columns = {
            name: np.concatenate([chunk[name] for chunk in chunks])
            for name in chunks[0]
            if not name.startswith(IMAGE)
        }
        columns["observations"] = np.concatenate([start.observation[None], columns["observations"]])
        if start.timestamp_s is not None:
            columns["timestamps_s"] = np.concatenate([[start.timestamp_s], columns["timestamps_s"]])
        ending = self.ending or INTERRUPTED
        return ending.episode(columns, seed=start.seed, policy_version=start.policy_version, task=start.task)

    def frames(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield `[n, height, width, channels]` by camera, in order; together one image per observation."""
        if self.start is None or not self.start.images:
            return
        yield {name: image[None] for name, image in self.start.images.items()}
        for chunk in self.chunks:
            yield {name: chunk[IMAGE + name] for name in self.start.images}


def read_journal(path: Path) -> JournalContent:
    """Read a journal as far as it is whole.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0
            content = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error}; check the disk") from error
    found = scan(memoryview(content))
    start, chunks, ending, damage = None, [], None, found.damage
    for record in found.records:
        values, arrays = unpack(record.body)
        if record.kind == _START:
            cameras = [name for name in arrays if name.startswith(IMAGE)]
            times = arrays.get("timestamps_s")
            start = EpisodeStart(
                observation=arrays["observations"][0],
                timestamp_s=None if times is None else float(times[0]),
                images={name.removeprefix(IMAGE): arrays[name][0] for name in cameras},
                **values,
            )
        elif record.kind == _CHUNK:
            chunks.append(arrays)
        else:
            ending = Ending(**values)
    return JournalContent(start, tuple(chunks), ending, damage)
