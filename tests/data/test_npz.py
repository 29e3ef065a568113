from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.core.errors import DataError
from serfn.core.spec import ActionSpec
from serfn.data.demonstrations import Demonstrations
from serfn.data.episode import Episode
from serfn.data.formats.npz import load_npz, save_npz

SPEC = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0))


def arrays(**changes: Any) -> dict[str, Any]:
    """Return two episodes of 3 and 2 steps; a change to None removes an array."""
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {
        "observations": rng.normal(size=(5, 3)),
        "actions": rng.uniform(-1, 1, size=(5, 2)),
        "episode_ends": np.array([3, 5]),
        "success": np.array([True, False]),
    }
    return {name: array for name, array in (content | changes).items() if array is not None}


def load(folder: Path, **changes: Any) -> Demonstrations:
    np.savez(folder / "demos.npz", **arrays(**changes))
    return load_npz(folder / "demos.npz", SPEC)


def test_the_least_a_user_must_bring(tmp_path: Path) -> None:
    demonstrations = load(tmp_path)
    first, second = demonstrations.episodes
    assert (first.length, second.length) == (3, 2)
    assert first.rewards.tolist() == [0, 0, 1] and second.rewards.tolist() == [0, 0]
    assert (first.terminated, first.truncated, second.terminated, second.truncated) == (
        True,
        False,
        False,
        True,
    )
    np.testing.assert_array_equal(first.observations[-1], first.observations[-2])
    assert first.chunk_starts.all()
    assert len(demonstrations.notes) == 2
    assert demonstrations.obs_dim == 3 and demonstrations.steps == 5


def test_terminal_observations_in_rows_or_in_an_array_of_their_own(tmp_path: Path) -> None:
    rows = np.arange(21.0).reshape(7, 3)
    inline = load(tmp_path, observations=rows).episodes
    apart = load(tmp_path, observations=rows[[0, 1, 2, 4, 5]], terminal_observations=rows[[3, 6]]).episodes
    for episodes in (inline, apart):
        np.testing.assert_array_equal(episodes[0].observations, rows[:4])
        np.testing.assert_array_equal(episodes[1].observations, rows[4:])


def test_flags_per_step_are_read_at_the_end_of_each_episode(tmp_path: Path) -> None:
    demonstrations = load(
        tmp_path,
        success=np.array([0, 1, 0, 0, 0]),
        terminated=np.array([0, 0, 1, 0, 0]),
        rewards=np.arange(5.0),
    )
    assert [item.success for item in demonstrations.episodes] == [True, False]
    assert [item.terminated for item in demonstrations.episodes] == [True, False]
    assert [item.truncated for item in demonstrations.episodes] == [False, True]
    assert demonstrations.episodes[1].rewards.tolist() == [3, 4]


def test_without_success_the_outcome_is_unknown(tmp_path: Path) -> None:
    demonstrations = load(tmp_path, success=None, rewards=np.ones(5))
    assert [item.success for item in demonstrations.episodes] == [None, None]
    assert all(item.truncated and not item.terminated for item in demonstrations.episodes)


@pytest.mark.parametrize("known", [True, False])
def test_saved_episodes_come_back_as_they_were(tmp_path: Path, known: bool) -> None:
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            observations=rng.normal(size=(length + 1, 3)),
            actions=rng.uniform(-1, 1, size=(length, 2)),
            rewards=rng.normal(size=length),
            terminated=length == 1,
            truncated=length != 1,
            success=(length == 1) if known or length < 4 else None,
            seed=length if length != 2 else None,
            policy_version=length,
            metrics={"rev": 0.5} if length == 4 else {"rev": 1.5, "drops": 2.0},
            chunk_starts=np.arange(length) % 2 == 0,
        )
        for length in (1, 4, 2)
    ]
    save_npz(tmp_path / "out.npz", episodes, SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]
    loaded = load_npz(tmp_path / "out.npz")
    assert loaded.action_spec == SPEC and loaded.notes == ()
    for before, after in zip(episodes, loaded.episodes, strict=True):
        for name, value in vars(before).items():
            np.testing.assert_array_equal(getattr(after, name), value, err_msg=name)


def test_bounds_are_inferred_with_a_note(tmp_path: Path) -> None:
    np.savez(tmp_path / "demos.npz", **arrays())
    demonstrations = load_npz(tmp_path / "demos.npz")
    assert demonstrations.action_spec.dim == 2
    assert any("bounds" in note for note in demonstrations.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": None}, "'actions' is missing; found episode_ends, observations, success"),
        ({"success": None}, "neither 'rewards' nor 'success'.*found actions, episode_ends, observations"),
        ({"success": np.array([1, -1])}, "not for episode 1"),
        ({"success": np.ones(4)}, r"success has shape \(4,\)"),
        ({"episode_ends": np.array([3, 4])}, "from 3 to 4 for 5 actions"),
        ({"episode_ends": np.array([3, 3, 5])}, "increase"),
        ({"episode_ends": np.array([5.0])}, "one integer per episode"),
        ({"observations": np.zeros((6, 3))}, "6 rows for 5 actions in 2 episodes; give 5, or 7"),
        ({"terminal_observations": np.zeros((2, 4))}, r"expected \(2, 3\)"),
        ({"rewards": np.zeros(4)}, "one value per step"),
        ({"terminated": np.array([1, 0, 0, 0, 0])}, "set at step 0, before the end"),
        ({"observations": np.full((5, 3), np.nan)}, "episode 0: observations at step 0 are not finite"),
        ({"actions": np.full((5, 2), 1.5)}, "episode 0: action at index .* 1.5, outside"),
        ({"actions": np.zeros(5)}, r"must both be \[steps, size\]"),
        ({"success": np.array(["yes", "no"])}, "only numbers"),
        ({"extra": np.array([{}], dtype=object)}, "plain arrays"),
    ],
)
def test_files_that_cannot_be_used_say_why(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, **changes)
    assert "demos.npz" in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        load_npz(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello", encoding="utf-8")
    with pytest.raises(DataError, match="NPZ file"):
        load_npz(tmp_path / "text.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(DataError, match="cannot read"):
        load_npz(tmp_path / "empty.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(DataError, match="single array"):
        load_npz(tmp_path / "single.npy")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.npz"
    path.write_bytes(b"old")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    item = Episode(
        observations=np.zeros((2, 1)),
        actions=np.zeros((1, 1)),
        rewards=np.zeros(1),
        terminated=True,
        truncated=False,
        chunk_starts=np.ones(1, bool),
    )
    with pytest.raises(OSError, match="disk full"):
        save_npz(path, [item])
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(DataError, match="nothing to save"):
        save_npz(path, [])
