"""The number of training options, and their former names."""

from __future__ import annotations

from typing import Any

import pytest

from serfn.core.config import from_dict
from serfn.core.errors import ConfigError
from serfn.core.options import count_options, option_groups
from serfn.training.config import TrainConfig

MOST = 110


def test_training_has_few_options_and_each_is_explained() -> None:
    groups = option_groups(TrainConfig)
    assert count_options(groups) <= MOST
    unexplained = [
        f"{group.cls.__name__}.{option.name}"
        for group in groups
        for option in group.options
        if not option.meaning
    ]
    assert not unexplained


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewards": {"success_value": 1.0}}, "'rewards.success_value' is now 'rewards.absorbing_success'"),
        ({"rewards": {"failure_value": 1.0}}, "'rewards.failure_value' is now 'rewards.absorbing_failure'"),
        ({"online": {"policy_starts": "all"}}, "'online.policy_starts' is now 'online.policy_windows'"),
        ({"online": {"policy_windows": "decisions"}}, "is now 'online.policy_windows=replans'"),
        ({"online": {"alarms": {"max_divergence": 1.0}}}, "is now 'online.alarms.max_kl'"),
        ({"agent": {"compile": True}}, "'agent.compile' is gone: nothing is compiled"),
    ],
)
def test_former_names_are_refused_with_the_present_one(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(TrainConfig, options)
