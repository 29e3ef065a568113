from __future__ import annotations

import numpy as np
import pytest

from serfn.core.errors import DataError
from serfn.core.spec import ActionSpec
from serfn.data.demonstrations import Demonstrations, check_coverage, infer_action_spec
from serfn.data.episode import Episode
from serfn.data.statistics import STD_FLOOR, observation_statistics


def episode(length: int, seed: int = 0, success: bool | None = None) -> Episode:
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, size=(length, 3))
    actions[:, 1] = 0.25
    observations = 1000 + rng.normal(size=(length + 1, 2))
    observations[:, 1] = 3.0
    return Episode(
        observations=observations,
        actions=actions,
        rewards=np.zeros(length),
        terminated=True,
        truncated=False,
        success=success,
        chunk_starts=np.ones(length, bool),
    )


def test_statistics_equal_those_of_the_whole_and_have_a_floor() -> None:
    episodes = [episode(50, 1), episode(7, 2)]
    everything = np.concatenate([item.observations for item in episodes]).astype(np.float64)
    statistics = observation_statistics(episodes)
    np.testing.assert_allclose(statistics.mean, everything.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.std, (everything.std(0)[0], STD_FLOOR), rtol=1e-5)
    assert statistics.mean.dtype == statistics.std.dtype == np.float32
    with pytest.raises(DataError, match="at least one"):
        observation_statistics([])


def test_inferred_bounds_contain_the_actions_without_saturating_them() -> None:
    episodes = (episode(40, 1), episode(40, 2))
    spec = infer_action_spec(episodes)
    actions = np.concatenate([item.actions for item in episodes])
    assert 0.9 < np.abs(spec.normalize(actions)[:, [0, 2]]).max() < 0.92
    assert np.abs(spec.normalize(actions)[:, 1]).max() < 1e-5
    assert check_coverage(Demonstrations(episodes, spec), 8).saturated_fraction == (0.0, 0.0, 0.0)


def test_coverage_names_dead_and_saturated_dimensions_and_failures() -> None:
    spec = ActionSpec(low=(-1.0,) * 3, high=(1.0,) * 3)
    item = episode(40, success=False)
    item.actions[:20, 2] = 1.0
    report = check_coverage(Demonstrations((item,), spec), 8)
    assert report.constant_dimensions == (1,)
    assert report.saturated_fraction[2] >= 0.5
    assert [note.split(";")[0] for note in report.notes] == [
        "action dimensions [1] never move",
        "action dimensions [2] are at their bounds in more than 20% of the steps",
        "no demonstration succeeds",
    ]


def test_a_chunk_longer_than_every_episode_is_refused() -> None:
    demonstrations = Demonstrations((episode(5), episode(7)), infer_action_spec([episode(5), episode(7)]))
    check_coverage(demonstrations, 7)
    with pytest.raises(DataError, match=r"longest demonstration has 7 steps.*set chunk_size to 7 or less"):
        check_coverage(demonstrations, 8)


def test_actions_outside_the_bounds_name_the_episode() -> None:
    small = episode(1)
    small.actions[:] = 0.0
    with pytest.raises(DataError, match="episode 1: action at index"):
        Demonstrations((small, episode(30)), ActionSpec(low=(-0.8,) * 3, high=(0.8,) * 3))
    with pytest.raises(DataError, match="at least one episode"):
        Demonstrations((), ActionSpec(low=(-1.0,), high=(1.0,)))
