"""A teacher trained for a moment: what it exports is the policy that PPO learnt, and acts without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.cube_demonstrator import TeacherNetwork
from serfn.tasks.orca_hand.cube_teacher_env import ACTION_DIM, OBSERVATION_DIM

pytest.importorskip("stable_baselines3")
pytestmark = pytest.mark.slow

from serfn.runs.teacher import train_cube_teacher  # noqa: E402


def test_a_teacher_is_trained_exported_and_acts(tmp_path: Path) -> None:
    rows: list[object] = []
    path = train_cube_teacher("ccw", tmp_path, scale=1e-4, simulations=2, report=rows.append)
    teacher = TeacherNetwork.load(path)
    observation = np.zeros(OBSERVATION_DIM)
    action = teacher(observation)
    assert action.shape == (ACTION_DIM,) and np.isfinite(action).all()
    assert (teacher(observation + 1.0) != action).any()
    logged = [json.loads(line) for line in (tmp_path / "cube_ccw.log.jsonl").read_text().splitlines()]
    assert len(logged) == len(rows)


def test_an_unknown_direction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown direction 'up'; choose one of ccw, cw"):
        train_cube_teacher("up", tmp_path / "x", report=lambda row: None)
    assert not (tmp_path / "x").exists()
