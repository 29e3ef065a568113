"""Episodes of a chunk actor in several environments at once; where one ends, the next begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

from serfn.core.errors import SerfnError
from serfn.core.protocols import ChunkActor
from serfn.core.results import EvaluationResult
from serfn.data.episode import Episode
from serfn.data.episode import evaluation_result as summarise_episodes
from serfn.rollout.aborts import AbortedEpisode, Aborts
from serfn.rollout.guarded import GuardedEnv
from serfn.rollout.loop import BeginRecording, ChunkJournal, Recorder, run_together

SCORE = "score"
"""Key of `info["episode_metrics"]` by which the task ranks policies; without it the return is the score."""


def rollout(
    envs: Sequence[GuardedEnv],
    actor: ChunkActor,
    *,
    seeds: Sequence[int],
    on_episode: Callable[[Episode], None] | None = None,
    threads: int = 1,
    policy_version: int = 0,
    record: BeginRecording | None = None,
    aborts: Aborts | None = None,
) -> list[Episode]:
    """Run one episode per seed and return them in the order of the seeds, without those that were aborted.

    Args:
        envs: Environments from `make_env`; as many episodes run side by side. They stay open.
        actor: Gives chunks for a batch of `len(envs)` observations, as `run_together` says.
        seeds: Seed of each episode's environment.
        on_episode: Called with each episode once it and those before it are over.
        threads: Environments stepped at the same time (MuJoCo releases the interpreter lock).
        policy_version: Recorded with every episode.
        record: Begins a recording in an experience store; None records nothing of that episode. Every chunk
            is journalled before the next one starts, and an episode is committed once it and those before it
            are over; an aborted one as interrupted.
        aborts: Counts episodes that the environment's own code cut short; None allows none.

    Raises:
        EnvironmentCallError: The environment aborted an episode, and none may be.
        AbortedEpisodesError: It aborted one too many.
        SerfnError: No environments, an actor that executes no step or more than its chunks have, or actions
            that are not finite.
    """
    if not envs:
        raise SerfnError("rollout got no environments; make at least one")
    recorders = [Recorder(policy_version) for _ in seeds]
    journals = [] if record is None else [ChunkJournal(record, policy_version) for _ in seeds]
    ended: dict[int, Episode | AbortedEpisode] = {}
    done = 0
    episodes: list[Episode] = []
    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
        runs = run_together(
            envs,
            seeds,
            actor,
            watchers=lambda number: [recorders[number], *journals[number : number + 1]],
            pool=pool,
        )
        for number, run in runs if seeds else ():
            if run.failure is not None and aborts is None:
                raise run.failure
            ended[number] = run.aborted or recorders[number].episode(run)
            while done in ended:
                for journal in journals[done : done + 1]:
                    journal.commit()
                over = ended.pop(done)
                done += 1
                if isinstance(over, Episode):
                    episodes.append(over)
                    if on_episode is not None:
                        on_episode(over)
                elif aborts is not None:
                    aborts.add(over)
    if any(env.tells_success for env in envs):
        # Before the first success a key that is there only when true was not known to exist.
        return [
            replace(episode, success=False, success_source="environment")
            if episode.success is None
            else episode
            for episode in episodes
        ]
    return episodes


def evaluation_result(
    episodes: Sequence[Episode], control_hz: float, *, asked: int | None = None
) -> EvaluationResult:
    """Gather the outcome of evaluation episodes, with the task's own score (`SCORE`) where it has one.

    Without one, success is the score where every episode knows it, and else the return.

    Args:
        episodes: Those that ended.
        control_hz: Control steps per second.
        asked: How many were run, those that were aborted included; None means that none was.

    Raises:
        DataError: There are no episodes.
    """
    scored = all(SCORE in episode.metrics for episode in episodes)
    result = summarise_episodes(episodes, control_hz, SCORE if scored else None)
    return replace(result, aborted=0 if asked is None else asked - len(episodes))
