"""Held-out recordings judge policies: hand-computed figures, the gate, and early stopping."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serfn.data.episode import Episode
from serfn.training.config import TrainConfig
from serfn.training.holdout import LEAST_EPISODES, MAX_NLL_GROWTH, Figures, Holdout, _to_go, split
from serfn.training.session import TrainingSession
from serfn.training.stages.imitation import ImitationConfig
from serfn.training.stages.state import STAGES

RECORDED = STAGES[:3]


def test_a_tenth_is_held_out_and_never_learnt_from() -> None:
    learnt, held = split(40, seed=0)
    assert len(held) == 4 and sorted(learnt + held) == list(range(40))
    assert split(40, seed=0) == (learnt, held)
    assert split(40, seed=1)[1] != held
    assert len(split(LEAST_EPISODES, 0)[1]) == 2
    assert split(LEAST_EPISODES - 1, 0) == (list(range(LEAST_EPISODES - 1)), [])


def test_returns_to_go_are_discounted_sums() -> None:
    assert _to_go(np.array([1.0, 0.0, 2.0]), 0.5).tolist() == [1.5, 1.0, 2.0]


FIGURES = Figures(
    episodes=4,
    nll=-1.0,
    chunk_error=0.1,
    calibration=0.5,
    auc=(0.5, None, 1.0),
    gain=0.1,
    gain_low=-0.1,
    gain_high=0.3,
    nll_growth=0.1,
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"gain": -0.2, "gain_low": -0.3, "gain_high": 0.1}, None),
        ({"gain": -0.2, "gain_low": -0.3, "gain_high": -0.1}, "the critic values it less"),
        ({"nll_growth": MAX_NLL_GROWTH + 0.01}, "less likely"),
        ({"nll": math.nan}, "not finite"),
    ],
)
def test_only_what_shows_harm_is_held_back(changes: dict[str, float], words: str | None) -> None:
    harm = dataclasses.replace(FIGURES, **changes).harm
    assert harm is None if words is None else harm is not None and words in harm


def session(
    surroundings: Any, config: TrainConfig, folder: Path, episodes: list[Episode], **overrides: Any
) -> TrainingSession:
    made = surroundings.make_session(
        config, folder, evaluate=None, collect=None, held_out=episodes[-4:], **overrides
    )
    return made


def test_stages_without_an_environment_are_judged_on_held_out_episodes(
    surroundings: Any,
    toy_config: Callable[..., TrainConfig],
    toy_demonstrations: list[Episode],
    tmp_path: Path,
) -> None:
    made = session(surroundings, toy_config(), tmp_path, toy_demonstrations)
    made.run(RECORDED)
    first, second = made.state.gates
    assert (first.stage, second.stage) == ("imitation", "offline")
    assert first.promoted and "first policy, on 4 held-out episodes: NLL" in first.reason
    assert "gain in value" in second.reason and "correlate" in second.reason


def test_a_policy_that_forgot_the_task_is_not_promoted(
    surroundings: Any,
    toy_config: Callable[..., TrainConfig],
    toy_demonstrations: list[Episode],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = session(surroundings, toy_config(), tmp_path, toy_demonstrations)
    made.run(RECORDED[:2])
    kept = made.context.agent.policy_state()["module"]

    def broken(*args: Any, **kwargs: Any) -> dict[str, Any]:
        with torch.no_grad():
            for weight in made.context.agent.policy.parameters():
                weight.mul_(1.5).add_(0.3)
        return {}

    monkeypatch.setattr(made.context.agent, "policy_step", broken)
    made.run(RECORDED)
    assert not made.state.gates[-1].promoted
    after = made.context.agent.policy_state()["module"]
    assert all(torch.equal(kept[name], after[name]) for name in kept)


def test_imitation_keeps_the_policy_that_held_out_episodes_are_likeliest_under(
    surroundings: Any,
    toy_config: Callable[..., TrainConfig],
    toy_demonstrations: list[Episode],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = toy_config(imitation=ImitationConfig(steps=24, batch_size=32))
    notes: list[str] = []
    made = session(surroundings, config, tmp_path, toy_demonstrations, note=notes.append)
    seen: list[tuple[float, Any]] = []
    values = iter([3.0, 1.0, 2.0, 2.5, 4.0, 5.0])

    def nll(self: Holdout, policy: Any) -> float:
        value = next(values)
        seen.append((value, made.context.agent.policy_state()["module"]))
        return value

    with monkeypatch.context() as patched:
        patched.setattr(Holdout, "nll", nll)
        patched.setattr(Holdout, "figures", lambda self, agent: FIGURES)
        made.run(RECORDED[:1])
    best = seen[1][1]
    now = made.context.agent.policy_state()["module"]
    assert all(torch.equal(best[name], now[name]) for name in best)
    assert any("likeliest after 8 of 24 updates" in note for note in notes)


def test_a_stopped_imitation_remembers_its_best_policy(
    surroundings: Any,
    toy_config: Callable[..., TrainConfig],
    toy_demonstrations: list[Episode],
    tmp_path: Path,
) -> None:
    whole = session(surroundings, toy_config(), tmp_path / "whole", toy_demonstrations)
    whole.run(RECORDED)
    first = session(
        surroundings,
        toy_config(),
        tmp_path / "halves",
        toy_demonstrations,
        should_stop=lambda: first.state.step == 13,
    )
    with pytest.raises(KeyboardInterrupt):
        first.run(RECORDED)
    second = session(surroundings, toy_config(), tmp_path / "halves", toy_demonstrations)
    second.resume()
    second.run(RECORDED)
    assert [gate.reason for gate in second.state.gates] == [gate.reason for gate in whole.state.gates]
