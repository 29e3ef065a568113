"""Methods of a study with parts of other packages."""

from __future__ import annotations

import json

import pytest

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import ConfigError
from serfn.runs.presets import preset
from serfn.studies.config import OwnMethod, with_options
from serfn.studies.resolve import resolve_method
from serfn.training.config import TrainConfig

LAPLACE = "mylab.policy:LaplaceConfig"


def test_a_method_may_take_a_policy_of_another_package() -> None:
    own = {
        "laplace": OwnMethod(base="ours", options={"policy": {"type": LAPLACE, "data_noise": 0.02}}),
        "narrow": OwnMethod(base="laplace", options={"policy": {"data_noise": 0.01}}),
    }
    base = preset("diagnostic", "smoke")
    config = resolve_method("narrow", own).configure(base)
    assert type(config.policy).__name__ == "LaplaceConfig"
    assert to_dict(config.policy)["data_noise"] == 0.01
    assert config.critic == base.critic and config.online == base.online
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_another_improvement_leaves_the_options_of_the_former_one() -> None:
    config = with_options(
        preset("diagnostic", "smoke"), {"online": {"improvement": {"type": "sac"}}}, "options"
    )
    assert config.online.improvement.type == "sac"
    with pytest.raises(ConfigError, match=r"options: unknown option 'online\.improvement\.penalty'"):
        with_options(config, {"online": {"improvement": {"penalty": "kl"}}}, "options")
