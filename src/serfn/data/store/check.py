"""Reading a whole store to see that it is what was written, and setting aside what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serfn.core.errors import DataError
from serfn.data.store.episode_files import EpisodeFile, episode_files, read_episode, write_episode
from serfn.data.store.journal import read_journal
from serfn.data.store.labels import label_damage, rewrite_labels
from serfn.data.store.recovery import journals, orphaned_images, recover, set_aside
from serfn.data.store.store import read_task, writer_lock


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or odd in a store.

    Attributes:
        text: What and where, one sentence.
        damage: True if recorded data are damaged or missing; False if it is only worth knowing.
    """

    text: str
    damage: bool = True


def check_store(path: Path, watch: Callable[[int, int], None] = lambda done, total: None) -> list[Finding]:
    """Read everything in a store, comparing it with its checksums; nothing is changed.

    Args:
        path: Folder of the store.
        watch: Takes the number of episodes read and of all.

    Raises:
        DataError: There is no store, or its description is damaged.
    """
    task = read_task(path)
    files = [file for file in episode_files(path / "episodes") if not file.images]
    findings = _check_names(path, files)
    for index, file in enumerate(files):
        error = _damage(path, file)
        if error is not None:
            findings.append(Finding(error))
        else:
            episode = read_episode(path / "episodes", file, images=False)
            try:
                task.action.check(episode.actions)
            except DataError as outside:
                findings.append(Finding(f"episode {file.number}: {outside}", damage=False))
        watch(index + 1, len(files))
    findings += [
        Finding(f"'{file.name}' has images without an episode", damage=False)
        for file in orphaned_images(path)
    ]
    for journal in journals(path):
        content = read_journal(journal)
        text = f"journal '{journal.name}' has {content.steps} steps that are recorded but not committed"
        findings.append(Finding(text, damage=False))
        if content.damage is not None:
            findings.append(Finding(f"journal '{journal.name}' is damaged: {content.damage}"))
    damage = label_damage(path / "labels.log")
    return findings if damage is None else [*findings, Finding(f"the labels are damaged: {damage}")]


def repair_store(path: Path) -> list[str]:
    """Finish what a crash left, and set damaged files aside so that the rest can be used.

    Nothing is deleted: damaged files are moved to the folder `quarantine`. An episode that lost only its
    images stays, without them.

    Returns:
        What was done, one sentence each.

    Raises:
        DataError: There is no store, another process writes it, or there is no space.
    """
    read_task(path)
    lock = writer_lock(path)
    try:
        recovered = recover(path, flush=True)
        done = [f"episode {number} was committed from its journal" for number in recovered.committed]
        done += recovered.notes
        for file in [file for file in episode_files(path / "episodes") if not file.images]:
            done += _repair_episode(path, file)
        log = path / "labels.log"
        if (damage := label_damage(log)) is not None:
            (path / "quarantine").mkdir(exist_ok=True)
            kept = rewrite_labels(log, path / "quarantine" / log.name)
            done.append(
                f"the labels were damaged ({damage}): {kept} whole ones kept, the log is in quarantine"
            )
        return done
    except OSError as error:
        raise DataError(f"cannot repair '{path}': {error}; check space and permissions") from error
    finally:
        lock.release()


def _damage(path: Path, file: EpisodeFile) -> str | None:
    try:
        read_episode(path / "episodes", file, images=True)
    except DataError as error:
        return str(error)
    except (ValueError, KeyError, TypeError) as error:
        return f"episode {file.number} cannot be understood: '{file.name}': {error}"
    return None


def _check_names(path: Path, files: list[EpisodeFile]) -> list[Finding]:
    """Look for numbers and identities that are missing or there twice."""
    numbers = Counter(file.number for file in files)
    set_aside_numbers = {file.number for file in episode_files(path / "quarantine") if not file.images}
    missing = set(range(max(numbers, default=-1) + 1)) - numbers.keys() - set_aside_numbers
    uids = Counter(file.uid for file in files)
    return [
        *(
            Finding(f"episode {number} is missing; restore its file from a copy")
            for number in sorted(missing)
        ),
        *(Finding(f"there are {n} episodes {number}") for number, n in numbers.items() if n > 1),
        *(Finding(f"there are {n} episodes with identity {uid}") for uid, n in uids.items() if n > 1),
    ]


def _repair_episode(path: Path, file: EpisodeFile) -> list[str]:
    if (damage := _damage(path, file)) is None:
        return []
    episodes = path / "episodes"
    images = [other for other in episode_files(episodes) if other.images and other.uid == file.uid]
    try:
        bare = read_episode(episodes, file, images=False)
    except (ValueError, KeyError, TypeError):
        bare = None
    if bare is not None:
        write_episode(episodes, file.number, file.uid, bare, [], flush=True)
    for lost in (file, *images):
        set_aside(path, episodes / lost.name)
    fate = "its files are in quarantine" if bare is None else "it stays without images"
    return [f"{damage.partition(';')[0]}: {fate}"]
