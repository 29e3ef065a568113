"""Images as PNG, lossless and readable by any viewer. Pillow is imported when there is one."""

from __future__ import annotations

import io

import numpy as np

from serfn.core.errors import DataError

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Kind of image by number of channels: grey, grey and alpha, RGB, RGB and alpha."""

_LEVEL = 1
"""Compression level: higher ones take five times as long for a tenth less."""


def encode_png(image: np.ndarray) -> bytes:
    """Return `[height, width, channels]` uint8 with 1 to 4 channels as the bytes of a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=_LEVEL)
    return file.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """Return the image `[height, width, channels]` of a PNG file with eight bits per channel.

    Raises:
        DataError: It is damaged, no PNG, or of another kind.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode not in MODES.values():
                raise DataError(f"an image is a PNG of kind '{image.mode}', which the store does not write")
            pixels = np.array(image, np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"an image is damaged: {error}") from error
    return pixels if pixels.ndim == 3 else pixels[..., None]
