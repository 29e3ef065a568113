"""`serfn data convert`: a data set in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from serfn.cli.options import optional
from serfn.cli.overrides import override
from serfn.cli.progress import make_progress
from serfn.core.config import load_config

Assignments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="set", metavar="NAME=VALUE")
]


def convert(
    source: Annotated[Path, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
    *,
    to: Annotated[Literal["lerobot", "npz", "store"] | None, optional("FORMAT", "by the name")] = None,
    hz: Annotated[float | None, optional("HZ", "what the data set says")] = None,
    resample: Annotated[float | None, optional("HZ", "keep the rate")] = None,
    actions: Annotated[Literal["targets", "rates"] | None, optional("KIND", "needed by --resample")] = None,
    images: Literal["png", "video"] = "png",
    robot: Annotated[str | None, optional("NAME", "none")] = None,
    skip_bad: bool = False,
    mapping: Annotated[Path | None, optional("FILE", "guesses, which are printed")] = None,
    assignments: Assignments = (),
) -> None:
    """Write a data set in another format; stores, LeRobot, robomimic, Minari and NPZ are read.

    Args:
        source: Data set to read; its format is recognised by its content.
        target: File or folder to make.
        to: Format to write: lerobot, npz or store. Without it, a name that ends in .npz becomes NPZ, a store
            becomes LeRobot, and anything else a store.
        hz: Control steps per second of the data set to read.
        resample: Control steps per second of the new data set.
        actions: What the actions are, for --resample: targets (positions) or rates (velocities, forces).
            Displacements per step cannot be resampled.
        images: How LeRobot keeps images: png exactly, video small and slightly lossy.
        robot: Name of the robot, for LeRobot.
        skip_bad: Leave out episodes that cannot be used, and say which; see 'serfn data check'.
        mapping: TOML or JSON file that says which names of the data set mean what.
        assignments: One entry of the mapping, such as --set 'observations=["state", "object"]'; may be
            repeated.
    """
    from serfn.data.convert import ConvertOptions
    from serfn.data.convert import convert as run
    from serfn.data.episode import Episode
    from serfn.data.mapping import GUESS_ALL, NameMapping
    from serfn.data.source import EpisodeSource

    names = override(GUESS_ALL if mapping is None else load_config(NameMapping, mapping), assignments)
    options = ConvertOptions(
        to=to,
        control_hz=hz,
        images=images,
        robot_type=robot,
        resample_hz=resample,
        actions=actions,
        skip_bad=skip_bad,
    )
    with make_progress() as progress:

        def opened(found: EpisodeSource) -> None:
            progress.note(f"{found.path} is a data set of the format {found.format}")
            for note in found.notes:
                progress.note(note)
            progress.stage_started("convert", found.count)

        def written(episode: Episode) -> None:
            progress.advanced("convert", 1, {})

        done = run(source, target, options, names, opened=opened, written=written)
        progress.stage_finished("convert", {})
    console = Console(highlight=False, soft_wrap=True)
    for bad in done.bad:
        console.print(f"left out: {bad}", markup=False)
    left = f", {len(done.bad)} bad left out" if done.bad else ""
    console.print(
        f"wrote {target}: {done.to}, {done.episodes} episodes, {done.steps} steps{left}",
        markup=False,
    )
