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


def test_damage_is_refused() -> None:
    data = encode_png(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    for size in range(len(data) - 12):
        with pytest.raises(DataError):
            decode_png(data[:size])
    for index in range(len(data)):
        flipped = bytearray(data)
        flipped[index] ^= 1
        with pytest.raises(DataError):
            decode_png(bytes(flipped))
