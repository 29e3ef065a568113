"""Reading demonstrations in robomimic's HDF5 layout.

Layout::

    data                        attributes: env_args (JSON: env_name, env_kwargs with control_freq)
    data/demo_0/actions         [T, action]
    data/demo_0/rewards, dones  [T]
    data/demo_0/states          [T, ...], simulator states
    data/demo_0/obs/NAME        [T, ...], before each action
    data/demo_0/next_obs/NAME   [T, ...], after each action
    mask/NAME                   names of a subset of the demonstrations

Arrays below `obs` are named without it. `dones` of the last step says whether the task ended. The terminal
observation is the last one of `next_obs`; where that is missing, the last of `obs` is repeated.

Reference: robomimic 0.3, `docs/datasets/overview` and `utils/dataset.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serfn.core.errors import DataError
from serfn.data.episode import Episode
from serfn.data.formats.hdf5 import arrays, field, group, opened, read
from serfn.data.formats.parts import Guess, Parts, choose_parts
from serfn.data.mapping import GUESS_ALL, Field, NameMapping, listing
from serfn.data.source import EpisodeResult, EpisodeSource, examine

_OBS, _NEXT_OBS, _STATES, _REWARDS = "obs/", "next_obs/", "states", "rewards"


def open_robomimic(path: str | Path, mapping: NameMapping = GUESS_ALL) -> EpisodeSource:
    """Open an HDF5 file of demonstrations.

    Args:
        path: The file.
        mapping: Which arrays mean what. Guessed are: all vectors of `obs` in alphabetical order, else
            `states`; `actions`, all cameras, `rewards` and `dones`; and success where rewards are 0 or 1.
            `subset` names one of the file's masks.

    Raises:
        DataError: The file cannot be read, lacks an array (those found are listed) or the mask. Episodes
            raise it when they are read.
    """
    path = Path(path)
    with opened(path, "robomimic file") as file:
        data = group(file, "data")
        names = _demonstrations(file, data, mapping.subset)
        whole = [name for name in names if _is_whole(data, name)] or names
        found = _fields(arrays(group(data, whole[0])))
        parts = _choose(found, mapping, data, whole)
        notes = parts.notes
        if not any(name.startswith(_NEXT_OBS) for name in arrays(group(data, whole[0]))):
            notes += ("no terminal observations: the last observation of each episode is repeated",)
        env_name, control_hz = _environment(data)
    reader = _Reader(path, tuple(names), parts, env_name)
    return EpisodeSource(
        path=path,
        format="robomimic",
        count=len(names),
        results=reader.episodes,
        content=listing(found.values()),
        control_hz=control_hz,
        observation_names=parts.names(parts.observations, "obs/"),
        action_names=parts.names(parts.actions),
        guessed_order=parts.guessed_order,
        notes=notes,
    )


def _demonstrations(file: Any, data: Any, subset: str | None) -> list[str]:
    """Return the names of the demonstrations in the order of their numbers."""
    names = [str(name) for name in data]
    if subset is not None:
        masks = [str(name) for name in file["mask"]] if "mask" in file else []
        if subset not in masks:
            raise DataError(f"there is no mask '{subset}'; found {', '.join(masks) or 'none'}")
        wanted = [
            item.decode() if isinstance(item, bytes) else str(item) for item in file["mask"][subset][()]
        ]
        missing = [name for name in wanted if name not in data]
        if missing:
            raise DataError(f"mask '{subset}' names '{missing[0]}', which is not in the data")
        names = wanted
    if not names:
        raise DataError("the group 'data' holds no demonstrations")
    return sorted(names, key=_number)


def _is_whole(data: Any, name: str) -> bool:
    """Return whether a demonstration can tell the shapes of all: a group without empty arrays."""
    item = data.get(name)
    found = arrays(item) if hasattr(item, "visititems") else {}
    return bool(found) and all(len(array) for array in found.values())


def _number(name: str) -> tuple[int, str]:
    digits = re.search(r"(\d{1,18})$", name)
    return (int(digits[1]) if digits else -1, name)


def _fields(found: Mapping[str, Any]) -> dict[str, Field]:
    """Return the arrays of a demonstration as fields; those of `obs` lose their prefix where it is free."""
    fields = {}
    for path, array in found.items():
        if not path.startswith(_NEXT_OBS):
            name = path.removeprefix(_OBS)
            name = path if name in found else name
            fields[name] = field(name, array)
    return fields


def _choose(fields: Mapping[str, Field], mapping: NameMapping, data: Any, names: list[str]) -> Parts:
    demonstration = group(data, names[0])
    vectors = [
        name
        for name, item in fields.items()
        if _path(name, demonstration).startswith(_OBS) and item.is_vector and len(item.shape) <= 1
    ]
    reward = mapping.reward or _REWARDS
    guess = Guess(
        observations=vectors or [_STATES],
        actions=["actions"],
        reward=[_REWARDS],
        success=[reward] if reward in fields and _binary(data, names, reward) else [],
        terminated=["dones"],
    )
    return choose_parts(fields, mapping, guess)


def _binary(data: Any, names: list[str], reward: str) -> bool:
    """Return whether all rewards are 0 or 1, as those of robomimic's own tasks."""
    groups = [group(data, name) for name in names]
    values = [read(_array(item, reward)) for item in groups if _path(reward, item) in item]
    return all(np.isin(item, (0, 1)).all() for item in values)


