"""Demonstrations in one NPZ file of flat arrays: the simplest way to bring own data.

With N the number of steps of all E episodes together, one after the other, the file holds:

    observations           [N, obs]       before each action; or [N + E, obs], where each episode has its
                                          terminal observation as a last row of its own
    actions                [N, action]    as executed, physical units
    episode_ends           [E] integers   exclusive end of each episode in steps; the last is N

and may hold:

    terminal_observations  [E, obs]       beside observations of N rows; else the last one is repeated
    rewards                [N]            else 1 at the last step of each success, 0 elsewhere
    success                [E] or [N]     bool, or integers with -1 for unknown; per step: any of them
    terminated, truncated  [E] or [N]     else successful episodes terminate, the others are truncated
    action_low, action_high  [action]     bounds of the actions; else inferred
    chunk_starts           [N] bool       where a chunk begins; else everywhere
    seed, policy_version   [E] integers   a seed of -1 is unknown
    metric_<name>          [E]            numbers of the task; NaN where an episode has none
    proposed_actions       [N, action]    what the policy asked for; NaN where it was not recorded
    interventions          [N]            1 where a person acted, -1 where it was not recorded
    timestamps_s           [N + E]        of each observation, the terminal ones included; NaN if unknown
    image_<camera>         [N + E, height, width, channels] uint8, one for each observation
    task, success_source   [E] text       see `serfn.data.episode.Episode`
    interrupted            [E] bool       the recording was cut by a crash
    control_hz             number         control steps per second
    observation_names, action_names  [obs], [action] text, names of the dimensions

One of `rewards` and `success` is needed. Write such a file with
`numpy.savez("demos.npz", observations=..., actions=..., episode_ends=..., success=...)`.
Pickled content is never loaded.
"""

from __future__ import annotations

import functools
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from serfn.core.errors import DataError, SerfnError
from serfn.core.files import whole_file
from serfn.core.spec import ActionSpec
from serfn.data.demonstrations import Demonstrations, infer_action_spec
from serfn.data.episode import Episode
from serfn.data.formats.npz_extras import NAMES, TEXTS, extra_arrays, extras_of_episodes, task_arrays
from serfn.data.mapping import GUESS_ALL, NameMapping
from serfn.data.source import BadEpisode, EpisodeResult, EpisodeSource, examine, understood

_METRIC = "metric_"
_INFERRED = "no action bounds: inferred from the actions with a margin; give the robot's own bounds if known"


class _Content(NamedTuple):
    """Episodes of a file, those that are bad included, with the bounds, notes, rate and names that it has."""

    results: list[EpisodeResult]
    spec: ActionSpec | None
    notes: tuple[str, ...]
    said: dict[str, Any]


def load_npz(path: str | Path, action_spec: ActionSpec | None = None) -> Demonstrations:
    """Read demonstrations from an NPZ file.

    Args:
        path: File to read; its layout is described by this module.
        action_spec: Bounds of the actions. None takes them from the file, or else infers them from the
            actions.

    Returns:
        The demonstrations; `notes` says what had to be assumed.

    Raises:
        DataError: The file cannot be read, lacks an array (the keys found are listed), has shapes that
            disagree, or holds values that are not finite or outside the bounds (episode and step are named).
    """
    path = Path(path)
    content = _load(path)
    for result in content.results:
        if isinstance(result, BadEpisode):
            raise DataError(str(result), result.step)
    episodes = [result for result in content.results if isinstance(result, Episode)]
    spec = action_spec or content.spec
    notes = content.notes if spec else (*content.notes, _INFERRED)
    try:
        return Demonstrations(tuple(episodes), spec or infer_action_spec(episodes), notes, **content.said)
    except SerfnError as error:
        raise DataError(f"{path}: {error}") from error


