"""Reading Minari data sets from their local folder, in the HDF5 and in the Arrow (or Parquet) layout.

Layout::

    data/metadata.json          data_format, observation_space, action_space (both JSON), dataset_id
    data/main_data.hdf5         episode_0/{observations, actions, rewards, terminations, truncations, infos}
    data/0/part-0.arrow         the same columns of one episode, padded to T + 1 rows

Observations have T + 1 rows. Those of a Dict or Tuple space are a tree of arrays, whose parts are named by
their path: `observations/achieved_goal`, `observations/0`; that of a Box is `observations`. Guessed parts are
concatenated in the order of the space, as `serfn.rollout.environments` flattens them.

Reference: Minari 0.5, `dataset/_storages`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from serfn.core.errors import DataError, SerfnError
from serfn.core.spec import ActionSpec
from serfn.data.episode import Episode
from serfn.data.formats.images import decode_image
from serfn.data.formats.minari_storage import ArrowStorage, Hdf5Storage, Leaf
from serfn.data.formats.parts import Guess, Parts, choose_parts
from serfn.data.mapping import GUESS_ALL, Field, NameMapping, listing
from serfn.data.source import EpisodeResult, EpisodeSource, examine, understood

METADATA = "metadata.json"
_JPEG = b"\xff\xd8"


class Storage(Protocol):
    """Where the arrays of the episodes lie."""

    def count(self) -> int:
        """Return the number of episodes."""
        ...

    def episodes(self) -> Generator[tuple[Path, Callable[[], Mapping[str, Leaf]]], None, None]:
        """Yield of each episode the file it lies in, and what returns its arrays by path, without padding.

        The arrays are readable until the next episode.
        """
        ...


def open_minari(path: str | Path, mapping: NameMapping = GUESS_ALL) -> EpisodeSource:
    """Open a local Minari data set.

    Args:
        path: Its folder, or the folder `data` inside.
        mapping: Which arrays mean what. Guessed are: all vectors and numbers of the observations in the order
            of their space, all actions, all cameras, `rewards`, `terminations`, `truncations`, and as success
            `infos/success` or `infos/is_success`.

    Raises:
        DataError: The data set cannot be read or lacks an array (those found are listed). Episodes raise it
            when they are read.
    """
    path = Path(path)
    folder = path / "data" if (path / "data" / METADATA).is_file() else path
    what = f"Minari data set '{path}'"
    with understood(what):
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        observation_space = _space(metadata, "observation_space")
        action_space = _space(metadata, "action_space")
        shapes = _shapes("observations", observation_space) | _shapes("actions", action_space)
        storage = _storage(folder, str(metadata.get("data_format", "hdf5")))
        count = storage.count()
        with closing(storage.episodes()) as episodes:
            # Its arrays are there only as long as the iterator keeps the file open.
            fields = _fields(_first_whole(episodes, what), shapes)
        parts = _choose(fields, mapping)
        spec = _action_spec(action_space, parts)
    reader = _Reader(what, storage, parts, str(metadata.get("dataset_id", "")))
    return EpisodeSource(
        path=path,
        format="minari",
        count=count,
        results=reader.episodes,
        content=listing(fields.values()),
        action_spec=spec,
        observation_names=parts.names(parts.observations, "observations/"),
        action_names=parts.names(parts.actions, "actions/"),
        guessed_order=parts.guessed_order,
        notes=parts.notes,
    )


def _first_whole(
    episodes: Iterator[tuple[Path, Callable[[], Mapping[str, Leaf]]]], what: str
) -> Mapping[str, Leaf]:
    """Return the arrays of the first whole episode, by which all are understood; else of the first one."""
    first: Mapping[str, Leaf] | None = None
    refused: Exception | None = None
    for _, load in episodes:
        try:
            leaves = load()
        except (SerfnError, OSError, ValueError, LookupError) as error:
            refused = refused or error
            continue
        if leaves and all(len(leaf) for leaf in leaves.values()):
            return leaves
        first = first or leaves
    if first:
        return first
    raise refused or DataError(f"{what} has no episodes")


def _storage(folder: Path, data_format: str) -> Storage:
    if data_format == "hdf5":
        return Hdf5Storage(folder / "main_data.hdf5")
    if data_format in ("arrow", "parquet"):
        return ArrowStorage(folder, data_format)
    raise DataError(f"data_format is '{data_format}'; hdf5, arrow and parquet are read")


def _space(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a space as Minari writes it, or nothing where the data set leaves it to its environment."""
    text = metadata.get(name)
    return {} if text is None else json.loads(text)


