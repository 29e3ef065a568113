"""The step loop over environments: whoever collects, evaluates or films runs episodes by it.

An `EpisodeRun` is one episode of one environment. A chunk actor drives several of them at once
(`run_together`), a demonstrator drives one (`run_alone`); watchers record, journal or film what happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, cast

import gymnasium
import numpy as np

from serfn.core.env_step import read_step
from serfn.core.errors import SerfnError
from serfn.core.outcome import Success
from serfn.core.protocols import ChunkActor
from serfn.data.episode import Episode, EpisodeBuilder
from serfn.data.store.chunks import EpisodeStart, ExecutedChunk
from serfn.data.store.writer import Recording
from serfn.rollout.aborts import AbortedEpisode
from serfn.rollout.guarded import EnvironmentCallError, GuardedEnv

BeginRecording = Callable[[EpisodeStart], Recording | None]
"""Begins to record an episode in an experience store, or returns None to leave it out."""


class Demonstrator(Protocol):
    """Acts step by step for one episode."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the action `[action]` in physical units for one observation `[obs]`."""
        ...


@dataclass(frozen=True, eq=False)
class Step:
    """One step of an episode.

    Attributes:
        before: Observation `[obs]` that it was taken at.
        action: `[action]`, as executed.
        reward: Reward received for it, 0 if the simulation diverged.
        after: Observation `[obs]` after it, the last finite one if the simulation diverged.
        chunk_start: Whether a chunk begins with it.
    """

    before: np.ndarray
    action: np.ndarray
    reward: float
    after: np.ndarray
    chunk_start: bool


class Watcher:
    """Sees everything that happens in an episode; this one does nothing with it."""

    def began(self, run: EpisodeRun) -> None:
        """The environment was reset."""

    def stepped(self, run: EpisodeRun, step: Step) -> None:
        """One step was taken; the outcome so far is that of `run`."""

    def chunk_ended(self, run: EpisodeRun) -> None:
        """All steps of a chunk were taken, or the episode is over: of one that was aborted maybe none."""


class EpisodeRun:
    """One running episode.

    Args:
        env: Environment from `make_env`; it stays open.
        seed: Seed of its reset.
        watchers: Told of everything, in their order.
    """

    def __init__(self, env: GuardedEnv, seed: int, watchers: Sequence[Watcher] = ()) -> None:
        self.env = env
        self.seed = seed
        self.space = cast(gymnasium.spaces.Box, env.action_space)
        self.observation = np.zeros(cast(tuple[int], env.observation_space.shape), np.float32)
        self.steps = 0
        self.terminated = self.truncated = False
        self.outcome = Success(env.success_rule, env.tells_success)
        self.metrics: Mapping[str, float] = {}
        self.failure: EnvironmentCallError | None = None
        """What cut the episode short in the environment's own code."""
        self._watchers = watchers

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.terminated or self.truncated or self.failure is not None

    @property
    def aborted(self) -> AbortedEpisode | None:
        """The episode as one that foreign code cut short; None if it did not."""
        if self.failure is None:
            return None
        return AbortedEpisode(self.seed, self.steps, str(self.failure))

    @property
    def success(self) -> bool | None:
        """Whether the episode is a success so far, by the environment's rule; None if it says nothing."""
        return self.outcome.value

    @property
    def success_source(self) -> str | None:
        """Who told the success."""
        return None if self.success is None else "environment"

    def reset(self) -> None:
        """Reset the environment; where that fails, the episode is over (`failure`)."""
        try:
            self.observation, _ = self.env.reset(seed=self.seed)
        except EnvironmentCallError as error:
            self.failure = error

    def begin(self) -> None:
        """Tell the watchers that the episode begins, unless it is over already."""
        if self.over:
            return
        for watcher in self._watchers:
            watcher.began(self)

    def execute(self, chunk: np.ndarray) -> None:
        """Execute the steps of `chunk` `[steps, action]`, or fewer if the episode ends or is cut short."""
        for index, planned in enumerate(chunk):
            # float32 round-off may put an action at its bound one unit outside a float64 bound.
            action = np.clip(planned.astype(self.space.dtype), self.space.low, self.space.high)
            before = self.observation
            try:
                result = read_step(self.env.step(action))
            except EnvironmentCallError as error:
                self.failure = error
                break
            self.outcome.add(result.success)
            self.env.tells_success |= result.success is not None
            if result.metrics is not None:
                self.metrics = result.metrics
            if result.finite:
                self.observation = result.observation
                self.terminated, self.truncated = result.terminated, result.truncated
            else:
                # A simulation that diverged is a failure, and must not feed NaN to replay.
                self.metrics = {**self.metrics, "nan": 1.0}
                self.outcome.fail()
                self.terminated = True
            self.steps += 1
            reward = result.reward if result.finite else 0.0
            step = Step(before, action, reward, self.observation, chunk_start=index == 0)
            for watcher in self._watchers:
                watcher.stepped(self, step)
            if self.over:
                break
        for watcher in self._watchers:
            watcher.chunk_ended(self)


