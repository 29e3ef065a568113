"""`serfn data convert`: a data set in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from serfn.cli.overrides import override
from serfn.cli.progress import make_progress
from serfn.core.config import load_config


def data_convert(
    source: Annotated[Path, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
    *,
    to: Literal["lerobot", "npz", "store"] | None = None,
    hz: float | None = None,
    images: Literal["png", "video"] = "png",
    robot: str | None = None,
    mapping: Path | None = None,
    set: tuple[str, ...] = (),
) -> None:
    """Convert a data set between episode stores, LeRobot, robomimic, Minari and NPZ.

    Args:
        source: Data set to read; its format is recognised by its content.
        target: File or folder to make.
        to: Format to write; without it, a name that ends in .npz becomes NPZ, a store becomes LeRobot, and
            anything else a store.
        hz: Control steps per second, where the data set does not say.
        images: How LeRobot keeps images: png exactly, video small and slightly lossy.
        robot: Name of the robot, for LeRobot.
        mapping: TOML or JSON file that says which names of the data set mean what.
        set: Single entries of the mapping, such as observations='["state", "object"]'.
    """
    from serfn.data.convert import ConvertOptions, convert
    from serfn.data.episode import Episode
    from serfn.data.mapping import GUESS_ALL, NameMapping
    from serfn.data.source import EpisodeSource

    names = override(GUESS_ALL if mapping is None else load_config(NameMapping, mapping), set)
    options = ConvertOptions(to=to, control_hz=hz, images=images, robot_type=robot)
    with make_progress() as progress:

        def opened(found: EpisodeSource) -> None:
            progress.note(f"{found.path} is a data set of the format {found.format}")
            for note in found.notes:
                progress.note(note)
            progress.stage_started("convert", found.count)

        def written(episode: Episode) -> None:
            progress.advanced("convert", 1, {})

        done = convert(source, target, options, names, opened=opened, written=written)
        progress.stage_finished("convert", {})
    Console(highlight=False, soft_wrap=True).print(
        f"wrote {target}: {done.to}, {done.episodes} episodes, {done.steps} steps", markup=False
    )
