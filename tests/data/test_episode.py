from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serfn.core.errors import DataError
from serfn.data.episode import Episode, EpisodeBuilder, evaluation_result


def episode(**changes: Any) -> Episode:
    fields: dict[str, Any] = {
        "observations": np.zeros((4, 2)),
        "actions": np.zeros((3, 1)),
        "rewards": np.array([1.0, 2.0, 3.5]),
        "terminated": True,
        "truncated": False,
        "chunk_starts": np.array([True, False, True]),
    }
    return Episode(**(fields | changes))


def test_arrays_are_stored_as_float32() -> None:
    item = episode()
    assert item.observations.dtype == item.actions.dtype == item.rewards.dtype == np.float32
    assert item.length == 3 and item.return_ == 6.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((3, 2))}, "observations have 3 rows for 3 actions; expected 4"),
        ({"rewards": np.zeros(2)}, "rewards have 2 rows"),
        ({"actions": np.zeros(3)}, "expected 2 dimensions"),
        ({"actions": np.array([[0.0], [np.nan], [0.0]])}, "actions at step 1 are not finite"),
        ({"rewards": np.array([0.0, 0.0, np.inf])}, "rewards at step 2"),
        ({"terminated": False}, "neither terminated nor truncated"),
        ({"observations": np.zeros((1, 2)), "actions": np.zeros((0, 1))}, "at least one step"),
        ({"proposed_actions": np.zeros((3, 2))}, "proposed_actions have 2 dimensions, actions 1"),
        ({"proposed_actions": np.zeros((2, 1))}, "proposed_actions have 2 rows"),
        ({"interventions": np.zeros(4, bool)}, "interventions have 4 rows for 3 actions; expected 3"),
        ({"timestamps_s": np.zeros(3)}, "timestamps_s have 3 rows for 3 actions; expected 4"),
        ({"timestamps_s": np.array([0.0, 0.2, 0.1, 0.3])}, r"backwards from 0\.2 to 0\.1 at step 1"),
        ({"images": {"wrist": np.zeros((4, 2, 2, 3))}}, "images of 'wrist' are float64"),
        ({"images": {"wrist": np.zeros((3, 2, 2, 3), np.uint8)}}, "images of 'wrist' have 3 rows"),
        ({"images": {"wrist": np.zeros((4, 2, 2), np.uint8)}}, "expected uint8"),
        ({"images": {"": np.zeros((4, 2, 2, 3), np.uint8)}}, "empty name"),
        ({"success_source": "operator"}, "success_source is 'operator' but success is None"),
        ({"interrupted": True}, "set truncated, not terminated"),
    ],
)
def test_unusable_episodes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        episode(**changes)


@pytest.mark.parametrize("steps", [1, 64, 65, 300])
def test_the_builder_returns_what_was_appended(steps: int) -> None:
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(steps + 1, 3)), rng.normal(size=(steps, 2))
    rewards, starts = rng.normal(size=steps), np.arange(steps) % 4 == 0
    builder = EpisodeBuilder(3, 2, seed=5, policy_version=7)
    for step in range(steps):
        builder.append(observations[step], actions[step], rewards[step], chunk_start=bool(starts[step]))
    assert builder.length == steps
    item = builder.finish(
        observations[-1], terminated=False, truncated=True, success=False, metrics={"drops": 1}
    )
    np.testing.assert_array_equal(item.observations, observations.astype(np.float32))
    np.testing.assert_array_equal(item.actions, actions.astype(np.float32))
    np.testing.assert_array_equal(item.rewards, rewards.astype(np.float32))
    np.testing.assert_array_equal(item.chunk_starts, starts)
    assert (item.seed, item.policy_version, item.metrics, item.success) == (5, 7, {"drops": 1}, False)


def test_the_builder_keeps_what_is_optional() -> None:
    rng = np.random.default_rng(1)
    camera = rng.integers(256, size=(71, 4, 5, 3), dtype=np.uint8)
    builder = EpisodeBuilder(1, 1, task="dreh den Würfel")
    for step in range(70):
        builder.append(
            np.zeros(1),
            np.zeros(1),
            0.0,
            chunk_start=True,
            proposed_action=np.full(1, step),
            intervention=step > 3,
            timestamp_s=0.05 * step,
            images={"wrist": camera[step]},
        )
    item = builder.finish(
        np.zeros(1), terminated=False, truncated=True, timestamp_s=3.5, images={"wrist": camera[70]}
    )
    assert item.proposed_actions is not None and item.proposed_actions[:, 0].tolist() == list(range(70))
    assert item.interventions is not None and item.interventions.sum() == 66
    assert item.timestamps_s is not None and item.timestamps_s.dtype == np.float64
    np.testing.assert_array_equal(item.timestamps_s, 0.05 * np.arange(71))
    np.testing.assert_array_equal(item.images["wrist"], camera)
    assert item.task == "dreh den Würfel"


def test_the_builder_refuses_a_step_that_brings_something_else() -> None:
    builder = EpisodeBuilder(1, 1)
    builder.append(np.zeros(1), np.zeros(1), 0.0, chunk_start=True, intervention=False)
    with pytest.raises(DataError, match="record the same at every step"):
        builder.append(np.zeros(1), np.zeros(1), 0.0, chunk_start=True)
    timed = EpisodeBuilder(1, 1)
    timed.append(np.zeros(1), np.zeros(1), 0.0, chunk_start=True, timestamp_s=0.0)
    with pytest.raises(DataError, match="timestamps_s have 1 rows for 1 actions; expected 2"):
        timed.finish(np.zeros(1), terminated=True, truncated=False)


def test_a_builder_without_steps_gives_no_episode() -> None:
    with pytest.raises(DataError, match="at least one step"):
        EpisodeBuilder(3, 2).finish(np.zeros(3), terminated=True, truncated=False)


def test_scores_of_an_evaluation() -> None:
    known = [
        episode(success=True, metrics={"rev": 2.0, "drops": 0.0}),
        episode(success=False, metrics={"rev": 4.0}),
    ]
    result = evaluation_result(known, 20.0)
    assert result.scores == (1.0, 0.0) and result.returns == (6.5, 6.5) and result.lengths == (3, 3)
    assert result.metrics == {"rev": (2.0, 4.0)}
    assert evaluation_result(known, 20.0, "rev").mean_score == 3.0
    assert evaluation_result([*known, episode()], 20.0).scores == (6.5, 6.5, 6.5)
    with pytest.raises(DataError, match=r"no score 'drops'.*known: return, success, rev"):
        evaluation_result(known, 20.0, "drops")
    with pytest.raises(DataError, match="at least one episode"):
        evaluation_result([], 20.0)