class Recorder(Watcher):
    """Keeps an episode in memory.

    Args:
        policy_version: Number of the policy that acts; 0 for demonstrations.
    """

    def __init__(self, policy_version: int = 0) -> None:
        self._policy_version = policy_version

    def began(self, run: EpisodeRun) -> None:
        """See `Watcher`."""
        self._builder = EpisodeBuilder(
            len(run.observation), run.space.shape[0], seed=run.seed, policy_version=self._policy_version
        )

    def stepped(self, run: EpisodeRun, step: Step) -> None:
        """See `Watcher`."""
        self._builder.append(step.before, step.action, step.reward, chunk_start=step.chunk_start)

    def episode(self, run: EpisodeRun) -> Episode:
        """Return the recorded episode once it has ended; one that was aborted has no end."""
        return self._builder.finish(
            run.observation,
            terminated=run.terminated,
            truncated=run.truncated,
            success=run.success,
            success_source=run.success_source,
            metrics=run.metrics,
        )


class ChunkJournal(Watcher):
    """Journals each chunk of an episode in an experience store before the next one starts.

    Args:
        record: Begins the recording.
        policy_version: Number of the policy that acts.
    """

    def __init__(self, record: BeginRecording, policy_version: int) -> None:
        self._record = record
        self._policy_version = policy_version
        self._recording: Recording | None = None
        self._steps: list[Step] = []
        self._aborted = False

    def began(self, run: EpisodeRun) -> None:
        """See `Watcher`."""
        self._recording = self._record(
            EpisodeStart(observation=run.observation, seed=run.seed, policy_version=self._policy_version)
        )

    def stepped(self, run: EpisodeRun, step: Step) -> None:
        """See `Watcher`."""
        self._steps.append(step)

    def chunk_ended(self, run: EpisodeRun) -> None:
        """See `Watcher`."""
        steps, self._steps = self._steps, []
        self._aborted = run.failure is not None
        if self._recording is None or not steps:
            return
        self._recording.append(
            ExecutedChunk(
                observations=np.stack([step.after for step in steps]),
                actions=np.stack([step.action for step in steps]),
                rewards=np.array([step.reward for step in steps]),
            )
        )
        if run.over and run.failure is None:
            self._recording.end(
                terminated=run.terminated,
                truncated=run.truncated,
                success=run.success,
                success_source=run.success_source,
                metrics=run.metrics,
            )

    def commit(self) -> None:
        """Commit the episode once it is over; one that was aborted is marked as interrupted."""
        if self._recording is None:
            return
        if self._aborted:
            self._recording.interrupt()
        else:
            self._recording.commit()


def run_alone(run: EpisodeRun, demonstrator: Demonstrator) -> None:
    """Run one episode until it is over; the demonstrator decides at every step."""
    run.reset()
    run.begin()
    while not run.over:
        run.execute(demonstrator.act(run.observation)[None])


def run_together(
    envs: Sequence[GuardedEnv],
    seeds: Sequence[int],
    actor: ChunkActor,
    *,
    watchers: Callable[[int], Sequence[Watcher]] = lambda number: (),
    pool: Executor | None = None,
) -> Iterator[tuple[int, EpisodeRun]]:
    """Run one episode per seed, side by side; where one ends, the next begins.

    They meet at chunk boundaries, where the actor decides for all of them and free environments take the next
    seeds in their order. So an episode depends on the seeds and the number of environments alone, never on
    the schedule of the threads. The actor always sees a batch of the same size: `act` is compiled or captured
    once.

    Args:
        envs: At least one environment; it stays open.
        seeds: Seed of each episode; at least one.
        actor: Gives chunks; it is reset once, with the first seed. Of each chunk `actor.n_action_steps` are
            executed before it is asked again. Of environments without an episode it sees the last
            observation; of those that never had one that of the first.
        watchers: Returns the watchers of an episode by its place in `seeds`.
        pool: Steps the environments at the same time; None steps one after the other.

    Yields:
        Place in `seeds` and run of each episode, as they end or are aborted.

    Raises:
        SerfnError: The actor executes no step or more than its chunks have, or returns actions that are not
            finite.
    """
    steps = actor.n_action_steps
    if not 1 <= steps <= actor.chunk_size:
        raise SerfnError(
            f"n_action_steps of the actor is {steps}; it must be between 1 and the chunk size "
            f"{actor.chunk_size}"
        )
    each = map if pool is None else pool.map
    ahead = deque(enumerate(seeds))
    running: dict[int, tuple[int, EpisodeRun]] = {}
    seen: dict[int, np.ndarray] = {}
    actor.reset(seeds[0])
    while ahead or running:
        begun = []
        for slot in (slot for slot in range(len(envs)) if slot not in running and ahead):
            number, seed = ahead.popleft()
            begun.append(EpisodeRun(envs[slot], seed, watchers(number)))
            running[slot] = number, begun[-1]
        list(each(EpisodeRun.reset, begun))
        for run in begun:
            run.begin()
        acting = {slot: run for slot, (_, run) in running.items() if not run.over}
        if acting:
            seen |= {slot: run.observation for slot, run in acting.items()}
            first = next(iter(seen.values()))
            chunks = actor.act(np.stack([seen.get(slot, first) for slot in range(len(envs))]))
            if not np.isfinite(chunks).all():
                raise SerfnError("the actor returned actions that are not finite; its policy has diverged")
            planned = [chunks[slot, :steps] for slot in acting]
            list(each(EpisodeRun.execute, acting.values(), planned))
        over = [slot for slot, (_, run) in running.items() if run.over]
        seen |= {slot: run.observation for slot, run in acting.items()}
        for slot in sorted(over):
            yield running.pop(slot)
