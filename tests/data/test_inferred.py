"""What rewards tell about outcomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serfn.data.datasets import load_demonstrations
from serfn.data.episode import Episode
from serfn.data.formats.lerobot_write import LeRobotOptions, write_lerobot
from serfn.data.formats.npz import save_npz
from serfn.data.inferred import infer_outcomes


def episode(*rewards: float, success: bool | None = None, terminated: bool = True) -> Episode:
    steps = len(rewards)
    return Episode(
        observations=np.zeros((steps + 1, 2)),
        actions=np.full((steps, 1), 0.5),
        rewards=np.array(rewards),
        terminated=terminated,
        truncated=not terminated,
        success=success,
        chunk_starts=np.ones(steps, bool),
    )


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_sparse_rewards_tell_success(low: float) -> None:
    episodes = [episode(low, low + 1), episode(low, low)]
    inferred = infer_outcomes(episodes)
    assert [inferred.tell(each).success for each in episodes] == [True, False]
    assert "1 of 2 episodes succeed" in inferred.notes[0]


@pytest.mark.parametrize(
    "episodes",
    [
        [episode(0, 0), episode(0, 0)],
        [episode(0, 0.5), episode(1, 0)],
        [episode(0, 1, success=True), episode(0, 0)],
    ],
)
def test_other_rewards_tell_nothing(episodes: list[Episode]) -> None:
    inferred = infer_outcomes(episodes)
    assert inferred.notes == () and [inferred.tell(each) for each in episodes] == episodes


def test_a_flag_at_every_end_does_not_end_what_is_unsolved() -> None:
    solved, unsolved = episode(0, 1, success=True), episode(0, 0, success=False)
    inferred = infer_outcomes([solved, unsolved], done_at_every_end=True)
    told = [inferred.tell(each) for each in (solved, unsolved)]
    assert [(each.terminated, each.truncated) for each in told] == [(True, False), (False, True)]
    assert "the 1 without success" in inferred.notes[0]
    timed_out = episode(0, 0, success=False, terminated=False)
    assert infer_outcomes([solved, timed_out], done_at_every_end=True).notes == ()
    assert infer_outcomes([solved, unsolved]).notes == ()


@pytest.mark.parametrize("name", ["npz", "lerobot"])
def test_every_format_is_read_so(tmp_path: Path, name: str) -> None:
    episodes = [episode(-1, 0, terminated=False), episode(-1, -1, terminated=False)]
    if name == "npz":
        save_npz(tmp_path / "x", episodes)
    else:
        write_lerobot(tmp_path / "x", episodes, LeRobotOptions(fps=20))
    found = load_demonstrations(tmp_path / "x")
    assert [each.success for each in found.episodes] == [True, False]
    assert any("inferred from rewards of -1 and 0" in note for note in found.notes)
