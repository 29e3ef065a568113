"""Converting a data set into another format, episode by episode."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from serfn.core.errors import ConfigError, DataError
from serfn.core.files import flush_to_disk, unused_path
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.datasets import open_source, with_outcomes
from serfn.data.demonstrations import infer_action_spec
from serfn.data.episode import Episode
from serfn.data.formats.lerobot_write import LeRobotOptions, write_lerobot
from serfn.data.formats.npz import save_npz
from serfn.data.mapping import GUESS_ALL, NameMapping
from serfn.data.resample import ActionKind, resample
from serfn.data.source import BadEpisode, EpisodeResult, EpisodeSource
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import StoreWriter

TargetFormat = Literal["lerobot", "npz", "store"]

Written = Callable[[Episode], None]


@dataclass(frozen=True)
class ConvertOptions:
    """How to write the new data set.

    Args:
        to: Its format. None takes `npz` for a name that ends so; else a store becomes a LeRobotDataset, and
            anything else a store.
        control_hz: Control steps per second; None takes what the old data set says.
        images: How LeRobot keeps images: `png` exactly, `video` small and slightly lossy.
        robot_type: Name of the robot, for LeRobot.
        resample_hz: Control steps per second of the new data set; None keeps those of the old one.
        actions: What the actions mean while time passes, see `serfn.data.resample`; needed to resample.
        skip_bad: Leave out episodes that cannot be used; else the first is refused.

    Raises:
        ConfigError: An unknown format, a rate that is not positive, or another rate without `actions`.
    """

    to: TargetFormat | None = None
    control_hz: float | None = None
    images: Literal["png", "video"] = "png"
    robot_type: str | None = None
    resample_hz: float | None = None
    actions: ActionKind | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.to is not None and self.to not in get_args(TargetFormat):
            raise ConfigError(f"to is '{self.to}'; choose one of {', '.join(get_args(TargetFormat))}")
        for name in ("control_hz", "resample_hz"):
            if (rate := getattr(self, name)) is not None and not (0 < rate < float("inf")):
                raise ConfigError(f"{name} is {rate}; it must be a positive number")
        if self.actions is not None and self.actions not in get_args(ActionKind):
            raise ConfigError(f"actions is '{self.actions}'; choose one of {', '.join(get_args(ActionKind))}")
        if (self.resample_hz is None) != (self.actions is None):
            raise ConfigError(
                f"resample_hz is {self.resample_hz} and actions is {self.actions}; resampling needs a rate "
                "and what the actions are: targets (positions) or rates (velocities, forces)"
            )


@dataclass(frozen=True)
class Conversion:
    """What was done.

    Args:
        to: Format of the new data set.
        episodes: Number of its episodes.
        steps: Number of their control steps.
        notes: What was guessed or assumed, one sentence each.
        bad: Episodes that were left out.
    """

    to: TargetFormat
    episodes: int
    steps: int
    notes: tuple[str, ...]
    bad: tuple[BadEpisode, ...] = ()


def convert(
    source: str | Path,
    target: str | Path,
    options: ConvertOptions | None = None,
    mapping: NameMapping = GUESS_ALL,
    *,
    opened: Callable[[EpisodeSource], None] | None = None,
    written: Written | None = None,
) -> Conversion:
    """Write the episodes of a data set as a new one, which appears whole or not at all.

    Memory holds one episode at a time, except where either format is NPZ, which is one piece.

    Args:
        source: Data set to read; its format is recognised by its content.
        target: File or folder to make; its parent must exist.
        options: How to write it; None takes the defaults.
        mapping: Which names of the source mean what.
        opened: Called when the source was understood, before anything is read at length.
        written: Called for each episode that was written.

    Raises:
        DataError: The source cannot be used as it is, or its rate is needed and unknown.
        ConfigError: The target exists, or a package that a format needs is missing.
    """
    options = options or ConvertOptions()
    target = Path(target)
    if target.exists():
        raise ConfigError(f"'{target}' already exists; choose another name")
    if not target.parent.is_dir():
        raise ConfigError(f"'{target.parent}' is no folder; make it, or choose another name")
    bare = open_source(source, replace(mapping, images=()))
    found = with_outcomes(open_source(source, mapping), bare)
    to = options.to or _format_of(target, found)
    bad: list[BadEpisode] = []
    if options.skip_bad:
        found = found.without_bad(bad)
    if to == "npz" and options.resample_hz is None:
        found, rate = replace(found, control_hz=options.control_hz or found.control_hz), 0.0
    else:
        found, rate = _resampled(*_with_rate(found, options), options)
    if opened is not None:
        opened(found)
    steps = 0

    def count(episode: Episode) -> None:
        nonlocal steps
        steps += episode.length
        if written is not None:
            written(episode)

    if to == "npz":
        episodes = _to_npz(found, target, count)
    elif to == "lerobot":
        lerobot = LeRobotOptions(fps=rate, images=options.images, robot_type=options.robot_type)
        episodes = write_lerobot(target, found.read(), lerobot, found.action_spec, count)
    else:
        bare = bare.without_bad([]) if options.skip_bad else bare
        if options.resample_hz is not None:
            bare, _ = _resampled(*_with_rate(bare, options), options)
        task = _task(bare, rate, target.stem)
        episodes = _to_store(found, target, task, count)
    return Conversion(to=to, episodes=episodes, steps=steps, notes=found.notes, bad=tuple(bad))


def _format_of(target: Path, source: EpisodeSource) -> TargetFormat:
    if target.suffix == ".npz":
        return "npz"
    return "lerobot" if source.format == "store" else "store"


def _with_rate(source: EpisodeSource, options: ConvertOptions) -> tuple[EpisodeSource, float]:
    """Return the source and its control rate: as given, as it says, or by its timestamps, which is noted.

    Raises:
        DataError: Nothing tells the rate.
    """
    rate = options.control_hz or source.control_hz
    if rate is not None:
        return source, rate
    first = next(source.read(), None)
    if first is not None and first.timestamps_s is not None:
        period = float(np.median(np.diff(first.timestamps_s)))
        # Nominal rates are round; what is measured jitters around them.
        rate = round(2 / period) / 2 if period > 0 else 0.0
        if rate > 0:
            note = f"control rate: {rate:g} steps per second, guessed from the timestamps"
            return replace(source, notes=(*source.notes, note)), rate
    raise DataError(f"'{source.path}' does not say how many steps a second has; give the rate, such as 20")


def _resampled(source: EpisodeSource, rate: float, options: ConvertOptions) -> tuple[EpisodeSource, float]:
    """Return the source at the rate that was asked for, and that rate."""
    wanted, actions = options.resample_hz, options.actions
    if wanted is None or actions is None:
        return source, rate

    def results() -> Iterator[EpisodeResult]:
        return (resample(episode, rate, wanted, actions) for episode in source.read())

    note = f"resampled from {rate:g} to {wanted:g} steps per second, actions as {actions}"
    return replace(source, results=results, control_hz=wanted, notes=(*source.notes, note)), wanted


def _to_npz(source: EpisodeSource, target: Path, count: Written) -> int:
    episodes = list(source.read())
    save_npz(
        target,
        episodes,
        source.action_spec,
        control_hz=source.control_hz,
        observation_names=source.observation_names,
        action_names=source.action_names,
    )
    for episode in episodes:
        count(episode)
    return len(episodes)


def _to_store(source: EpisodeSource, target: Path, task: TaskSpec, count: Written) -> int:
    temporary = unused_path(target)
    try:
        EpisodeStore.create(temporary, task)
        episodes = 0
        with StoreWriter(temporary, flush="episode") as writer:
            for episode in source.read():
                writer.add(episode)
                episodes += 1
                count(episode)
        temporary.rename(target)
        flush_to_disk(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return episodes


def _task(source: EpisodeSource, control_hz: float, name: str) -> TaskSpec:
    """Return what the episodes are of, after a look at all of them without their images."""
    specs: list[ActionSpec] = []
    dims, longest, task = 0, 0, ""
    for episode in source.read():
        if source.action_spec is None:
            specs.append(infer_action_spec([episode]))
        dims = dims or episode.observations.shape[1]
        longest = max(longest, episode.length)
        task = task or episode.task
    if not longest:
        raise DataError(f"'{source.path}' has no episodes; there is nothing to convert")
    action = source.action_spec or _widest(specs)
    names, action_names = source.observation_names, action.names or source.action_names
    return TaskSpec(
        id=task or name,
        observation=ObservationSpec(dim=dims, names=names if len(names) == dims else ()),
        action=replace(action, names=action_names if len(action_names) == action.dim else ()),
        control_hz=control_hz,
        max_episode_steps=longest,
    )


def _widest(specs: list[ActionSpec]) -> ActionSpec:
    """Return bounds that contain all others.

    Raises:
        DataError: Their dimensions differ.
    """
    dims = {spec.dim for spec in specs}
    if len(dims) > 1:
        raise DataError(f"episodes have {sorted(dims)} action dimensions; convert those of one robot")
    low = np.min([spec.low for spec in specs], axis=0)
    high = np.max([spec.high for spec in specs], axis=0)
    return ActionSpec(low=tuple(low.tolist()), high=tuple(high.tolist()))
