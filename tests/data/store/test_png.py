from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from serfn.core.errors import DataError
from serfn.data.store.png import decode_png, encode_png

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))


@given(arrays(np.uint8, shapes))
def test_images_come_back_here_and_elsewhere(image: np.ndarray) -> None:
    data = encode_png(image)
    np.testing.assert_array_equal(decode_png(data), image)
    elsewhere = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(elsewhere.reshape(image.shape), image)


def test_what_is_cut_off_or_no_png_is_refused() -> None:
    data = encode_png(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    # Without the checksum and the end mark behind the pixels it is still whole.
    for size in range(len(data) - 20):
        with pytest.raises(DataError):
            decode_png(data[:size])
    jpeg = io.BytesIO()
    Image.new("RGB", (4, 4)).save(jpeg, "JPEG")
    with pytest.raises(DataError):
        decode_png(jpeg.getvalue())
    palette = io.BytesIO()
    Image.new("P", (4, 4)).save(palette, "PNG")
    with pytest.raises(DataError, match="kind 'P'"):
        decode_png(palette.getvalue())


def test_equal_images_give_equal_files() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    assert encode_png(image) == encode_png(image.copy())
