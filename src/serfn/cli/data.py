"""`serfn data`: look after stores of recorded experience."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from serfn.cli.data_convert import Assignments, convert
from serfn.cli.options import optional
from serfn.cli.overrides import override
from serfn.cli.parsing import Group
from serfn.cli.progress import make_progress
from serfn.core.errors import DataError

Positional = tyro.conf.Positional


def info(path: Annotated[Path, Positional]) -> None:
    """Describe a store of episodes.

    Args:
        path: Folder of the store, or of a run that has one.
    """
    from serfn.data.store.recovery import journals
    from serfn.data.store.store import EpisodeStore

    store = EpisodeStore(_store_of(path))
    summaries = [store.summary(number) for number in store.numbers]
    steps = sum(summary.length for summary in summaries)
    known = [summary.success for summary in summaries if summary.success is not None]
    task = store.task
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"store {store.path}: {len(summaries)} episodes, {steps} steps, "
        f"{steps / task.control_hz / 60:.1f} minutes at {task.control_hz:g} Hz",
        markup=False,
    )
    console.print(
        f"task {task.id}: {task.observation.dim} observations, {task.action.dim} actions", markup=False
    )
    success = f"{sum(known)} of {len(known)} successful" if known else "success unknown"
    console.print(
        f"{success}; {sum(summary.interrupted for summary in summaries)} interrupted, "
        f"{sum(summary.discard for summary in summaries)} set aside"
    )
    cameras = Counter(name for summary in summaries for name in summary.cameras)
    for name, count in sorted(cameras.items()):
        console.print(f"camera {name}: {count} episodes", markup=False)
    size = sum(_size(file) for file in store.path.rglob("*"))
    console.print(f"{size / 2**20:.1f} MiB on disk")
    if running := len(journals(store.path)):
        console.print(f"{running} episodes are being recorded, or wait for recovery")


def check(
    path: Annotated[Path, Positional],
    *,
    mapping: Annotated[Path | None, optional("FILE", "guesses, which are printed")] = None,
    assignments: Assignments = (),
) -> None:
    """Read a whole data set of any format, and list every bad episode; nothing is changed.

    A store is also compared with its checksums. Exit status 0 if all episodes can be used, whatever is odd
    about them; 2 otherwise.

    Args:
        path: Data set, folder of a store, or of a run that has one.
        mapping: TOML or JSON file that says which names of the data set mean what.
        assignments: One entry of the mapping; may be repeated.
    """
    from serfn.core.config import load_config
    from serfn.data.check import check_data
    from serfn.data.mapping import GUESS_ALL, NameMapping

    folder = _store_of(path)
    names = override(GUESS_ALL if mapping is None else load_config(NameMapping, mapping), assignments)
    with make_progress() as progress:
        started = False

        def watch(done: int, total: int) -> None:
            nonlocal started
            if not started:
                progress.stage_started("episodes", total)
                started = True
            progress.advanced("episodes", 1, {})

        findings = check_data(folder, names, watch)
        if started:
            progress.stage_finished("episodes", {})
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        console.print(f"{'damage' if finding.damage else 'note'}: {finding.text}", markup=False)
    if damaged := sum(finding.damage for finding in findings):
        from serfn.data.store.store import is_store

        remedy = (
            f"set them aside with 'serfn data repair {folder}'"
            if is_store(folder)
            else ("repair them, or leave them out with --skip-bad")
        )
        raise DataError(f"'{folder}' has {damaged} damages; {remedy}")
    console.print(
        f"{'store' if (folder / 'store.json').is_file() else 'data set'} {folder} is sound", markup=False
    )


def repair(path: Annotated[Path, Positional]) -> None:
    """Finish what a crash left in a store, and move damaged files to its folder 'quarantine'.

    Args:
        path: Folder of the store, or of a run that has one.
    """
    from serfn.data.store.check import repair_store

    folder = _store_of(path)
    console = Console(highlight=False, soft_wrap=True)
    done = repair_store(folder)
    for sentence in done:
        console.print(sentence, markup=False)
    console.print(f"store {folder}: {len(done) or 'no'} repairs", markup=False)


def merge(stores: Annotated[tuple[Path, ...], Positional], *, out: Path, skip_bad: bool = False) -> None:
    """Make one store of several; an episode that is in two of them is taken once.

    Args:
        stores: Folders of stores with the same observations and actions.
        out: Folder to make.
        skip_bad: Leave out damaged episodes, and say which.
    """
    from serfn.data.source import BadEpisode
    from serfn.data.store.transfer import merge_stores

    bad: list[BadEpisode] | None = [] if skip_bad else None
    count = merge_stores([_store_of(store) for store in stores], out, bad)
    console = Console(highlight=False, soft_wrap=True)
    for episode in bad or ():
        console.print(f"left out: {episode}", markup=False)
    said = f", {len(bad)} bad left out" if bad else ""
    console.print(f"wrote {out}: {count} episodes{said}", markup=False)


def split(
    store: Annotated[Path, Positional], *, out: tuple[Path, Path], fraction: float = 0.9, seed: int = 0
) -> None:
    """Divide the episodes of a store at random between two new ones.

    Args:
        store: Folder of the store; it stays as it is.
        out: Two folders to make.
        fraction: Share of episodes in the first one.
        seed: Seed of the draw.
    """
    from serfn.data.store.transfer import split_store

    counts = split_store(_store_of(store), out, fraction, seed)
    for folder, count in zip(out, counts, strict=True):
        Console().print(f"wrote {folder}: {count} episodes", highlight=False, soft_wrap=True, markup=False)


DATA = Group(
    "Look after recorded experience: stores of episodes.",
    {"info": info, "check": check, "repair": repair, "merge": merge, "split": split, "convert": convert},
)


def _store_of(path: Path) -> Path:
    """Return the store in `path`, which may be a run folder with one."""
    from serfn.data.store.store import is_store

    inside = path / "experience"
    return inside if is_store(inside) and not is_store(path) else path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        # A journal that a writer has just committed.
        return 0
