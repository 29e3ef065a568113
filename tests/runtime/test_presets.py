from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import ConfigError
from serfn.runtime.presets import Budget, preset
from serfn.training.config import TrainConfig


@pytest.mark.parametrize("budget", get_args(Budget))
def test_presets_survive_a_file(budget: Any) -> None:
    config = preset("cube", budget)
    assert config.plant == "field"
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_full_budget_is_the_robot_time_of_the_paper() -> None:
    assert preset("cube", "full").online.episodes * 20 / 60 == 105


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="huge"):
        preset("cube", "huge")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="tea"):
        preset("tea", "demo")