def open_npz(path: str | Path, mapping: NameMapping = GUESS_ALL) -> EpisodeSource:
    """Open an NPZ file as any other data set; it is read whole.

    Raises:
        DataError: See `load_npz`; or names were mapped, which this format has none of.
    """
    if mapping not in (GUESS_ALL, NameMapping(images=())):
        raise DataError(f"'{path}' is an NPZ file, whose arrays have fixed names; leave the mapping out")
    content = _load(Path(path))
    good = [result for result in content.results if isinstance(result, Episode)]
    sizes = f"{good[0].observations.shape[1]}], actions [{good[0].actions.shape[1]}" if good else "?"
    return EpisodeSource(
        path=Path(path),
        format="npz",
        count=len(content.results),
        results=lambda: iter(content.results),
        content=f"observations [{sizes}]",
        action_spec=content.spec or (infer_action_spec(good) if good else None),
        notes=content.notes if content.spec else (*content.notes, _INFERRED),
        **content.said,
    )


def _load(path: Path) -> _Content:
    arrays = _read(path)
    with understood(f"'{path}'"):
        try:
            return _results(path, arrays)
        except SerfnError as error:
            raise DataError(f"{path}: {error}") from error


def save_npz(
    path: str | Path,
    episodes: Sequence[Episode],
    action_spec: ActionSpec | None = None,
    *,
    control_hz: float | None = None,
    observation_names: Sequence[str] = (),
    action_names: Sequence[str] = (),
) -> None:
    """Write episodes to an NPZ file that `load_npz` reads back; the file appears whole or not at all.

    Args:
        path: File to write; the folder must exist.
        episodes: At least one episode.
        action_spec: Bounds of the actions to store with them, with their names.
        control_hz: Control steps per second to store with them.
        observation_names: Names of the dimensions of observations to store with them.
        action_names: Names of the actions, where the bounds have none.

    Raises:
        DataError: There are no episodes, or their cameras differ.
    """
    if not episodes:
        raise DataError(f"{path}: nothing to save; give at least one episode")
    unknown = any(episode.success is None for episode in episodes)
    success = [-1 if episode.success is None else int(episode.success) for episode in episodes]
    arrays = {
        "observations": np.concatenate([episode.observations[:-1] for episode in episodes]),
        "terminal_observations": np.stack([episode.observations[-1] for episode in episodes]),
        "actions": np.concatenate([episode.actions for episode in episodes]),
        "rewards": np.concatenate([episode.rewards for episode in episodes]),
        "episode_ends": np.cumsum([episode.length for episode in episodes]),
        "terminated": np.array([episode.terminated for episode in episodes]),
        "truncated": np.array([episode.truncated for episode in episodes]),
        "success": np.array(success, np.int8 if unknown else np.bool_),
        "seed": np.array([-1 if episode.seed is None else episode.seed for episode in episodes], np.int64),
        "policy_version": np.array([episode.policy_version for episode in episodes], np.int64),
        "chunk_starts": np.concatenate([episode.chunk_starts for episode in episodes]),
    }
    for name in sorted({name for episode in episodes for name in episode.metrics}):
        arrays[_METRIC + name] = np.array([episode.metrics.get(name, np.nan) for episode in episodes])
    arrays |= extra_arrays(episodes)
    if action_spec is not None:
        arrays["action_low"] = np.array(action_spec.low)
        arrays["action_high"] = np.array(action_spec.high)
        action_names = action_spec.names or action_names
    if control_hz is not None:
        arrays["control_hz"] = np.array(control_hz)
    if observation_names:
        arrays["observation_names"] = np.array(observation_names)
    if action_names:
        arrays["action_names"] = np.array(action_names)
    with whole_file(Path(path)) as temporary, temporary.open("xb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _read(path: Path) -> dict[str, np.ndarray]:
    with understood(f"'{path}'", zlib.error, struct.error, SyntaxError):
        try:
            archive = np.load(path, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f"'{path}' holds a single array; save named arrays with numpy.savez")
            with archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"cannot read '{path}': {error}; check that it is an NPZ file") from error
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"'{path}' is no NPZ file of plain arrays ({error}); write it with numpy.savez"
            ) from error


