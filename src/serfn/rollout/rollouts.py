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
) -> list[Episode]:
    """Run one episode per seed and return them in the order of the seeds.

    Args:
        envs: Environments from `make_env`; as many episodes run side by side. They stay open.
        actor: Gives chunks for a batch of `len(envs)` observations, as `run_together` says.
        seeds: Seed of each episode's environment.
        on_episode: Called with each episode once it and those before it are over.
        threads: Environments stepped at the same time (MuJoCo releases the interpreter lock).
        policy_version: Recorded with every episode.
        record: Begins a recording in an experience store; None records nothing of that episode. Every chunk
            is journalled before the next one starts, and an episode is committed once it and those before it
            are over.

    Raises:
        SerfnError: No environments, an actor that executes no step or more than its chunks have, or actions
            that are not finite.
    """
    if not envs:
        raise SerfnError("rollout got no environments; make at least one")
    recorders = [Recorder(policy_version) for _ in seeds]
    journals = [] if record is None else [ChunkJournal(record, policy_version) for _ in seeds]
    ended: dict[int, Episode] = {}
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
            ended[number] = recorders[number].episode(run)
            while (next_in_order := len(episodes)) in ended:
                for journal in journals[next_in_order : next_in_order + 1]:
                    journal.commit()
                episodes.append(ended.pop(next_in_order))
                if on_episode is not None:
                    on_episode(episodes[-1])
    if any(env.tells_success for env in envs):
        # Before the first success a key that is there only when true was not known to exist.
        return [
            replace(episode, success=False, success_source="environment")
            if episode.success is None
            else episode
            for episode in episodes
        ]
    return episodes


def evaluation_result(episodes: Sequence[Episode], control_hz: float) -> EvaluationResult:
    """Gather the outcome of evaluation episodes, with the task's own score (`SCORE`) where it has one.

    Without one, success is the score where every episode knows it, and else the return.

    Raises:
        DataError: There are no episodes.
    """
    scored = all(SCORE in episode.metrics for episode in episodes)
    return summarise_episodes(episodes, control_hz, SCORE if scored else None)
