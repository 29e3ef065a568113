"""Episodes of a chunk actor in several environments at once, in waves of one episode for each of them."""

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
from serfn.rollout.loop import BeginRecording, ChunkJournal, EpisodeRun, Recorder, run_together

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
    episodes: list[Episode] = []
    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
        for start in range(0, len(seeds), len(envs)):
            recorders, journals, runs = [], [], []
            for env, seed in zip(envs, seeds[start : start + len(envs)], strict=False):
                recorders.append(Recorder(policy_version))
                journals.append([] if record is None else [ChunkJournal(record, policy_version)])
                runs.append(EpisodeRun(env, seed, [recorders[-1], *journals[-1]]))
            run_together(runs, actor, batch=len(envs), pool=pool)
            for journal in (journal for own in journals for journal in own):
                journal.commit()
            wave = [recorder.episode(run) for recorder, run in zip(recorders, runs, strict=True)]
            episodes.extend(wave)
            if on_episode is not None:
                for episode in wave:
                    on_episode(episode)
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
