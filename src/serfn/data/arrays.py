"""Where large arrays lie: in memory up to a budget, and beyond it in files that the system pages."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import numpy as np

from serfn.core.errors import DataError


class ArraySpace:
    """Makes arrays, in memory as long as the budget lasts and in files after that.

    The files have no name: they vanish with the array, or with the process, however it ends. Their space is
    reserved at once, because a disk that fills up later would kill the process in the middle of a write.

    Args:
        memory_bytes: Budget of memory; None puts everything there. Memory is counted when it is reserved,
            although the system hands it out only as it is written.
        folder: Folder of the files; None takes the system's folder for temporary files.

    Raises:
        DataError: The budget is negative.
    """

    def __init__(self, memory_bytes: int | None = None, folder: Path | None = None) -> None:
        if memory_bytes is not None and memory_bytes < 0:
            raise DataError(f"memory_bytes is {memory_bytes}; it must be 0 or more, or none for no limit")
        self._left = math.inf if memory_bytes is None else memory_bytes
        self._folder = folder
        self.mapped_bytes = 0

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """Return an array of undefined content.

        Raises:
            DataError: It does not fit the budget, and the disk has no space for it.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size <= self._left:
            self._left -= size
            return np.empty(shape, dtype)
        try:
            with tempfile.TemporaryFile(dir=self._folder, prefix="serfn-") as file:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
                array = np.memmap(file, dtype, "r+", shape=shape)
        except OSError as error:
            raise DataError(
                f"no space for an array of {size / 2**20:.0f} MiB beyond the memory budget: {error}; raise "
                "the budget, or lower the capacity"
            ) from error
        self.mapped_bytes += size
        # A plain view: every slice of a memmap object would be one too, at a cost per batch.
        return array.view(np.ndarray)
