"""Data sets of every format behind one door: recognised by content, opened, or read as demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from serfn.core.errors import DataError
from serfn.core.registry import Registry
from serfn.core.spec import ActionSpec
from serfn.data.demonstrations import Demonstrations, infer_action_spec
from serfn.data.episode import Episode
from serfn.data.formats import lerobot_layout
from serfn.data.formats.lerobot import open_lerobot
from serfn.data.formats.minari import METADATA, open_minari
from serfn.data.formats.npz import load_npz, open_npz
from serfn.data.formats.robomimic import open_robomimic
from serfn.data.inferred import infer_outcomes
from serfn.data.mapping import GUESS_ALL, NameMapping
from serfn.data.source import BadEpisode, EpisodeResult, EpisodeSource, FormatName, examine, left_out
from serfn.data.store.store import EpisodeStore, is_store

_ZIP = b"PK"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MINARI_FILE = "main_data.hdf5"
_DONE_AT_EVERY_END: FormatName = "robomimic"
"""Format whose `dones` are commonly set at the last step of every demonstration, whatever happened."""


@dataclass(frozen=True)
class DataFormat:
    """How data sets of one format are recognised and opened.

    Attributes:
        holds: Whether a path, which exists, holds a data set of this format.
        open: Opens it under a mapping of its names; raises `DataError` for what cannot be read.
    """

    holds: Callable[[Path], bool]
    open: Callable[[str | Path, NameMapping], EpisodeSource]


def recognise(path: str | Path) -> FormatName:
    """Return the format of a data set, by what is there rather than by its name.

    Raises:
        DataError: There is nothing, or nothing that is known.
        ConfigError: The format of another package does not work.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"'{path}' does not exist; check the path of the data set")
    for name in formats.names():
        if formats.find(name).holds(path):
            return name
    if path.is_dir():
        raise DataError(
            f"folder '{path}' holds no data set that is known; expected {lerobot_layout.INFO} (LeRobot), "
            f"{METADATA} (Minari) or an episode store"
        )
    with path.open("rb") as file:
        start = file.read(len(_HDF5))
    if start == _HDF5:
        raise DataError(f"'{path}' is part of a Minari data set; give the folder that holds it")
    raise DataError(
        f"'{path}' starts with {start!r}; NPZ and HDF5 files are read, and folders of LeRobot, Minari and "
        "episode stores"
    )


def open_source(path: str | Path, mapping: NameMapping = GUESS_ALL) -> EpisodeSource:
    """Open a data set of any format.

    Args:
        path: File or folder.
        mapping: Which of its names mean what.

    Raises:
        DataError: It is not recognised, cannot be read, or lacks what is asked for.
        ConfigError: A package that reads the format is missing.
    """
    return formats.find(recognise(path)).open(path, mapping)


def load_demonstrations(
    path: str | Path,
    action_spec: ActionSpec | None = None,
    mapping: NameMapping = GUESS_ALL,
    *,
    obs_dim: int | None = None,
    images: bool = False,
    skip_bad: bool = False,
) -> Demonstrations:
    """Read a data set of any format as demonstrations.

    Args:
        path: File or folder.
        action_spec: Bounds of the actions. None takes those of the data set, or else infers them.
        mapping: Which of its names mean what.
        obs_dim: Observation dimensions of the task, if they must fit.
        images: Also read images; what learns from vectors saves the time and memory.
        skip_bad: Leave out episodes that cannot be used, and say in a note how many; else the first is
            refused.

    Returns:
        The demonstrations; `notes` says what was guessed or assumed.

    Raises:
        DataError: See `open_source`; or dimensions do not fit the task, and what was found is listed.
        ConfigError: See `open_source`.
    """
    if recognise(path) == "npz" and mapping == GUESS_ALL and not skip_bad:
        found = load_npz(path, action_spec)
        episodes, guesses = _outcomes(found.episodes, "npz")
        found = replace(found, episodes=episodes, notes=(*found.notes, *guesses))
        return _fitting(found, path, None, action_spec, obs_dim)
    source = open_source(path, mapping if images else replace(mapping, images=()))
    bad: list[BadEpisode] | None = [] if skip_bad else None
    episodes = tuple(source.read(bad, action_spec))
    notes = source.notes
    missing = left_out(bad, len(episodes) + len(bad)) if bad else None
    if not episodes:
        why = f"; {missing}" if bad else ""
        raise DataError(f"'{path}' has no episodes that can be used{why}; record or convert some")
    episodes, guesses = _outcomes(episodes, source.format)
    notes += guesses
    found = action_spec or source.action_spec
    if found is None:
        found = infer_action_spec(episodes)
        notes += ("no action bounds: inferred from the actions with a margin",)
    # Checked before the bounds, which cannot be compared in other dimensions.
    if action_spec is not None and episodes[0].actions.shape[1] != action_spec.dim:
        raise DataError(
            f"'{path}' has actions of {episodes[0].actions.shape[1]} dimensions, the task {action_spec.dim}; "
            f"choose others by a mapping; found {source.content}"
        )
    try:
        demonstrations = Demonstrations(
            episodes,
            found,
            notes,
            control_hz=source.control_hz,
            observation_names=source.observation_names,
            action_names=source.action_names,
            guessed_order=source.guessed_order,
            left_out=missing,
        )
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error
    return _fitting(demonstrations, path, source.content, action_spec, obs_dim)


