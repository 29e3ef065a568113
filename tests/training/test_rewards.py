from __future__ import annotations

import numpy as np
import pytest

from serfn.core.errors import ConfigError
from serfn.data.episode import Episode
from serfn.training.rewards import RewardConfig, learning_rewards

DISCOUNT = 0.9


def episode(rewards: list[float], *, terminated: bool, success: bool | None = None) -> Episode:
    steps = len(rewards)
    return Episode(
        observations=np.zeros((steps + 1, 1)),
        actions=np.zeros((steps, 1)),
        rewards=np.array(rewards),
        terminated=terminated,
        truncated=not terminated,
        success=success,
        chunk_starts=np.ones(steps, bool),
    )


def test_rewards_are_scaled_clipped_and_multiplied_by_one_minus_discount() -> None:
    scaled = learning_rewards(
        episode([0.2, -0.1, 5.0], terminated=False), RewardConfig(scale=2.0, absorbing_failure=-1.0), DISCOUNT
    )
    np.testing.assert_allclose(scaled.rewards, [0.04, -0.02, 0.1], rtol=1e-6)


@pytest.mark.parametrize(("success", "ending"), [(True, 0.5), (False, -1.0), (None, -1.0)])
def test_an_ending_pays_for_ever(success: bool | None, ending: float) -> None:
    config = RewardConfig(absorbing_success=0.5, absorbing_failure=-1.0)
    scaled = learning_rewards(episode([0.0, 0.0], terminated=True, success=success), config, DISCOUNT)
    np.testing.assert_allclose(scaled.rewards, [0.0, DISCOUNT * ending], rtol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_discounted_sums_reach_their_bounds_and_not_more(sign: float) -> None:
    config = RewardConfig(absorbing_failure=-1.0, absorbing_success=1.0)
    worst = learning_rewards(episode([sign * 9.0] * 5, terminated=True, success=sign > 0), config, DISCOUNT)
    total = sum(DISCOUNT**step * reward for step, reward in enumerate(worst.rewards))
    # γ^4 · γ is what the absorbing state adds; the geometric series of the steps is the rest of 1.
    assert total == pytest.approx(config.value_bounds[sign > 0], abs=1e-6)


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"absorbing_failure": -1.5}, {"absorbing_success": 2.0}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        RewardConfig(**options)
