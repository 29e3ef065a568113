"""Training on recordings alone: no environment, never one of our tasks instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.api import Serfn
from serfn.cli.main import main
from serfn.core.errors import ConfigError
from serfn.data.datasets import load_demonstrations
from serfn.data.episode import Episode
from serfn.data.formats.npz import save_npz
from serfn.runs.recordings import plan_for_recordings, task_of_recordings
from serfn.runs.train import train
from serfn.training.config import TrainConfig

pytestmark = pytest.mark.slow


def recordings(folder: Path, steps: int = 40, hz: float | None = 50.0, count: int = 12) -> Path:
    """Write episodes of three observations and two actions, of which every third fails."""
    rng = np.random.default_rng(0)
    episodes = []
    for index in range(count):
        rewards = np.zeros(steps)
        rewards[-1] = float(index % 3 > 0)
        episodes.append(
            Episode(
                observations=rng.normal(size=(steps + 1, 3)),
                actions=np.clip(rng.normal(size=(steps, 2)), -2, 2),
                rewards=rewards,
                terminated=index % 3 > 0,
                truncated=index % 3 == 0,
                success=index % 3 > 0,
                chunk_starts=np.ones(steps, bool),
            )
        )
    path = folder / "mine.npz"
    save_npz(path, episodes, control_hz=hz)
    return path


def test_the_plan_is_derived_from_the_recordings(tmp_path: Path) -> None:
    path = recordings(tmp_path, steps=60, hz=20.0)
    planned = plan_for_recordings(path, "demo")
    config = planned.config
    assert (config.env, config.demos, config.control_hz) == (None, path, None)
    assert config.imitation.successes_only and 1 <= config.chunk_size <= 16
    assert planned.reasons
    short = plan_for_recordings(recordings(tmp_path, steps=6, hz=100.0), "demo").config
    assert short.chunk_size <= 6


def test_a_rate_that_nothing_tells_is_asked_for(tmp_path: Path) -> None:
    path = recordings(tmp_path, hz=None)
    with pytest.raises(ConfigError, match="--set control_hz=RATE"):
        plan_for_recordings(path, "demo")
    task = task_of_recordings(load_demonstrations(path), path, 30.0)
    assert (task.control_hz, task.observation.dim, task.action.dim, task.id) == (30.0, 3, 2, "mine")


def small(make_config: Callable[..., TrainConfig], path: Path, **changes: Any) -> TrainConfig:
    return make_config(env=None, demos=path, **changes)


def test_three_stages_run_and_a_run_goes_on(
    make_config: Callable[..., TrainConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = recordings(tmp_path), tmp_path / "run"
    config = small(make_config, path)
    train(config, out, stages=["imitation"])
    result = train(config, out, resume=True)
    assert [gate.stage for gate in result.gates] == ["imitation", "offline"]
    assert (out / "policy").is_dir() and result.finals == {}
    assert json.loads((out / "status.json").read_text())["complete"]
    learner = Serfn.load(out)
    assert learner.act(np.zeros(3)).shape[1] == 2
    assert main(["evaluate", str(out)]) == 2
    assert "there is no environment to evaluate it in" in capsys.readouterr().err
    assert main(["report", str(out)]) == 0
    assert "held-out episodes" in capsys.readouterr().out


def test_the_online_stage_is_the_robots(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = small(make_config, recordings(tmp_path))
    with pytest.raises(ConfigError, match="serfn robot run"):
        train(config, tmp_path / "run", stages=["imitation", "online"])
    with pytest.raises(ConfigError, match="neither an environment nor demos"):
        train(make_config(env=None, demos=None), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_python_and_the_command_need_no_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recordings(tmp_path)
    learner = Serfn.from_demonstrations(path, budget="smoke", folder=tmp_path / "run")
    assert learner.config.env is None and learner.config.demos == path
    words = ["--set", "imitation.steps=4", "--set", "critic_warmup.steps=4", "--set", "offline.steps=4"]
    out = tmp_path / "other"
    assert main(["train", "--demos", str(path), "--budget", "smoke", "--out", str(out), *words]) == 0
    said = capsys.readouterr()
    assert "no environment; 12 episodes at 50 steps per second, 8 succeed" in " ".join(said.err.split())
    assert json.loads((out / "config.json").read_text())["env"] is None