def _results(path: Path, arrays: Mapping[str, np.ndarray]) -> _Content:
    for name in ("observations", "actions", "episode_ends"):
        if name not in arrays:
            raise DataError(f"array '{name}' is missing; found {_keys(arrays)}")
    for name, array in arrays.items():
        if array.dtype.kind not in ("U" if name in (*TEXTS, *NAMES) else "biuf"):
            raise DataError(f"array '{name}' has dtype {array.dtype}; only numbers and booleans are read")
    actions, observations = arrays["actions"], arrays["observations"]
    if actions.ndim != 2 or observations.ndim != 2:
        raise DataError(
            f"actions {actions.shape} and observations {observations.shape} must both be [steps, size]"
        )
    ends = _episode_ends(arrays["episode_ends"], len(actions))
    notes: list[str] = []
    episode_observations = _split_observations(arrays, ends, notes)
    success = _success(arrays, ends)
    rewards = _rewards(arrays, ends, success)
    terminated, truncated = _ends_of_episodes(arrays, ends, success, notes)
    chunk_starts = _per_step(arrays, "chunk_starts", len(actions))
    seeds = _per_episode(arrays, "seed", len(ends))
    versions = _per_episode(arrays, "policy_version", len(ends))
    metrics = {
        name.removeprefix(_METRIC): _per_episode(arrays, name, len(ends))
        for name in arrays
        if name.startswith(_METRIC)
    }
    extras = extras_of_episodes(arrays, ends)
    bounds = zip(np.r_[0, ends[:-1]], ends, strict=True)

    def episode(index: int, start: int, end: int) -> Episode:
        return Episode(
            observations=episode_observations[index],
            actions=actions[start:end],
            rewards=rewards[start:end],
            terminated=bool(terminated[index]),
            truncated=bool(truncated[index]),
            success=success[index],
            seed=None if seeds is None or seeds[index] < 0 else int(seeds[index]),
            policy_version=0 if versions is None else int(versions[index]),
            metrics={
                name: float(column[index])
                for name, column in metrics.items()
                if column is not None and not np.isnan(column[index])
            },
            chunk_starts=np.ones(end - start, bool) if chunk_starts is None else chunk_starts[start:end],
            **extras[index],
        )

    results = [
        examine(path, f"episode {index}", functools.partial(episode, index, start, end))
        for index, (start, end) in enumerate(bounds)
    ]
    said = task_arrays(arrays, observations.shape[1], actions.shape[1])
    return _Content(results, _stored_spec(arrays), tuple(notes), said)


def _episode_ends(ends: np.ndarray, steps: int) -> np.ndarray:
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or len(ends) == 0:
        raise DataError(f"episode_ends are {ends.dtype} {ends.shape}; give one integer per episode")
    ends = ends.astype(np.int64)
    if (np.diff(ends, prepend=0) <= 0).any() or ends[-1] != steps:
        raise DataError(
            f"episode_ends run from {ends[0]} to {ends[-1]} for {steps} actions; they must "
            "increase from above 0 and end with the number of actions"
        )
    return ends


def _split_observations(
    arrays: Mapping[str, np.ndarray], ends: np.ndarray, notes: list[str]
) -> list[np.ndarray]:
    """Return `[T + 1, obs]` per episode from any of the three layouts."""
    observations, terminal = arrays["observations"], arrays.get("terminal_observations")
    steps, episodes = int(ends[-1]), len(ends)
    if len(observations) == steps + episodes and terminal is None:
        return np.split(observations, (ends + np.arange(1, episodes + 1))[:-1])
    if len(observations) != steps:
        raise DataError(
            f"observations have {len(observations)} rows for {steps} actions in {episodes} episodes; give "
            f"{steps}, or {steps + episodes} with the terminal ones (and then no terminal_observations)"
        )
    pieces = np.split(observations, ends[:-1])
    if terminal is None:
        notes.append("no terminal observations: the last observation of each episode is repeated")
        return [np.concatenate([piece, piece[-1:]]) for piece in pieces]
    if terminal.shape != (episodes, observations.shape[1]):
        raise DataError(
            f"terminal_observations have shape {terminal.shape}; expected {(episodes, observations.shape[1])}"
        )
    return [np.concatenate([piece, last[None]]) for piece, last in zip(pieces, terminal, strict=True)]


