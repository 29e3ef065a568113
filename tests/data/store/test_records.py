from __future__ import annotations

import numpy as np
import pytest

from serfn.data.store.records import frame, pack, salvage, scan, unpack, write_all


def content(bodies: list[bytes]) -> bytes:
    return b"".join(b"".join(frame(7, index, [body])) for index, body in enumerate(bodies))


BODIES = [b"first", b"", b"third record"]


def test_records_come_back() -> None:
    found = scan(content(BODIES))
    assert [bytes(record.body) for record in found.records] == BODIES
    assert [record.kind for record in found.records] == [7, 7, 7]
    assert (found.torn, found.damage, found.end) == (0, None, len(content(BODIES)))


def test_a_file_cut_anywhere_is_torn_and_keeps_its_whole_records() -> None:
    whole = content(BODIES)
    ends = [record.end for record in scan(whole).records]
    for size in range(len(whole)):
        found = scan(whole[:size])
        assert found.damage is None
        assert len(found.records) == sum(end <= size for end in ends)
        assert found.end + found.torn == size


def test_every_flipped_bit_is_noticed() -> None:
    whole = content(BODIES)
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        found = scan(bytes(flipped))
        assert found.damage is not None
        assert [bytes(record.body) for record in found.records] == BODIES[: len(found.records)]
        assert len(list(salvage(bytes(flipped)))) == 2


def test_zeros_at_the_end_are_a_torn_write() -> None:
    found = scan(content(BODIES) + bytes(100))
    assert (len(found.records), found.torn, found.damage) == (3, 100, None)


def test_bodies_keep_values_and_arrays() -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2],
        "nothing": np.zeros((0, 4)),
        "flags": np.array([True, False]),
    }
    values, found = unpack(memoryview(b"".join(pack({"text": "Würfel\ud800", "n": np.int64(3)}, arrays))))
    assert values == {"text": "Würfel\ud800", "n": 3}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_partial_writes_are_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    written = bytearray()

    def stingy(descriptor: int, buffers: list[memoryview]) -> int:
        piece = b"".join(buffers)[:3]
        written.extend(piece)
        return len(piece)

    monkeypatch.setattr("os.writev", stingy)
    write_all(0, [b"one", b"", b"twothree", memoryview(b"four")])
    assert bytes(written) == b"onetwothreefour"
