"""The critic's choice among candidates must show that it helps: by hand-computed cases, and in a stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serfn.data.episode import Episode
from serfn.training.acting import ActingConfig
from serfn.training.config import TrainConfig
from serfn.training.evidence import WINDOW, Gain, Trial, gain_of_choice, scores_of, share_of_choice
from serfn.training.stages.online import OnlineConfig
from serfn.training.stages.state import STAGES


def test_the_gain_is_the_difference_of_the_means_with_welchs_error() -> None:
    gain = gain_of_choice([Trial((1.0, 3.0), (6.0,)), Trial((2.0,), (8.0, 10.0))])
    assert gain is not None
    # Means 2 and 8, variances 1 and 4, three episodes each.
    assert gain.mean == pytest.approx(6.0)
    assert gain.standard_error == pytest.approx((1 / 3 + 4 / 3) ** 0.5)


def test_old_rounds_are_forgotten() -> None:
    old = [Trial((0.0, 0.0), (9.0, 9.0))]
    new = [Trial((5.0, 6.0), (1.0, 2.0))] * WINDOW
    gain = gain_of_choice(old + new)
    assert gain is not None and gain.mean == pytest.approx(-4.0)


def test_too_few_episodes_say_nothing() -> None:
    assert gain_of_choice([]) is None
    assert gain_of_choice([Trial((1.0,), (2.0, 3.0))]) is None


@pytest.mark.parametrize(
    ("gain", "episodes", "share"),
    [
        (None, 8, 4),
        (Gain(0.0, 1.0), 8, 4),
        # Normal probabilities .841, .023 and .998 of 8, with one of each kind at least.
        (Gain(1.0, 1.0), 8, 7),
        (Gain(-2.0, 1.0), 8, 1),
        (Gain(3.0, 1.0), 8, 7),
        (Gain(0.0, 0.0), 8, 4),
        (Gain(1.0, 0.0), 8, 7),
        (None, 2, 1),
        (None, 1, 0),
        (Gain(1.0, 1.0), 1, 1),
    ],
)
def test_the_likelier_kind_gets_more_episodes(gain: Gain | None, episodes: int, share: int) -> None:
    assert share_of_choice(gain, episodes) == share


def config(toy_config: Callable[..., TrainConfig], **changes: Any) -> TrainConfig:
    online = OnlineConfig(
        episodes=24,
        episodes_per_round=4,
        updates_per_round=3,
        batch_size=16,
        evaluate_every=3,
        acting=ActingConfig(candidates=4, temperature=0.5),
        critic_chooses="by_evidence",
    )
    return toy_config(online=dataclasses.replace(online, **changes))


class Rigged:
    """Collects episodes whose score says that one way of acting is better."""

    def __init__(self, surroundings: Any, best_of_n_is_better: bool) -> None:
        self._surroundings, self._better = surroundings, best_of_n_is_better
        self.asked: list[tuple[int, int, int]] = []

    def __call__(self, actor: Any, episodes: int, first_episode: int) -> list[Episode]:
        self.asked.append((actor.acting.candidates, episodes, first_episode))
        good = (actor.acting.candidates > 1) is self._better
        return [
            dataclasses.replace(
                episode, metrics={"score": (10.0 if good else 0.0) + 0.1 * (first_episode + i)}
            )
            for i, episode in enumerate(self._surroundings.collect(actor, episodes, first_episode))
        ]


@pytest.mark.parametrize("better", [True, False])
def test_a_stage_ends_with_the_kind_that_earned_more(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path, better: bool
) -> None:
    collect = Rigged(surroundings, better)
    evaluated: list[int] = []

    def evaluate(actor: Any, *, stage: str, final: bool) -> Any:
        if stage == "online":
            evaluated.append(actor.acting.candidates)
        return surroundings.evaluate(actor, stage=stage, final=final)

    session = surroundings.make_session(config(toy_config), tmp_path, collect=collect, evaluate=evaluate)
    session.run(STAGES)
    # The first evaluation comes before any evidence, and then the critic does not choose.
    assert evaluated[0] == 1
    assert set(evaluated[1:]) == {4 if better else 1}
    assert session.state.data.candidates == (4 if better else 1)
    # Half of the first round each; then the better kind gets all but one. Numbers have no gap.
    assert collect.asked[:2] == [(1, 2, 0), (4, 2, 2)]
    later = [count for candidates, count, first in collect.asked if (candidates > 1) is better and first >= 8]
    assert later and all(count == 3 for count in later)
    firsts = [first for _, _, first in collect.asked]
    assert firsts == sorted(firsts) and sum(count for _, count, _ in collect.asked) == 24


def test_a_stopped_stage_remembers_its_evidence(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    settings = config(toy_config)
    whole = Rigged(surroundings, True)
    session = surroundings.make_session(settings, tmp_path / "whole", collect=whole)
    session.run(STAGES)
    halves = Rigged(surroundings, True)

    def stop() -> bool:
        return len(halves.asked) == 6

    first = surroundings.make_session(settings, tmp_path / "halves", collect=halves, should_stop=stop)
    with pytest.raises(KeyboardInterrupt):
        first.run(STAGES)
    trials = first.state.online.trials
    assert len(trials) == 3
    second = surroundings.make_session(settings, tmp_path / "halves", collect=halves)
    second.resume()
    assert second.state.online.trials == trials
    second.run(STAGES)
    assert halves.asked == whole.asked


def test_a_critic_that_always_chooses_does_so(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    collect = Rigged(surroundings, False)
    settings = config(toy_config, critic_chooses="always")
    session = surroundings.make_session(settings, tmp_path, collect=collect)
    session.run(STAGES)
    assert {candidates for candidates, _, _ in collect.asked} == {4}
    assert session.state.data.candidates is None


def test_scores_follow_the_rule_of_evaluations(toy_demonstrations: list[Episode]) -> None:
    episodes = toy_demonstrations[:2]
    assert scores_of([]) == ()
    assert scores_of(episodes) == tuple(episode.return_ for episode in episodes)
    told = [dataclasses.replace(episode, success=True) for episode in episodes]
    assert scores_of(told) == (1.0, 1.0)
    scored = [dataclasses.replace(episode, metrics={"score": 2.5}) for episode in told]
    assert scores_of(scored) == (2.5, 2.5)
