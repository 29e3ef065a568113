"""Episodes of a chunk actor in several environments at once.

Environments run in waves of one episode each and meet at chunk boundaries, so that the actor always sees a
batch of the same size: `act` is compiled or captured once, and an episode depends on the seeds and the number
of environments alone, never on the schedule of the threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces.utils import flatdim

from serfn.core.errors import SerfnError
from serfn.core.protocols import ChunkActor
from serfn.core.results import EvaluationResult
from serfn.data.episode import Episode, EpisodeBuilder
from serfn.data.episode import evaluation_result as summarise_episodes
from serfn.data.store.chunks import EpisodeStart, ExecutedChunk
from serfn.data.store.writer import Recording

SCORE = "score"
"""Key of `info["episode_metrics"]` by which the task ranks policies; without it the return is the score."""


def rollout(
    envs: Sequence[gymnasium.Env],
    actor: ChunkActor,
    *,
    seeds: Sequence[int],
    on_episode: Callable[[Episode], None] | None = None,
    threads: int = 1,
    policy_version: int = 0,
    record: Callable[[EpisodeStart], Recording | None] | None = None,
) -> list[Episode]:
    """Run one episode per seed and return them in the order of the seeds.

    Args:
        envs: Environments from `make_env`; as many episodes run side by side. They stay open.
        actor: Gives chunks for a batch of `len(envs)` observations. It is reset before each wave with the
            wave's first seed; finished environments repeat their last observation until the wave ends. Of
            each chunk `actor.n_action_steps` are executed before it is asked again.
        seeds: Seed of each episode's environment.
        on_episode: Called with each episode once its wave is over, in the order of the seeds.
        threads: Environments stepped at the same time (MuJoCo releases the interpreter lock).
        policy_version: Recorded with every episode.
        record: Begins a recording in an experience store; None records nothing of that episode. Every chunk
            is journalled before the next one starts, and the episodes of a wave are committed when it is
            over, in the order of the seeds.

    Raises:
        SerfnError: No environments, an actor that executes no step or more than its chunks have, or actions
            that are not finite.
    """
    if not envs:
        raise SerfnError("rollout got no environments; make at least one")
    steps = actor.n_action_steps
    if not 1 <= steps <= actor.chunk_size:
        raise SerfnError(
            f"n_action_steps of the actor is {steps}; it must be between 1 and the chunk size "
            f"{actor.chunk_size}"
        )
    episodes: list[Episode] = []
    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
        for start in range(0, len(seeds), len(envs)):
            wave_seeds = seeds[start : start + len(envs)]
            wave = _run_wave(envs, actor, wave_seeds, steps, pool, policy_version, record)
            episodes.extend(wave)
            if on_episode is not None:
                for episode in wave:
                    on_episode(episode)
    return episodes


def evaluation_result(episodes: Sequence[Episode], control_hz: float) -> EvaluationResult:
    """Gather the outcome of evaluation episodes, with the task's own score (`SCORE`) where it has one.

    Without one, success is the score where every episode knows it, and else the return.

    Raises:
        DataError: There are no episodes.
    """
    scored = all(SCORE in episode.metrics for episode in episodes)
    return summarise_episodes(episodes, control_hz, SCORE if scored else None)


class _RunningEpisode:
    """One running episode and what it has recorded so far."""

    def __init__(self, env: gymnasium.Env, seed: int, policy_version: int) -> None:
        self._env = env
        self._seed = seed
        self._policy_version = policy_version
        self._journal: Recording | None = None
        self._space = cast(gymnasium.spaces.Box, env.action_space)
        self._builder = EpisodeBuilder(
            flatdim(env.observation_space), flatdim(self._space), seed=seed, policy_version=policy_version
        )
        self._metrics: dict[str, float] = {}
        self._success: bool | None = None
        self._terminated = False
        self._truncated = False
        self.observation = np.zeros(flatdim(env.observation_space), np.float32)

    @property
    def over(self) -> bool:
        return self._terminated or self._truncated

    def reset(self) -> None:
        observation, _ = self._env.reset(seed=self._seed)
        self.observation = np.asarray(observation, np.float32)

    def begin(self, record: Callable[[EpisodeStart], Recording | None]) -> None:
        """Record the episode, from here on."""
        self._journal = record(
            EpisodeStart(observation=self.observation, seed=self._seed, policy_version=self._policy_version)
        )

    def run_chunk(self, chunk: np.ndarray) -> None:
        """Execute the steps of `chunk` `[steps, action]`, or fewer if the episode ends, and journal them."""
        steps = self._execute(chunk)
        if self._journal is None:
            return
        observations, actions, rewards = zip(*steps, strict=True)
        self._journal.append(
            ExecutedChunk(
                observations=np.stack(observations), actions=np.stack(actions), rewards=np.array(rewards)
            )
        )
        if self.over:
            self._journal.end(
                terminated=self._terminated,
                truncated=self._truncated,
                success=self._success,
                success_source=self._success_source,
                metrics=self._metrics,
            )

    def _execute(self, chunk: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """Execute a chunk; return observation afterwards, action and reward of each step."""
        steps = []
        for index, planned in enumerate(chunk):
            # float32 round-off may put an action at its bound one unit outside a float64 bound.
            action = np.clip(planned.astype(self._space.dtype), self._space.low, self._space.high)
            observation, reward, terminated, truncated, info = self._env.step(action)
            self._read(info)
            healthy = math.isfinite(float(reward)) and bool(np.isfinite(observation).all())
            received = float(reward) if healthy else 0.0
            self._builder.append(self.observation, action, received, chunk_start=index == 0)
            if healthy:
                self.observation = np.asarray(observation, np.float32)
                self._terminated, self._truncated = bool(terminated), bool(truncated)
            else:
                # A simulation that diverged is a failure, and must not feed NaN to replay.
                self._metrics["nan"] = 1.0
                self._success = False
                self._terminated = True
            steps.append((self.observation, action, received))
            if self.over:
                break
        return steps

    def episode(self) -> Episode:
        if self._journal is not None:
            self._journal.commit()
        return self._builder.finish(
            self.observation,
            terminated=self._terminated,
            truncated=self._truncated,
            success=self._success,
            success_source=self._success_source,
            metrics=self._metrics,
        )

    @property
    def _success_source(self) -> str | None:
        return None if self._success is None else "environment"

    def _read(self, info: Mapping[str, Any]) -> None:
        if "episode_metrics" in info:
            self._metrics = {name: float(value) for name, value in info["episode_metrics"].items()}
        outcome = info.get("is_success", info.get("success"))
        self._success = None if outcome is None else bool(outcome)


def _run_wave(
    envs: Sequence[gymnasium.Env],
    actor: ChunkActor,
    seeds: Sequence[int],
    steps: int,
    pool: Executor | None,
    policy_version: int,
    record: Callable[[EpisodeStart], Recording | None] | None,
) -> list[Episode]:
    recordings = [_RunningEpisode(env, seed, policy_version) for env, seed in zip(envs, seeds, strict=False)]
    each = map if pool is None else pool.map
    list(each(_RunningEpisode.reset, recordings))
    if record is not None:
        for recording in recordings:
            recording.begin(record)
    actor.reset(seeds[0])
    while running := [index for index, recording in enumerate(recordings) if not recording.over]:
        latest = [recording.observation for recording in recordings]
        # The last wave may have fewer episodes than environments; the batch keeps its size.
        latest += [latest[0]] * (len(envs) - len(latest))
        chunks = actor.act(np.stack(latest))
        if not np.isfinite(chunks).all():
            raise SerfnError("the actor returned actions that are not finite; its policy has diverged")
        planned = [chunks[index, :steps] for index in running]
        list(each(_RunningEpisode.run_chunk, [recordings[index] for index in running], planned))
    return [recording.episode() for recording in recordings]
