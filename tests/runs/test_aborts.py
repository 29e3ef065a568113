"""A simulator that breaks costs the episode, not the run; many of them stop it with a checkpoint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from serfn.core.errors import AbortedEpisodesError
from serfn.core.seeding import torch_seed
from serfn.data.store.store import EpisodeStore
from serfn.reports.run_record import load_run
from serfn.reports.run_words import aborted_sentence
from serfn.rollout.aborts import MOST_ABORTED, AbortedEpisode, Aborts
from serfn.rollout.environments import make_env
from serfn.rollout.guarded import EnvironmentCallError
from serfn.rollout.rollouts import rollout
from serfn.runs.evaluate import evaluate
from serfn.runs.folder import stored_config
from serfn.runs.train import train
from serfn.training.config import TrainConfig
from tests.crashing import CRASHES, CRASHING, Crashing, register


@pytest.fixture(autouse=True)
def crashing_environment() -> None:
    register()


class Still:
    """Chunks of zeros."""

    chunk_size = n_action_steps = 2

    def reset(self, seed: int) -> None: ...

    def act(self, observations: np.ndarray) -> np.ndarray:
        return np.zeros((len(observations), 2, 2), np.float32)


def rows(folder: Path, name: str) -> list[dict]:
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


@pytest.mark.parametrize("how", CRASHES)
def test_a_crash_costs_its_episode_and_no_other(how: str) -> None:
    envs = [make_env(CRASHING, crash_seeds=[1, 3], how=how) for _ in range(2)]
    told: list[AbortedEpisode] = []
    aborts = Aborts(told.append)
    episodes = rollout(envs, Still(), seeds=range(6), aborts=aborts)
    assert [episode.seed for episode in episodes] == [0, 2, 4, 5]
    assert [aborted.seed for aborted in told] == [1, 3] and aborts.count == 2
    assert {aborted.steps for aborted in told} == {0 if how in ("reset", "nan") else 2}
    assert all(CRASHING in aborted.reason and "\n" not in aborted.reason for aborted in told)
    sound = rollout([make_env(CRASHING) for _ in range(2)], Still(), seeds=range(6))
    for episode in episodes:
        assert np.array_equal(episode.observations, sound[episode.seed or 0].observations)
    for env in envs:
        env.close()


def test_without_a_count_a_crash_is_raised() -> None:
    with pytest.raises(EnvironmentCallError, match=r"RuntimeError: contact solver diverged\) at step"):
        rollout([make_env(CRASHING, crash_seeds=[0])], Still(), seeds=[0])


def test_one_too_many_is_raised_with_the_exception() -> None:
    aborts = Aborts(limit=2)
    with pytest.raises(AbortedEpisodesError, match=r"2 episodes were aborted, .*solver diverged"):
        rollout([make_env(CRASHING, crash_seeds=range(9))], Still(), seeds=range(9), aborts=aborts)


@pytest.mark.parametrize("how", ["step", "reset", "process"])
def test_a_run_goes_on_without_aborted_episodes(
    make_config: Callable[..., TrainConfig], tmp_path: Path, how: str
) -> None:
    config, folder = make_config(env=CRASHING), tmp_path / "run"
    seeds = [torch_seed(config.seed, "episode", number) % 2**31 for number in range(6)]
    # The second online episode of each round, and one of each final evaluation.
    crashing = [seeds[1], seeds[4], config.evaluation.seed + 1]
    config = dataclasses.replace(config, env_options={"crash_seeds": crashing, "how": how})
    result = train(config, folder, films=False)

    store = EpisodeStore(folder / "experience")
    kept = [store.summary(number) for number in store.numbers]
    assert [summary.seed for summary in kept if not summary.interrupted] == [seeds[i] for i in (0, 2, 3, 5)]
    # What was recorded before the crash is there, in whole steps.
    cut = {summary.seed: summary.length for summary in kept if summary.interrupted}
    assert cut == ({} if how == "reset" else {seeds[1]: 2, seeds[4]: 2})
    for final in result.finals.values():
        assert (final.episodes, final.aborted) == (4, 1)
    status = json.loads((folder / "status.json").read_text())
    assert (status["complete"], status["episodes"]) == (True, 6)
    aborted = rows(folder, "aborted.jsonl")
    assert [row["seed"] for row in aborted if row["online"]] == [seeds[1], seeds[4]]
    assert "Aborted episodes: 2 online" in aborted_sentence(load_run(folder))
    measured = evaluate(folder, episodes=3, seed=config.evaluation.seed)
    assert (measured.episodes, measured.aborted) == (2, 1)


def test_a_killed_run_knows_its_aborted_episodes(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(env=CRASHING)
    seed = torch_seed(config.seed, "episode", 1) % 2**31
    config = dataclasses.replace(config, env_options={"crash_seeds": [seed]})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, whole, films=False)

    class KilledError(Exception):
        pass

    class Kill:
        """Ends the run after its first online round."""

        def note(self, text: str) -> None: ...

        def stage_started(self, name: str, total: int) -> None: ...

        def stage_finished(self, name: str, summary: object) -> None: ...

        def advanced(self, name: str, n: int, metrics: Mapping[str, float]) -> None:
            if name == "online" and n and "critic/loss" in metrics:
                raise KilledError

    with pytest.raises(KilledError):
        train(config, cut, films=False, progress=Kill())
    train(stored_config(cut), cut, films=False, resume=True)
    for name in ("aborted.jsonl", "evaluations.jsonl"):
        assert rows(cut, name) == rows(whole, name)


def test_a_run_stops_with_a_checkpoint_and_goes_on_once_the_environment_is_mended(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_config(env=CRASHING), tmp_path / "run"
    seeds = [torch_seed(config.seed, "episode", number) % 2**31 for number in range(1, 30)]
    config = dataclasses.replace(
        config,
        env_options={"crash_seeds": seeds},
        online=dataclasses.replace(config.online, episodes=30, episodes_per_round=10),
    )
    with pytest.raises(AbortedEpisodesError, match=f"{MOST_ABORTED} episodes .*contact solver diverged"):
        train(config, folder, films=False)
    status = json.loads((folder / "status.json").read_text())
    # Of the first round one episode was left to learn from; the last ones of the third round were not tried.
    assert (status["stage"], status["complete"], status["episodes"]) == ("online", False, 20)

    monkeypatch.setattr(Crashing, "mended", True)
    train(stored_config(folder), folder, films=False, resume=True)
    status = json.loads((folder / "status.json").read_text())
    assert (status["complete"], status["episodes"]) == (True, 30)
    store = EpisodeStore(folder / "experience")
    learnt = [store.summary(number) for number in store.numbers]
    assert sum(not summary.interrupted for summary in learnt) == 1 + 10
