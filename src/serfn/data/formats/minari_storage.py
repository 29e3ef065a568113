"""The two layouts in which Minari keeps episodes, behind one view: arrays by path."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serfn.core.errors import DataError
from serfn.data.formats.hdf5 import arrays, group, opened, read
from serfn.data.source import understood

_TUPLE_PART = re.compile(r"(^|/)_index_(\d+)")
_EPISODE = "episode_"
_PADDED = ("actions", "rewards", "terminations", "truncations")


@dataclass(frozen=True, eq=False)
class Leaf:
    """One array of an episode, read when it is asked for.

    Args:
        dtype: Name of its number type.
        shape: Shape of one step's value.
        bytes_per_item: Whether each step's value is a file of its own, such as a JPEG.
        rows: Number of steps.
        load: Reads all of it.
    """

    dtype: str
    shape: tuple[int, ...]
    bytes_per_item: bool
    rows: int
    load: Callable[[], Any]

    def __len__(self) -> int:
        return self.rows

    def values(self) -> np.ndarray:
        """Return `[steps, ...]`."""
        return np.asarray(self.load())

    def items(self) -> list[bytes]:
        """Return the bytes of each step."""
        return [
            value if isinstance(value, bytes) else np.asarray(value, np.uint8).tobytes()
            for value in self.load()
        ]


@dataclass(frozen=True)
class Hdf5Storage:
    """All episodes in one HDF5 file."""

    path: Path

    def count(self) -> int:
        """Return the number of episodes."""
        with opened(self.path, "Minari file") as file:
            return sum(1 for name in file if str(name).startswith(_EPISODE))

    def episodes(self) -> Generator[tuple[Path, Callable[[], Mapping[str, Leaf]]], None, None]:
        """Yield of each episode its file, and what returns its arrays by path."""
        with opened(self.path, "Minari file") as file:
            for index in range(sum(1 for name in file if str(name).startswith(_EPISODE))):
                yield self.path, lambda index=index: _hdf5_leaves(group(file, f"{_EPISODE}{index}"))


@dataclass(frozen=True)
class ArrowStorage:
    """One folder per episode, with Arrow or Parquet files."""

    folder: Path
    suffix: str

    def count(self) -> int:
        """Return the number of episodes."""
        return sum(1 for entry in self.folder.iterdir() if entry.is_dir() and entry.name.isdecimal())

    def episodes(self) -> Generator[tuple[Path, Callable[[], Mapping[str, Leaf]]], None, None]:
        """Yield of each episode its folder, and what returns its arrays by path."""
        for index in range(self.count()):
            folder = self.folder / str(index)
            yield folder, lambda folder=folder: self._leaves(folder)

    def _leaves(self, folder: Path) -> Mapping[str, Leaf]:
        with understood(f"'{folder}'", pa.ArrowException):
            parts = [self._table(path) for path in sorted(folder.glob(f"*.{self.suffix}"))]
            if not parts:
                raise DataError(f"'{folder}' holds no .{self.suffix} file")
            table = pa.concat_tables(parts)
            # Offsets of a damaged file point anywhere, and are followed unchecked otherwise.
            table.validate(full=True)
            leaves: dict[str, Leaf] = {}
            for name in table.column_names:
                column = table.column(name)
                rows = column[:-1] if name in _PADDED else column
                _arrow_leaves(name, pa.concat_arrays(rows.chunks or [pa.array([], rows.type)]), leaves)
            return leaves | _seed(folder / "metadata.json")

    def _table(self, path: Path) -> pa.Table:
        if self.suffix == "parquet":
            return pq.ParquetFile(path, page_checksum_verification=True).read()
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()


def _hdf5_leaves(episode: Any) -> Mapping[str, Leaf]:
    leaves = {_TUPLE_PART.sub(r"\1\2", path): _hdf5_leaf(array) for path, array in arrays(episode).items()}
    seed = episode.attrs.get("seed")
    return leaves if seed is None else leaves | {"seed": _constant(int(seed))}


def _hdf5_leaf(array: Any) -> Leaf:
    # A JPEG of each step: equally long ones lie in rows of bytes, others in rows of their own length.
    rows_of_bytes = array.dtype == np.uint8 and array.ndim == 2 and _starts_as_jpeg(array)
    own_length = array.dtype.kind == "O" and array.ndim == 1
    return Leaf(
        dtype=array.dtype.name,
        shape=tuple(array.shape[1:]),
        bytes_per_item=rows_of_bytes or own_length,
        rows=len(array),
        load=lambda: read(array),
    )


def _starts_as_jpeg(array: Any) -> bool:
    return array.shape[0] > 0 and array.shape[1] > 2 and bytes(array[0, :2]) == b"\xff\xd8"


def _arrow_leaves(name: str, column: pa.Array, leaves: dict[str, Leaf]) -> None:
    kind = column.type
    if pa.types.is_struct(kind):
        for index, field in enumerate(kind):
            _arrow_leaves(f"{name}/{field.name}", column.field(index), leaves)
        return
    size: tuple[int, ...] = ()
    flat = column
    if pa.types.is_fixed_size_list(kind):
        size, flat = (kind.list_size,), column.flatten()
    text = pa.types.is_binary(flat.type) or pa.types.is_string(flat.type) or pa.types.is_nested(flat.type)

    def load() -> Any:
        if text:
            return [value.encode() if isinstance(value, str) else value for value in flat.to_pylist()]
        if flat.null_count:
            raise DataError(f"'{name}' has {flat.null_count} missing values")
        return flat.to_numpy(zero_copy_only=False).reshape(len(column), *size)

    dtype = "string" if text else str(np.dtype(flat.type.to_pandas_dtype()))
    leaves[name] = Leaf(dtype=dtype, shape=size, bytes_per_item=text, rows=len(column), load=load)


def _seed(path: Path) -> dict[str, Leaf]:
    if not path.is_file():
        return {}
    seed = json.loads(path.read_text(encoding="utf-8")).get("seed")
    return {} if seed is None else {"seed": _constant(int(seed))}


def _constant(value: int) -> Leaf:
    return Leaf(dtype="int64", shape=(), bytes_per_item=False, rows=1, load=lambda: [value])
