"""Stores out of stores: several into one, one into several. Episodes keep their identity and their labels."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from serfn.core.agreement import compare, settle
from serfn.core.errors import DataError
from serfn.core.files import flush_to_disk, unused_path
from serfn.core.seeding import generator
from serfn.core.sides import Side
from serfn.core.spec import TaskSpec
from serfn.data.source import BadEpisode
from serfn.data.store.episode_files import (
    EpisodeFile,
    episode_files,
    image_file,
    image_shapes,
    publish,
    read_values,
    verified,
)
from serfn.data.store.labels import NO_LABELS, LabelChange, Labels, append_labels, read_labels
from serfn.data.store.store import EpisodeStore, read_task


def merge_stores(sources: Sequence[Path], target: Path, bad: list[BadEpisode] | None = None) -> int:
    """Make a store of the episodes of several ones; an episode that is in two of them is taken once.

    Args:
        sources: Stores of tasks with the same observations, actions, rate and cameras.
        target: Folder to make; it appears whole or not at all.
        bad: Takes damaged episodes, which are left out; None refuses the first one.

    Returns:
        Number of episodes.

    Raises:
        DataError: The tasks differ, something is damaged, or the target exists or cannot be written.
    """
    if not sources:
        raise DataError("nothing to merge; name at least one store")
    tasks = [read_task(source) for source in sources]
    sides = [_side(source, task) for source, task in zip(sources, tasks, strict=True)]
    for side in sides[1:]:
        settle(compare(side, sides[0], "merge"), DataError)
    longest = max(task.max_episode_steps for task in tasks)
    chosen = {}
    for source in sources:
        for file in _committed(source):
            chosen.setdefault(file.uid, (source, file))
    return _make_store(target, dataclasses.replace(tasks[0], max_episode_steps=longest), chosen.values(), bad)


def split_store(source: Path, targets: tuple[Path, Path], fraction: float, seed: int) -> tuple[int, int]:
    """Divide the episodes of a store at random between two new ones, such as for training and validation.

    Args:
        source: Store to divide; it stays as it is.
        targets: Folders to make.
        fraction: Share of the first one, in (0, 1); both get at least one episode.
        seed: Seed of the draw.

    Returns:
        Numbers of episodes.

    Raises:
        DataError: The fraction is out of range, there are fewer than two episodes, something is damaged, or a
            target exists or cannot be written.
    """
    if not 0 < fraction < 1:
        raise DataError(f"the fraction of a split is {fraction}; it must lie between 0 and 1")
    files, task = _committed(source), read_task(source)
    if len(files) < 2:
        raise DataError(f"'{source}' has {len(files)} episodes; a split needs at least 2")
    if targets[0] == targets[1]:
        raise DataError(f"both parts would be '{targets[0]}'; name two folders")
    for target in targets:
        _check_free(target)
    first = min(max(round(fraction * len(files)), 1), len(files) - 1)
    order = generator(seed, "split").permutation(len(files))
    parts = [sorted(files[index] for index in part) for part in (order[:first], order[first:])]
    counts = [
        _make_store(target, task, [(source, file) for file in part])
        for target, part in zip(targets, parts, strict=True)
    ]
    return counts[0], counts[1]


def _side(source: Path, task: TaskSpec) -> Side:
    """Return what a store says of its task, with its cameras."""
    return dataclasses.replace(Side.of_task(f"'{source}'", task), images=image_shapes(source / "episodes"))


def _committed(store: Path) -> list[EpisodeFile]:
    return [file for file in episode_files(store / "episodes") if not file.images]


def _check_free(target: Path) -> None:
    if target.exists():
        raise DataError(f"'{target}' already exists; choose another folder")


def _make_store(
    target: Path,
    task: TaskSpec,
    chosen: Iterable[tuple[Path, EpisodeFile]],
    bad: list[BadEpisode] | None = None,
) -> int:
    _check_free(target)
    temporary = unused_path(target)
    count = 0
    try:
        EpisodeStore.create(temporary, task)
        changes = []
        labels: dict[Path, dict[str, Labels]] = {}
        for source, file in chosen:
            try:
                _copy(source / "episodes", file, temporary / "episodes", count)
            except DataError as error:
                if bad is None:
                    raise
                bad.append(BadEpisode(source / "episodes" / file.name, f"episode {file.number}", str(error)))
                continue
            count += 1
            if source not in labels:
                labels[source] = read_labels(source / "labels.log")
            changes += [(file.uid, change) for change in _changes(labels[source].get(file.uid, NO_LABELS))]
        if changes:
            append_labels(temporary / "labels.log", changes)
        flush_to_disk(temporary / "episodes")
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(f"cannot write '{target}': {error}; check space and permissions") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return count


def _copy(source: Path, file: EpisodeFile, target: Path, number: int) -> None:
    values, _ = read_values(source, file)
    parts = [part for part in (image_file(file, values), file) if part is not None]
    # All are verified first: nothing of a damaged episode is left in the new store.
    for part, content in [(part, verified(source, part)) for part in parts]:
        path = target / dataclasses.replace(part, number=number).name
        publish(path, content, flush=False)
        flush_to_disk(path)


def _changes(labels: Labels) -> list[LabelChange]:
    """Return changes that lead to `labels`."""
    changes = []
    if labels.success is not None:
        changes.append(LabelChange(source=labels.success_source or "unknown", success=labels.success))
    if labels.stage is not None or labels.discard:
        # Who gave these is not told by any reader, so that it need not be kept.
        changes.append(LabelChange(source="merge", stage=labels.stage, discard=labels.discard or None))
    return changes
