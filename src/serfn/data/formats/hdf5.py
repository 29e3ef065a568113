"""HDF5 files through h5py: what is in them, read with care."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from serfn.core.errors import DataError
from serfn.core.extras import extra
from serfn.data.mapping import Field
from serfn.data.source import understood

_LARGE_BYTES = 1 << 30
_MOST_COMPRESSION = 1100


def load_h5py() -> ModuleType:
    """Return h5py.

    Raises:
        MissingExtraError: It is not installed.
    """
    with extra("formats"):
        import h5py
    return h5py


@contextmanager
def opened(path: Path, what: str) -> Iterator[Any]:
    """Open a file for reading.

    Raises:
        DataError: The file cannot be read, now or in the body.
    """
    h5py = load_h5py()
    with understood(f"{what} '{path}'"), h5py.File(path, "r") as file:
        yield file


def group(parent: Any, name: str) -> Any:
    """Return a group of a group.

    Raises:
        DataError: There is none of that name; those found are listed.
    """
    found = parent.get(name)
    if not isinstance(found, load_h5py().Group):
        raise DataError(f"there is no group '{name}'; found {', '.join(map(str, parent)) or 'nothing'}")
    return found


def arrays(parent: Any) -> dict[str, Any]:
    """Return all arrays below a group by their path; links to other places are not followed."""
    kind = load_h5py().Dataset
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, kind) and item.ndim > 0:
            found[name] = item

    parent.visititems(visit)
    return found


def field(name: str, array: Any) -> Field:
    """Return what one step of an array `[steps, ...]` is."""
    return Field(name, array.dtype.name, tuple(array.shape[1:]))


def read(array: Any) -> np.ndarray:
    """Return all values of an array.

    Raises:
        DataError: It claims more than its compressed bytes can hold.
    """
    stored = array.id.get_storage_size()
    if array.nbytes > _LARGE_BYTES and array.nbytes > _MOST_COMPRESSION * stored:
        raise DataError(
            f"'{array.name}' claims {array.nbytes} bytes but stores {stored}; the file is damaged"
        )
    return array[()]
