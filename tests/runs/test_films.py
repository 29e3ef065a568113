"""Which episodes of a run are filmed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from serfn.rollout.film import Rehearsal
from serfn.rollout.simulations import Simulations
from serfn.runs import films
from serfn.runs.films import TRIES, add_films

ENV_ID = "toy/Reach-v0"


class StandingStill:
    chunk_size = n_action_steps = 4

    def reset(self, seed: int) -> None:
        pass

    def act(self, observations: np.ndarray) -> np.ndarray:
        return np.zeros((len(observations), 4, 2), np.float32)


def film(folder: Path, outcomes: list[bool | None], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Film episodes of given outcomes and return the seeds that were rehearsed."""
    seeds: list[int] = []

    def rehearsed(env: gymnasium.Env, actor: Any, *, seed: int) -> Rehearsal:
        seeds.append(seed)
        return Rehearsal(8, outcomes[seed - 10])

    monkeypatch.setattr(films, "rehearse", rehearsed)
    simulations = Simulations(ENV_ID, None, {})
    add_films(folder, "after", "after training", simulations, StandingStill(), seed=10)
    return seeds


def test_the_first_success_and_the_first_failure_are_filmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert film(tmp_path, [True, True, False, False], monkeypatch) == [10, 11, 12]
    assert {path.name for path in tmp_path.glob("*.png")} == {"after_success.png", "after_failure.png"}
    captions = json.loads((tmp_path / "films.json").read_text())
    assert captions["after_failure.png"] == "after training: a failure"


def test_what_does_not_happen_is_not_filmed_and_outdated_films_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(tmp_path, [True, False], monkeypatch)
    assert film(tmp_path, [True] * TRIES, monkeypatch) == list(range(10, 10 + TRIES))
    assert [path.name for path in tmp_path.glob("*.png")] == ["after_success.png"]
    assert list(json.loads((tmp_path / "films.json").read_text())) == ["after_success.png"]


def test_a_task_that_tells_no_success_gets_one_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert film(tmp_path, [None], monkeypatch) == [10]
    assert json.loads((tmp_path / "films.json").read_text()) == {"after.png": "after training"}
