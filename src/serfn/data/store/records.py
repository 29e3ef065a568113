"""Records in append-only files, framed so that a torn tail and a flipped bit can be told apart.

A record is a head of 28 bytes and a body::

    "SRec" | kind u32 | sequence u32 | length of the body u64 | CRC-32 of the body u32 | CRC-32 of all this

all little-endian. As the head has a checksum of its own, the length can be trusted: a whole head whose body
runs beyond the end of the file is a write that a crash cut short, and anything else that does not fit is
damage. A body is a JSON text and raw arrays, see `pack`.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MAGIC = b"SRec"
_HEAD = struct.Struct("<4sIIQI")
_CHECK = struct.Struct("<I")
_HEAD_SIZE = _HEAD.size + _CHECK.size
_MOST_BUFFERS = 512

Buffer = bytes | memoryview


@dataclass(frozen=True)
class Record:
    """One whole record.

    Attributes:
        kind: What the body means; the files define their own kinds.
        sequence: Number of the record in its file, from 0.
        body: Content, of which the checksum is right.
        end: First byte after the record.
    """

    kind: int
    sequence: int
    body: memoryview
    end: int


@dataclass(frozen=True)
class Scan:
    """The whole records at the beginning of a file.

    Attributes:
        records: Records in order.
        torn: Bytes after them of a write that was cut short.
        damage: What is wrong after them if it is no cut write; None if nothing is.
    """

    records: tuple[Record, ...]
    torn: int = 0
    damage: str | None = None

    @property
    def end(self) -> int:
        """First byte after the whole records."""
        return self.records[-1].end if self.records else 0


def frame(kind: int, sequence: int, parts: Sequence[Buffer]) -> list[Buffer]:
    """Return the buffers of one record whose body consists of `parts`; nothing is copied."""
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    head = _HEAD.pack(MAGIC, kind, sequence, sum(map(len, parts)), check)
    return [head + _CHECK.pack(zlib.crc32(head)), *parts]


def write_all(descriptor: int, buffers: Sequence[Buffer]) -> None:
    """Write all of `buffers` to a file opened for appending.

    Raises:
        OSError: The disk is full or broken; a part may have been written.
    """
    pending = [memoryview(buffer) for buffer in buffers if len(buffer)]
    while pending:
        written = os.writev(descriptor, pending[:_MOST_BUFFERS])
        while pending and written >= len(pending[0]):
            written -= len(pending.pop(0))
        if pending and written:
            pending[0] = pending[0][written:]


def scan(content: Buffer) -> Scan:
    """Read records from the beginning until the first one that is not whole."""
    view = memoryview(content)
    records: list[Record] = []
    while True:
        start = records[-1].end if records else 0
        if start == len(view):
            return Scan(tuple(records))
        if len(view) - start < _HEAD_SIZE:
            return Scan(tuple(records), torn=len(view) - start)
        head = _read_head(view, start)
        if head is None:
            # A file that a power cut left longer than its data ends in zeros.
            if not any(view[start:]):
                return Scan(tuple(records), torn=len(view) - start)
            return Scan(tuple(records), damage=f"record {len(records)} at byte {start} has a damaged head")
        if start + _HEAD_SIZE + head[2] > len(view):
            return Scan(tuple(records), torn=len(view) - start)
        record = _read_body(view, start, head)
        if record is None or record.sequence != len(records):
            return Scan(
                tuple(records), damage=f"record {len(records)} at byte {start} has a wrong checksum or number"
            )
        records.append(record)


def salvage(content: Buffer) -> Iterator[Record]:
    """Yield every whole record of a damaged file, wherever it begins."""
    data = bytes(content)
    view, start = memoryview(data), data.find(MAGIC)
    while start >= 0:
        head = _read_head(view, start) if len(view) - start >= _HEAD_SIZE else None
        whole = head is not None and start + _HEAD_SIZE + head[2] <= len(view)
        record = _read_body(view, start, head) if head is not None and whole else None
        if record is not None:
            yield record
        start = data.find(MAGIC, start + 1 if record is None else record.end)


def pack(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[Buffer]:
    """Return the body of a record as buffers: the length of a JSON text (u32), the text, and raw arrays."""
    columns = []
    buffers: list[Buffer] = []
    for name, array in arrays.items():
        contiguous = np.ascontiguousarray(array)
        columns.append([name, contiguous.dtype.str, list(array.shape)])
        buffers.append(contiguous.reshape(-1).view(np.uint8).data)
    # Numpy's numbers become those of Python.
    text = json.dumps({"values": values, "columns": columns}, default=lambda value: value.item()).encode()
    return [_CHECK.pack(len(text)) + text, *buffers]


def unpack(body: memoryview) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return values and arrays of a body that `pack` made; the arrays are views of it."""
    (length,) = _CHECK.unpack_from(body)
    start = _CHECK.size + length
    document = json.loads(bytes(body[_CHECK.size : start]))
    arrays = {}
    for name, dtype, shape in document["columns"]:
        count = math.prod(shape)
        arrays[name] = np.frombuffer(body, np.dtype(dtype), count, start).reshape(shape)
        start += arrays[name].nbytes
    return document["values"], arrays


def _read_head(view: memoryview, start: int) -> tuple[int, int, int, int] | None:
    """Return kind, sequence, length and checksum of the body, or None if the head is damaged."""
    head = view[start : start + _HEAD.size]
    magic, kind, sequence, length, check = _HEAD.unpack(head)
    (head_check,) = _CHECK.unpack_from(view, start + _HEAD.size)
    return (kind, sequence, length, check) if (magic, head_check) == (MAGIC, zlib.crc32(head)) else None


def _read_body(view: memoryview, start: int, head: tuple[int, int, int, int]) -> Record | None:
    kind, sequence, length, check = head
    body = view[start + _HEAD_SIZE : start + _HEAD_SIZE + length]
    return Record(kind, sequence, body, start + _HEAD_SIZE + length) if zlib.crc32(body) == check else None
