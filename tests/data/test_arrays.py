from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from serfn.core.errors import DataError
from serfn.data.arrays import ArraySpace


def test_arrays_leave_memory_when_the_budget_is_spent(tmp_path: Path) -> None:
    space = ArraySpace(100, tmp_path)
    small = space.empty((10,), np.int64)
    assert space.mapped_bytes == 0 and small.nbytes == 80
    large = space.empty((1000, 3), np.float32)
    assert space.mapped_bytes == large.nbytes == 12_000
    large[:] = 3
    assert type(large) is np.ndarray and large.sum() == 9000
    assert list(tmp_path.iterdir()) == []
    assert space.empty((20,), np.bool_).nbytes == 20 and space.mapped_bytes == 12_000


def test_without_a_budget_everything_is_in_memory() -> None:
    space = ArraySpace()
    space.empty((1000, 1000), np.float64)
    assert space.mapped_bytes == 0


def test_a_full_disk_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"array of 1 MiB beyond the memory budget.*No space left"):
        ArraySpace(0, tmp_path).empty((2**20,), np.uint8)
    with pytest.raises(DataError, match="memory_bytes is -1"):
        ArraySpace(-1)