def _environment(data: Any) -> tuple[str, float | None]:
    """Return the name of the environment and its rate, as far as the file says."""
    try:
        arguments = json.loads(data.attrs["env_args"])
        name = str(arguments.get("env_name", ""))
        rate = float(arguments["env_kwargs"]["control_freq"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return "", None
    return name, rate if 0 < rate < float("inf") else None


def _path(name: str, demonstration: Any) -> str:
    return name if name in demonstration else _OBS + name


def _array(demonstration: Any, name: str) -> Any:
    return demonstration[_path(name, demonstration)]


@dataclass(frozen=True)
class _Reader:
    """Reads the demonstrations of a file that was understood, one at a time."""

    path: Path
    names: tuple[str, ...]
    parts: Parts
    task: str

    def episodes(self) -> Iterator[EpisodeResult]:
        """Yield the episodes in order."""
        with opened(self.path, "robomimic file") as file:
            data = group(file, "data")
            for name in self.names:
                yield examine(self.path, name, lambda name=name: self._episode(group(data, name)))

    def _episode(self, demonstration: Any) -> Episode:
        parts = self.parts
        actions = np.concatenate([self._values(demonstration, item) for item in parts.actions], axis=1)
        steps = len(actions)

        def scalar(item: Field) -> np.ndarray:
            return self._values(demonstration, item)[:, 0]

        outcome = parts.outcome(steps, scalar)
        vectors = [self._with_last(demonstration, item) for item in parts.observations]
        return Episode(
            observations=np.concatenate([item.reshape(len(item), -1) for item in vectors], axis=1),
            actions=actions,
            rewards=outcome.rewards,
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            success=outcome.success,
            task=self.task,
            chunk_starts=np.ones(steps, bool),
            interventions=parts.interventions(scalar),
            images={
                item.name.replace("/", "."): self._with_last(demonstration, item) for item in parts.images
            },
        )

    def _values(self, demonstration: Any, item: Field) -> np.ndarray:
        """Return the values of an array as `[T, n]`."""
        values = self._read(_array(demonstration, item.name), item)
        return values.reshape(len(values), -1)

    def _with_last(self, demonstration: Any, item: Field) -> np.ndarray:
        """Return `[T + 1, ...]` of an observation."""
        values = self._read(_array(demonstration, item.name), item)
        following = demonstration.get(_NEXT_OBS + item.name.removeprefix(_OBS))
        last = values[-1:] if following is None else self._read(following, item)[-1:]
        return np.concatenate([values, last])

    def _read(self, array: Any, item: Field) -> np.ndarray:
        if tuple(array.shape[1:]) != item.shape or array.dtype.kind not in "biuf" or not len(array):
            raise DataError(
                f"'{array.name}' is {array.dtype} {list(array.shape)}; the first demonstration has '{item}' "
                "per step"
            )
        return read(array)
