"""Images as PNG, lossless and readable by any viewer, without an image library.

Only what the store itself writes is read back: eight bits per channel, no interlacing, one filter ("up") for
all rows, which numpy can apply and undo for a whole image at once.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from serfn.core.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Colour type of PNG by number of channels: grey, grey and alpha, RGB, RGB and alpha."""

_HEADER = struct.Struct(">IIBBBBB")
_UP = 2
_LEVEL = 1
"""Compression level: higher ones take five times as long for a tenth less."""


def encode_png(image: np.ndarray) -> bytes:
    """Return `[height, width, channels]` uint8 with 1 to 4 channels as the bytes of a PNG file."""
    height, width, channels = image.shape
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = _UP
    flat = image.reshape(height, -1)
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    header = _HEADER.pack(width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    return b"".join(
        (
            SIGNATURE,
            _piece(b"IHDR", header),
            _piece(b"IDAT", zlib.compress(rows.reshape(-1).data, _LEVEL)),
            _piece(b"IEND", b""),
        )
    )


def decode_png(data: bytes) -> np.ndarray:
    """Return an image that `encode_png` wrote.

    Raises:
        DataError: It is damaged, or was written by something else.
    """
    try:
        pieces = _pieces(data)
        width, height, depth, colour, *_, interlaced = _HEADER.unpack(pieces[b"IHDR"])
        channels = {colour: channels for channels, colour in COLOUR_TYPES.items()}[colour]
        rows = np.frombuffer(zlib.decompress(pieces[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
        if depth != 8 or interlaced or (rows[:, 0] != _UP).any():
            raise DataError("an image is a PNG of a kind that the store does not write")
    except (struct.error, KeyError, zlib.error, ValueError) as error:
        raise DataError(f"an image is damaged: {error}") from error
    # Sums of uint8 wrap around, which is what the filter asks for.
    return np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8).reshape(height, width, channels)


def _piece(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _pieces(data: bytes) -> dict[bytes, bytes]:
    if not data.startswith(SIGNATURE):
        raise DataError("an image is no PNG")
    pieces, start = {}, len(SIGNATURE)
    while start < len(data):
        (length,) = struct.unpack_from(">I", data, start)
        kind, body = data[start + 4 : start + 8], data[start + 8 : start + 8 + length]
        (check,) = struct.unpack_from(">I", data, start + 8 + length)
        if zlib.crc32(kind + body) != check:
            raise DataError("an image has a wrong checksum")
        pieces[kind] = body
        start += 12 + length
    return pieces
