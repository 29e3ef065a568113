"""Recording demonstrations with the scripted or trained demonstrator of one of our tasks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, cast

import gymnasium
import numpy as np

from serfn.core.errors import ConfigError, DataError
from serfn.core.progress import SILENT, Progress
from serfn.core.registry import attribute
from serfn.core.seeding import generator, torch_seed
from serfn.data.episode import Episode, EpisodeBuilder
from serfn.data.formats.npz import save_npz
from serfn.rollout.environments import make_env, task_spec
from serfn.tasks.registry import Task, env_of_task
from serfn.tasks.registry import task as find_task

PART = "demonstrations"
"""Name under which collection reports its progress."""


class Demonstrator(Protocol):
    """Acts step by step for one episode."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the action `[action]` in physical units for one observation `[obs]`."""
        ...


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

    The episodes depend on the seed and their number alone, not on the number of workers.

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
    try:
        with ThreadPoolExecutor(len(envs)) as pool:
            for start in range(0, episodes, len(envs)):
                numbers = range(start, min(start + len(envs), episodes))
                wave = list(pool.map(lambda i: _record(envs[i % len(envs)], entry, seed, i), numbers))
                recorded += wave
                progress.advanced(PART, len(wave), _summary(recorded))
        spec = task_spec(envs[0]).action
    finally:
        for env in envs:
            env.close()
    try:
        save_npz(out, recorded, spec)
    except OSError as error:
        raise DataError(f"cannot write demonstrations to '{out}': {error}; choose another path") from error
    progress.stage_finished(PART, _summary(recorded))
    return recorded


def _record(env: gymnasium.Env, task: Task, seed: int, number: int) -> Episode:
    demonstrator = _make_demonstrator(task, generator(seed, "demonstrator", number))
    # Gymnasium's seeds are 32-bit by convention.
    env_seed = torch_seed(seed, "demonstration", number) % 2**31
    observation, _ = env.reset(seed=env_seed)
    space = cast(gymnasium.spaces.Box, env.action_space)
    builder = EpisodeBuilder(len(observation), space.shape[0], seed=env_seed)
    while True:
        action = np.clip(demonstrator.act(observation), space.low, space.high).astype(np.float32)
        following, reward, terminated, truncated, info = env.step(action)
        builder.append(observation, action, float(reward), chunk_start=True)
        observation = following
        if terminated or truncated:
            success = info.get("is_success")
            return builder.finish(
                observation,
                terminated=bool(terminated),
                truncated=bool(truncated) and not terminated,
                success=None if success is None else bool(success),
                metrics={name: float(value) for name, value in info.get("episode_metrics", {}).items()},
            )


def _make_demonstrator(task: Task, rng: np.random.Generator) -> Demonstrator:
    return attribute(task.demonstrator, f"the demonstrator of {task.env_id}")(rng)


def _summary(episodes: Sequence[Episode]) -> dict[str, float]:
    names = sorted({name for episode in episodes for name in episode.metrics})
    means = {
        name: float(np.mean([episode.metrics[name] for episode in episodes if name in episode.metrics]))
        for name in names
    }
    return {"return": float(np.mean([episode.return_ for episode in episodes])), **means}
