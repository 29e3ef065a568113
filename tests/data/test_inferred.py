"""What rewards tell about outcomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serfn.data.datasets import load_demonstrations
from serfn.data.episode import Episode
from serfn.data.formats.lerobot_write import LeRobotOptions, write_lerobot
from serfn.data.formats.npz import save_npz
from serfn.data.inferred import ends_by_success, success_by_rewards


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
    episodes, note = success_by_rewards([episode(low, low + 1), episode(low, low)])
    assert [each.success for each in episodes] == [True, False]
    assert note is not None and "1 of 2 episodes succeed" in note


@pytest.mark.parametrize(
    "episodes",
    [
        [episode(0, 0), episode(0, 0)],
        [episode(0, 0.5), episode(1, 0)],
        [episode(0, 1, success=True), episode(0, 0)],
    ],
)
def test_other_rewards_tell_nothing(episodes: list[Episode]) -> None:
    assert success_by_rewards(episodes) == (tuple(episodes), None)


def test_a_flag_at_every_end_does_not_end_what_is_unsolved() -> None:
    solved, unsolved = episode(0, 1, success=True), episode(0, 0, success=False)
    episodes, note = ends_by_success([solved, unsolved])
    assert [(each.terminated, each.truncated) for each in episodes] == [(True, False), (False, True)]
    assert note is not None and "the 1 without success" in note
    timed_out = episode(0, 0, success=False, terminated=False)
    assert ends_by_success([solved, timed_out])[1] is None


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