def with_outcomes(source: EpisodeSource, look: EpisodeSource | None = None) -> EpisodeSource:
    """Return the source with the outcomes that its rewards tell; each guess is among its notes.

    Args:
        source: Data set whose episodes are read one at a time.
        look: The same without images, to look at all of them first; None reads the source itself.
    """
    seen = (look or source).read([])
    inferred = infer_outcomes(seen, done_at_every_end=source.format == _DONE_AT_EVERY_END)

    def results() -> Iterator[EpisodeResult]:
        for result in source.results():
            yield inferred.tell(result) if isinstance(result, Episode) else result

    return replace(source, results=results, notes=(*source.notes, *inferred.notes))


def _outcomes(
    episodes: tuple[Episode, ...], format_name: FormatName
) -> tuple[tuple[Episode, ...], tuple[str, ...]]:
    """Return the episodes with the outcomes that their rewards tell, and what was guessed."""
    inferred = infer_outcomes(episodes, done_at_every_end=format_name == _DONE_AT_EVERY_END)
    return tuple(inferred.tell(episode) for episode in episodes), inferred.notes


def _fitting(
    demonstrations: Demonstrations,
    path: str | Path,
    content: str | None,
    action_spec: ActionSpec | None,
    obs_dim: int | None,
) -> Demonstrations:
    if obs_dim is not None and demonstrations.obs_dim != obs_dim:
        remedy = "record demonstrations in this environment"
        remedy += "" if content is None else f", or choose others by a mapping; found {content}"
        raise DataError(
            f"'{path}' has {demonstrations.obs_dim} observation dimensions, the task has {obs_dim}; {remedy}"
        )
    return demonstrations


def open_store(path: str | Path, mapping: NameMapping = GUESS_ALL) -> EpisodeSource:
    """Open an episode store as any other data set; episodes that were set aside are left out.

    Raises:
        DataError: The store cannot be read; or names were mapped, which this format has none of.
    """
    if mapping not in (GUESS_ALL, NameMapping(images=())):
        raise DataError(f"'{path}' is an episode store, which needs no mapping; leave it out")
    store = EpisodeStore(path)
    task = store.task
    kept = [number for number in store.numbers if not store.labels(number).discard]
    images = mapping.images is None

    def results() -> Iterator[EpisodeResult]:
        for number in kept:
            read = partial(store.episode, number, images=images)
            yield examine(store.file(number), f"episode {number}", read)

    return EpisodeSource(
        path=Path(path),
        format="store",
        count=len(kept),
        results=results,
        content=f"observations [{task.observation.dim}], actions [{task.action.dim}]",
        control_hz=task.control_hz,
        action_spec=task.action,
        observation_names=task.observation.names,
        action_names=task.action.names,
    )


def _is_minari(path: Path) -> bool:
    return any((folder / METADATA).is_file() for folder in (path, path / "data"))


def _starts_with(path: Path, start: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(start)) == start


STORE = DataFormat(is_store, open_store)
LEROBOT = DataFormat(lambda path: (path / lerobot_layout.INFO).is_file(), open_lerobot)
MINARI = DataFormat(_is_minari, open_minari)
NPZ = DataFormat(lambda path: _starts_with(path, _ZIP), open_npz)
ROBOMIMIC = DataFormat(lambda path: _starts_with(path, _HDF5) and path.name != _MINARI_FILE, open_robomimic)

formats: Registry[DataFormat] = Registry(
    "formats",
    {name: f"{__name__}:{name.upper()}" for name in ("store", "lerobot", "minari", "npz", "robomimic")},
    check=lambda part: None if isinstance(part, DataFormat) else "is no serfn.data.datasets.DataFormat",
)
"""The formats by name, in the order in which a data set is tried; other packages' come after ours."""
