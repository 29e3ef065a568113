"""Episodes of a chunk actor in several environments at once.

Environments run in waves of one episode each and meet at chunk boundaries, so that the actor always sees a batch
of the same size: `act` is compiled or captured once, and what an episode looks like depends on the seeds and the
number of environments alone, never on how threads are scheduled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import gymnasium
import numpy as np

from serfn.core.errors import SerfnError
from serfn.core.protocols import ChunkActor
from serfn.core.results import EvaluationResult
from serfn.data.episode import Episode

SCORE = "score"
"""Key of `info["episode_metrics"]` by which the task ranks policies; without it the return is the score."""


def rollout(
    envs: Sequence[gymnasium.Env],
    actor: ChunkActor,
    *,
    seeds: Sequence[int],
    execute_steps: int | None = None,
    on_episode: Callable[[Episode], None] | None = None,
    threads: int = 1,
    policy_version: int = 0,
) -> list[Episode]:
    """Run one episode per seed and return them in the order of the seeds.

    Args:
        envs: Environments from `make_env`; as many episodes run side by side. They stay open.
        actor: Gives chunks for a batch of `len(envs)` observations. It is reset before each wave with the wave's
            first seed; environments that have finished repeat their last observation until the wave ends.
        seeds: Seed of each episode's environment.
        execute_steps: How many steps of each chunk are executed before the actor is asked again; None is all.
        on_episode: Called with each episode once its wave is over, in the order of the seeds.
        threads: Environments stepped at the same time (MuJoCo releases the interpreter lock).
        policy_version: Recorded with every episode.

    Raises:
        SerfnError: No environments, `execute_steps` outside [1, chunk], or actions that are not finite.
    """
    if not envs:
        raise SerfnError("rollout got no environments; make at least one")
    steps = actor.chunk_size if execute_steps is None else execute_steps
    if not 1 <= steps <= actor.chunk_size:
        raise SerfnError(
            f"execute_steps is {steps}; it must be between 1 and the chunk size {actor.chunk_size}"
        )
    episodes: list[Episode] = []
    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
        for start in range(0, len(seeds), len(envs)):
            wave = _run_wave(envs, actor, seeds[start : start + len(envs)], steps, pool, policy_version)
            episodes.extend(wave)
            if on_episode is not None:
                for episode in wave:
                    on_episode(episode)
    return episodes


def evaluation_result(episodes: Sequence[Episode], control_hz: float) -> EvaluationResult:
    """Gather the outcome of evaluation episodes, one entry per episode.

    The score is the task's own (`SCORE` in the episode's metrics) if any episode has one, and the return
    otherwise. A metric that one episode lacks, because it broke before it could report, counts as 0 there.
    """
    names = sorted({name for episode in episodes for name in episode.metrics})
    columns = {name: tuple(episode.metrics.get(name, 0.0) for episode in episodes) for name in names}
    returns = tuple(float(episode.return_) for episode in episodes)
    return EvaluationResult(
        returns=returns,
        successes=tuple(episode.success for episode in episodes),
        lengths=tuple(episode.length for episode in episodes),
        scores=columns.pop(SCORE, returns),
        metrics=columns,
        control_hz=control_hz,
    )


@dataclass
class _Recording:
    """One running episode and what it has recorded so far."""

    env: gymnasium.Env
    seed: int
    observations: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    chunk_starts: list[bool] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    success: bool | None = None
    terminated: bool = False
    truncated: bool = False

    @property
    def over(self) -> bool:
        return self.terminated or self.truncated

    def reset(self) -> None:
        observation, _ = self.env.reset(seed=self.seed)
        self.observations.append(np.asarray(observation, np.float32))

    def run_chunk(self, chunk: np.ndarray) -> None:
        """Execute the steps of `chunk` `[steps, action]`, or fewer if the episode ends."""
        space = cast(gymnasium.spaces.Box, self.env.action_space)
        for index, planned in enumerate(chunk):
            # float32 round-off may put an action at its bound one unit outside a float64 bound.
            action = np.clip(planned.astype(space.dtype), space.low, space.high)
            observation, reward, terminated, truncated, info = self.env.step(action)
            self.actions.append(action.astype(np.float32))
            self.chunk_starts.append(index == 0)
            self._read(info)
            if not (np.isfinite(reward) and np.isfinite(observation).all()):
                self._break_off()
                return
            self.rewards.append(float(reward))
            self.observations.append(np.asarray(observation, np.float32))
            self.terminated, self.truncated = bool(terminated), bool(truncated) and not terminated
            if self.over:
                return

    def episode(self, policy_version: int) -> Episode:
        return Episode(
            observations=np.stack(self.observations),
            actions=np.stack(self.actions),
            rewards=np.array(self.rewards, np.float32),
            terminated=self.terminated,
            truncated=self.truncated,
            success=self.success,
            seed=self.seed,
            policy_version=policy_version,
            metrics=self.metrics,
            chunk_starts=np.array(self.chunk_starts),
        )

    def _read(self, info: Mapping[str, Any]) -> None:
        if "episode_metrics" in info:
            self.metrics = {name: float(value) for name, value in info["episode_metrics"].items()}
        outcome = info.get("is_success", info.get("success"))
        self.success = None if outcome is None else bool(outcome)

    def _break_off(self) -> None:
        """End as a failure: a simulation that diverged must not feed NaN to replay."""
        self.rewards.append(0.0)
        self.observations.append(self.observations[-1])
        self.metrics = {**self.metrics, "nan": 1.0}
        self.success = False
        self.terminated = True


def _run_wave(
    envs: Sequence[gymnasium.Env],
    actor: ChunkActor,
    seeds: Sequence[int],
    steps: int,
    pool: Executor | None,
    policy_version: int,
) -> list[Episode]:
    recordings = [_Recording(env, seed) for env, seed in zip(envs, seeds, strict=False)]
    each = map if pool is None else pool.map
    list(each(_Recording.reset, recordings))
    actor.reset(seeds[0])
    while running := [index for index, recording in enumerate(recordings) if not recording.over]:
        latest = [recording.observations[-1] for recording in recordings]
        # The last wave may have fewer episodes than environments; the batch keeps its size.
        latest += [latest[0]] * (len(envs) - len(latest))
        chunks = actor.act(np.stack(latest))
        if not np.isfinite(chunks).all():
            raise SerfnError("the actor returned actions that are not finite; its policy has diverged")
        list(each(_Recording.run_chunk, [recordings[i] for i in running], [chunks[i, :steps] for i in running]))
    return [recording.episode(policy_version) for recording in recordings]
