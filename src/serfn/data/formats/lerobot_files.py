"""Files of a LeRobotDataset that is being written: a new one begins where the last has grown large enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serfn.data.formats import lerobot_layout as layout
from serfn.data.formats.images import VideoWriter


@dataclass
class Places:
    """Numbers of the files of one kind, and when a new one begins.

    Args:
        files_per_chunk: Files in one folder.
        limit_bytes: Size from which a file takes no more.
        number: Number of the current file, counted over all folders; -1 before the first one.
    """

    files_per_chunk: int
    limit_bytes: float
    number: int = -1

    def next(self, size: int | None) -> bool:
        """Move on to a new file if the current one has reached its `size`; None if there is none yet."""
        begins = size is None or size >= self.limit_bytes
        self.number += begins
        return begins

    @property
    def chunk(self) -> int:
        """Number of the folder of the current file."""
        return self.number // self.files_per_chunk

    @property
    def file(self) -> int:
        """Number of the current file in its folder."""
        return self.number % self.files_per_chunk

    def path(self, template: str, **names: str) -> str:
        """Return the path of the current file in the data set."""
        return template.format(chunk_index=self.chunk, file_index=self.file, **names)


@dataclass
class Tables:
    """Parquet files of one kind, filled table by table.

    Args:
        root: Folder of the data set.
        template: Path of a file in it.
        places: Where the next file goes.
    """

    root: Path
    template: str
    places: Places
    _sink: Any = None
    _writer: pq.ParquetWriter | None = None

    def place(self, schema: pa.Schema) -> Places:
        """Open the file that takes the next table, and say which it is."""
        if self.places.next(None if self._sink is None else self._sink.tell()):
            self.close()
            target = self.root / self.places.path(self.template)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._sink = pa.OSFile(str(target), "wb")
            self._writer = pq.ParquetWriter(
                self._sink, schema, compression="snappy", write_page_checksum=True
            )
        return self.places

    def write(self, table: pa.Table) -> None:
        """Append a table as one row group to the file of the last `place`."""
        if self._writer is not None:
            self._writer.write_table(table, row_group_size=len(table))

    def close(self) -> None:
        """Finish the current file."""
        if self._writer is not None:
            self._writer.close()
            self._sink.close()
        self._writer = self._sink = None


@dataclass
class Videos:
    """Video files of one camera, filled episode by episode.

    Args:
        root: Folder of the data set.
        key: Feature of the camera.
        fps: Frames per second.
        places: Where the next file goes.
        info: What `info.json` says about the videos, known once the first one was begun.
    """

    root: Path
    key: str
    fps: float
    places: Places
    info: dict[str, Any] = field(default_factory=dict)
    _writer: VideoWriter | None = None

    def write(self, images: np.ndarray) -> dict[str, Any]:
        """Append the frames of one episode and return what its row says about them."""
        writer = self._writer
        if self.places.next(None if writer is None else writer.bytes) or writer is None:
            self.close()
            target = self.root / self.places.path(layout.VIDEO_PATH, video_key=self.key)
            target.parent.mkdir(parents=True, exist_ok=True)
            writer = self._writer = VideoWriter(target, images.shape[1:], self.fps)
            self.info = self.info or writer.info
        start = writer.frames
        writer.write(images)
        return {
            f"videos/{self.key}/chunk_index": self.places.chunk,
            f"videos/{self.key}/file_index": self.places.file,
            f"videos/{self.key}/from_timestamp": start / self.fps,
            f"videos/{self.key}/to_timestamp": writer.frames / self.fps,
        }

    def close(self) -> None:
        """Finish the current file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
