"""Episodes at another control rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serfn.core.errors import DataError
from serfn.data.episode import Episode
from serfn.data.resample import resample


def episode(length: int = 4, **changes: Any) -> Episode:
    values: dict[str, Any] = {
        "observations": np.arange(length + 1)[:, None],
        "actions": np.arange(length)[:, None] + 1.0,
        "rewards": np.arange(length),
        "terminated": True,
        "truncated": False,
        "success": True,
        "chunk_starts": np.ones(length, bool),
    }
    return Episode(**(values | changes))


def test_targets_are_interpolated_and_held_at_the_end() -> None:
    result = resample(episode(3), 5, 10, "targets")
    np.testing.assert_allclose(result.actions[:, 0], [1, 1.5, 2, 2.5, 3, 3])
    np.testing.assert_allclose(result.observations[:, 0], [0, 0.5, 1, 1.5, 2, 2.5, 3])


def test_rates_keep_what_they_add_up_to() -> None:
    given = episode(12)
    for hz in (2.5, 5, 10, 15, 20, 35):
        result = resample(given, 10, hz, "rates")
        # Velocity times duration is displacement.
        assert result.actions.sum() / hz == pytest.approx(given.actions.sum() / 10)
    given = episode(6)
    np.testing.assert_allclose(
        resample(given, 10, 20, "rates").actions[:, 0], np.repeat(np.arange(1.0, 7), 2)
    )
    np.testing.assert_allclose(resample(given, 10, 5, "rates").actions[:, 0], [1.5, 3.5, 5.5])


@pytest.mark.parametrize("hz", [1, 4, 5, 7.5, 20, 33])
def test_return_outcome_and_both_ends_stay(hz: float) -> None:
    given = episode(20)
    result = resample(given, 10, hz, "targets")
    assert result.length == round(20 * hz / 10)
    assert result.return_ == pytest.approx(given.return_)
    assert (result.terminated, result.truncated, result.success) == (True, False, True)
    np.testing.assert_allclose(result.observations[[0, -1], 0], [0, 20])


def test_an_event_is_paid_in_the_step_in_which_it_happens() -> None:
    given = episode(4, rewards=np.array([0, 0, 0, 1]))
    assert resample(given, 5, 20, "targets").rewards.nonzero()[0].tolist() == [15]
    given = episode(4, rewards=np.array([0, 1, 0, 0]))
    assert resample(given, 5, 20, "targets").rewards.nonzero()[0].tolist() == [7]
    assert resample(given, 5, 2.5, "targets").rewards.tolist() == [1, 0]


def test_optional_columns_follow() -> None:
    given = episode(
        4,
        interventions=np.array([False, True, True, False]),
        timestamps_s=np.arange(5) * 0.2 + 3,
        proposed_actions=np.zeros((4, 1)),
        chunk_starts=np.array([True, False, True, False]),
        images={"top": np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)},
    )
    result = resample(given, 5, 10, "targets")
    assert result.interventions is not None and result.interventions.tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert result.chunk_starts.tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert result.timestamps_s is not None
    np.testing.assert_allclose(result.timestamps_s, np.arange(9) * 0.1 + 3)
    assert result.images["top"][:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert result.proposed_actions is not None and result.proposed_actions.shape == (8, 1)


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(DataError, match="shorter than half a step"):
        resample(episode(1), 20, 5, "targets")
    with pytest.raises(DataError, match="positive"):
        resample(episode(), 0, 5, "targets")
