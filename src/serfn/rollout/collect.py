"""Recording demonstrations with the scripted or trained demonstrator of one of our tasks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from serfn.core.errors import ConfigError, DataError
from serfn.core.progress import SILENT, Progress
from serfn.core.registry import attribute
from serfn.core.seeding import generator, torch_seed
from serfn.data.episode import Episode
from serfn.data.formats.npz import save_npz
from serfn.rollout.aborts import AbortedEpisode, Aborts, aborted_words
from serfn.rollout.environments import make_env, task_spec
from serfn.rollout.guarded import GuardedEnv
from serfn.rollout.loop import Demonstrator, EpisodeRun, Recorder, run_alone
from serfn.tasks.registry import Task, env_of_task
from serfn.tasks.registry import task as find_task

PART = "demonstrations"
"""Name under which collection reports its progress."""


def collect(
    task: str,
    episodes: int,
    out: str | Path,
    *,
    seed: int = 0,
    plant: str | None = None,
    workers: int = 1,
    progress: Progress = SILENT,
) -> list[Episode]:
    """Record demonstrations of one of our tasks and write them to an NPZ file.

    The episodes depend on the seed and their number alone, not on the number of workers. Those that the
    simulation aborts are left out, and said.

    Args:
        task: Name of the task, or `package.module:TASK`.
        episodes: Number of episodes.
        out: NPZ file to write; missing folders are made.
        seed: Seed of demonstrators and starts.
        plant: Variant of the task; None is its default.
        workers: Episodes recorded at the same time, each in its own environment and thread.
        progress: Watches.

    Raises:
        ConfigError: Unknown task, or a number below 1.
        DataError: The file cannot be written.
        AbortedEpisodesError: The simulation aborts too many episodes, or all of them.
    """
    entry = find_task(task)
    if episodes < 1 or workers < 1:
        raise ConfigError(f"episodes is {episodes} and workers is {workers}; both must be at least 1")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be 0 or more")
    out = Path(out)
    if out.is_dir():
        raise DataError(f"'{out}' is a folder; name the file to write, such as '{out / 'demos.npz'}'")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder of '{out}': {error}; choose another path") from error
    options: dict[str, Any] = {} if plant is None else {"plant": plant}
    envs = [make_env(env_of_task(task), **options) for _ in range(min(workers, episodes))]
    progress.stage_started(PART, episodes)
    recorded: list[Episode] = []
    aborts = Aborts(lambda aborted: progress.note(f"seed {aborted.seed} aborted: {aborted.reason}"))
    try:
        with ThreadPoolExecutor(len(envs)) as pool:
            for start in range(0, episodes, len(envs)):
                numbers = range(start, min(start + len(envs), episodes))
                wave = list(pool.map(lambda i: _record(envs[i % len(envs)], entry, seed, i), numbers))
                for over in wave:
                    if isinstance(over, AbortedEpisode):
                        aborts.add(over)
                    else:
                        recorded.append(over)
                progress.advanced(PART, len(wave), _summary(recorded))
        spec = task_spec(envs[0])
    finally:
        for env in envs:
            env.close()
    if not recorded:
        raise aborts.error()
    if aborts.count:
        progress.note(f"{aborted_words(aborts.count)} and left out")
    try:
        save_npz(
            out,
            recorded,
            spec.action,
            control_hz=spec.control_hz,
            observation_names=spec.observation.names,
        )
    except OSError as error:
        raise DataError(f"cannot write demonstrations to '{out}': {error}; choose another path") from error
    progress.stage_finished(PART, _summary(recorded))
    return recorded


def _record(env: GuardedEnv, task: Task, seed: int, number: int) -> Episode | AbortedEpisode:
    demonstrator = _make_demonstrator(task, generator(seed, "demonstrator", number))
    recorder = Recorder()
    # Gymnasium's seeds are 32-bit by convention.
    run = EpisodeRun(env, torch_seed(seed, "demonstration", number) % 2**31, [recorder])
    run_alone(run, demonstrator)
    return run.aborted or recorder.episode(run)


def _make_demonstrator(task: Task, rng: np.random.Generator) -> Demonstrator:
    return attribute(task.demonstrator, f"the demonstrator of {task.env_id}")(rng)


def _summary(episodes: Sequence[Episode]) -> dict[str, float]:
    names = sorted({name for episode in episodes for name in episode.metrics})
    means = {
        name: float(np.mean([episode.metrics[name] for episode in episodes if name in episode.metrics]))
        for name in names
    }
    if not episodes:
        return {}
    return {"return": float(np.mean([episode.return_ for episode in episodes])), **means}