def _shapes(name: str, space: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parts of a space by path, in its order."""
    kind = space.get("type")
    if kind in ("Dict", "Tuple"):
        parts = space["subspaces"]
        items = parts.items() if kind == "Dict" else ((str(i), part) for i, part in enumerate(parts))
        return {path: shape for key, part in items for path, shape in _shapes(f"{name}/{key}", part).items()}
    if kind == "Box":
        return {name: tuple(int(size) for size in space["shape"])}
    return {}


def _fields(first: Mapping[str, Leaf], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Field]:
    """Return what each array holds, those of the spaces first and in their order."""
    order = [name for name in shapes if name in first]
    names = [*order, *(name for name in first if name not in shapes)]
    return {name: _field(name, first[name], shapes.get(name)) for name in names}


def _field(name: str, leaf: Leaf, shape: tuple[int, ...] | None) -> Field:
    if leaf.bytes_per_item:
        item = next(iter(leaf.items()), b"")
        if not item.startswith(_JPEG):
            return Field(name, "string", ())
        return Field(name, "image", shape if shape and len(shape) == 3 else decode_image(item).shape)
    if shape is not None and math.prod(shape) == math.prod(leaf.shape):
        return Field(name, leaf.dtype, shape)
    return Field(name, leaf.dtype, leaf.shape)


def _choose(fields: Mapping[str, Field], mapping: NameMapping) -> Parts:
    def below(part: str) -> list[str]:
        return [
            name
            for name, item in fields.items()
            if name.split("/")[0] == part and item.is_vector and len(item.shape) <= 1
        ]

    guess = Guess(
        observations=below("observations"),
        actions=below("actions"),
        reward=["rewards"],
        success=["infos/success", "infos/is_success"],
        terminated=["terminations"],
        truncated=["truncations"],
        ordered=True,
    )
    parts = choose_parts(fields, mapping, guess)
    for item in parts.actions:
        if not item.dtype.startswith("float"):
            raise DataError(f"actions: '{item}' is discrete; only continuous actions are learned")
    return parts


def _action_spec(space: Mapping[str, Any], parts: Parts) -> ActionSpec | None:
    """Return the bounds of a Box of actions that is read whole, if they are finite."""
    if space.get("type") != "Box" or [item.name for item in parts.actions] != ["actions"]:
        return None
    low, high = (np.asarray(space[end], np.float64).ravel() for end in ("low", "high"))
    if low.shape != high.shape or not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        return None
    return ActionSpec(low=tuple(low.tolist()), high=tuple(high.tolist()))


@dataclass(frozen=True)
class _Reader:
    """Reads the episodes of a data set that was understood, one at a time."""

    what: str
    storage: Storage
    parts: Parts
    task: str

    def episodes(self) -> Iterator[EpisodeResult]:
        """Yield the episodes in order."""
        with understood(self.what):
            for index, (file, load) in enumerate(self.storage.episodes()):
                yield examine(file, f"episode {index}", lambda load=load: self._episode(load()))

    def _episode(self, leaves: Mapping[str, Leaf]) -> Episode:
        parts = self.parts
        actions = _vectors(leaves, parts.actions)

        def scalar(item: Field) -> np.ndarray:
            return _values(leaves, item).reshape(-1)

        outcome = parts.outcome(len(actions), scalar)
        acted = parts.interventions(scalar)
        seed = leaves["seed"].values() if "seed" in leaves else None
        return Episode(
            observations=_vectors(leaves, parts.observations),
            actions=actions,
            rewards=outcome.rewards,
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            success=outcome.success,
            seed=None if seed is None or not len(seed) else int(seed[0]),
            task=self.task,
            chunk_starts=np.ones(len(actions), bool),
            interventions=None if acted is None else acted[-len(actions) :],
            images={_camera_name(item): _images(leaves, item) for item in parts.images},
        )


def _leaf(leaves: Mapping[str, Leaf], item: Field) -> Leaf:
    if item.name not in leaves:
        raise DataError(f"there is no '{item.name}'; found {', '.join(leaves) or 'nothing'}")
    return leaves[item.name]


def _values(leaves: Mapping[str, Leaf], item: Field) -> np.ndarray:
    leaf = _leaf(leaves, item)
    if leaf.bytes_per_item or math.prod(leaf.shape) != math.prod(item.shape):
        raise DataError(f"'{item.name}' has {list(leaf.shape)} per step; the first episode has '{item}'")
    values = leaf.values()
    if values.dtype.kind not in "biuf":
        raise DataError(f"'{item.name}' holds {values.dtype}; the first episode has '{item}'")
    return values


def _vectors(leaves: Mapping[str, Leaf], items: Sequence[Field]) -> np.ndarray:
    columns = [_values(leaves, item) for item in items]
    return np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)


def _images(leaves: Mapping[str, Leaf], item: Field) -> np.ndarray:
    leaf = _leaf(leaves, item)
    if item.dtype != "image":
        return _values(leaves, item).reshape(-1, *item.shape)
    return np.stack([decode_image(data, item.shape) for data in leaf.items()])


def _camera_name(item: Field) -> str:
    return item.name.removeprefix("observations/").replace("/", ".")