def _success(arrays: Mapping[str, np.ndarray], ends: np.ndarray) -> list[bool | None]:
    values = arrays.get("success")
    if values is None:
        return [None] * len(ends)
    if values.shape == (ends[-1],) and len(ends) != ends[-1]:
        values = np.maximum.reduceat(values, np.r_[0, ends[:-1]])
    if values.shape != (len(ends),):
        raise DataError(
            f"success has shape {values.shape}; give one value per episode ({len(ends)}) or step ({ends[-1]})"
        )
    if np.isnan(values).any():
        raise DataError(
            f"success of episode {int(np.argmax(np.isnan(values)))} is NaN; use 0 or 1, or -1 for unknown"
        )
    return [None if value < 0 else bool(value) for value in values]


def _rewards(arrays: Mapping[str, np.ndarray], ends: np.ndarray, success: list[bool | None]) -> np.ndarray:
    rewards = _per_step(arrays, "rewards", int(ends[-1]))
    if rewards is not None:
        return rewards
    if "success" not in arrays:
        raise DataError(f"neither 'rewards' nor 'success' is there; add either; found {_keys(arrays)}")
    if None in success:
        raise DataError(
            f"without 'rewards', success must be known; it is not for episode {success.index(None)}; "
            "set it to 0 or 1, or add rewards"
        )
    rewards = np.zeros(ends[-1], np.float32)
    rewards[ends - 1] = np.array(success, np.float32)
    return rewards


def _ends_of_episodes(
    arrays: Mapping[str, np.ndarray], ends: np.ndarray, success: list[bool | None], notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    terminated = _flag(arrays, "terminated", ends)
    truncated = _flag(arrays, "truncated", ends)
    if terminated is None:
        if truncated is not None:
            return ~truncated, truncated
        notes.append("no terminated or truncated: successful episodes terminate, all others are truncated")
        terminated = np.array([value is True for value in success])
    return terminated, ~terminated if truncated is None else truncated


def _flag(arrays: Mapping[str, np.ndarray], name: str, ends: np.ndarray) -> np.ndarray | None:
    """Return one bool per episode from flags per episode or per step."""
    values = arrays.get(name)
    if values is None:
        return None
    if values.shape == (len(ends),):
        return values.astype(bool)
    if values.shape != (ends[-1],):
        raise DataError(
            f"{name} has shape {values.shape}; give one flag per episode ({len(ends)}) or step ({ends[-1]})"
        )
    values = values.astype(bool)
    inside = values.copy()
    inside[ends - 1] = False
    if inside.any():
        step = int(np.argmax(inside))
        raise DataError(f"{name} is set at step {step}, before the end of its episode; correct episode_ends")
    return values[ends - 1]


def _per_step(arrays: Mapping[str, np.ndarray], name: str, steps: int) -> np.ndarray | None:
    return _column(arrays, name, steps, "step")


def _per_episode(arrays: Mapping[str, np.ndarray], name: str, episodes: int) -> np.ndarray | None:
    return _column(arrays, name, episodes, "episode")


def _column(arrays: Mapping[str, np.ndarray], name: str, length: int, what: str) -> np.ndarray | None:
    values = arrays.get(name)
    if values is not None and values.shape != (length,):
        raise DataError(f"{name} has shape {values.shape}; give one value per {what} ({length})")
    return values


def _stored_spec(arrays: Mapping[str, np.ndarray]) -> ActionSpec | None:
    if "action_low" in arrays and "action_high" in arrays:
        low, high = (np.atleast_1d(arrays[name]) for name in ("action_low", "action_high"))
        if low.ndim != 1 or high.ndim != 1:
            raise DataError(
                f"action_low {low.shape} and action_high {high.shape} must have one number per action"
            )
        return ActionSpec(low=tuple(map(float, low)), high=tuple(map(float, high)))
    return None


def _keys(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(sorted(arrays)) or "nothing"
