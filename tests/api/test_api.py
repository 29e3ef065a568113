from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import serfn
from serfn.api import Serfn
from serfn.core.errors import CheckpointError, ConfigError, DataError
from serfn.policies.bundle import load_bundle
from serfn.sessions.run import run_robot
from serfn.training.config import TrainConfig

pytestmark = pytest.mark.slow


def test_five_lines(make_config: Callable[..., TrainConfig], demos: Path, tmp_path: Path) -> None:
    config = make_config()
    options = {
        name: getattr(config, name)
        for name in ("chunk_size", "policy", "critic", "imitation", "critic_warmup", "offline", "online")
    }
    learner = Serfn.from_demonstrations(demos, env=config.env, folder=tmp_path / "run", **options)
    assert learner.train(stages=["imitation"]).finals["imitation"].episodes == 50
    assert learner.evaluate(episodes=2).episodes == 2
    assert learner.act(np.zeros(2)).shape == (4, 2)
    assert learner.actor.graph is not None
    assert learner.act(np.zeros((3, 2))).shape == (3, 4, 2)
    learner.save(tmp_path / "policy")
    assert load_bundle(tmp_path / "policy").spec.action.dim == 2
    again = Serfn.load(tmp_path / "run")
    assert again.config == learner.config
    again.train(stages=["imitation", "critic_warmup"])
    with pytest.raises(ConfigError, match="bundle"):
        Serfn.load(tmp_path / "policy")


def test_nothing_to_act_with_before_training(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        Serfn(make_config(), tmp_path / "run").act(np.zeros(2))


def test_the_package_offers_the_interface() -> None:
    assert serfn.Serfn is Serfn
    assert serfn.run_robot is run_robot
    with pytest.raises(AttributeError, match="nothing"):
        serfn.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_an_observation_that_is_no_number_is_refused(tmp_path: Path, robot_run: Path) -> None:
    learner = Serfn.load(robot_run)
    observation = np.zeros(4, np.float32)
    assert np.isfinite(learner.act(observation)).all()
    observation[2] = np.nan
    with pytest.raises(DataError, match="observation entry 2 is nan"):
        learner.act(observation)


def test_single_options_of_a_nested_configuration_are_changed_strictly(
    demos: Path, make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    env = make_config().env
    plain = Serfn.from_demonstrations(demos, env=env).config
    config = Serfn.from_demonstrations(demos, env=env, imitation={"steps": 5}, seed=3).config
    assert (config.imitation.steps, config.seed) == (5, 3)
    assert config.imitation.batch_size == plain.imitation.batch_size
    with pytest.raises(ConfigError, match="stepz"):
        Serfn.from_demonstrations(demos, env=env, imitation={"stepz": 5})
    with pytest.raises(ConfigError, match="imitation"):
        Serfn.from_demonstrations(demos, env=env, imitation=5)
