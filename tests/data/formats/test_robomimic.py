from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from serfn.core.errors import DataError
from serfn.data.formats.robomimic import open_robomimic
from serfn.data.mapping import NameMapping

LENGTHS = {"demo_0": 4, "demo_2": 1, "demo_10": 3}


def write(
    path: Path,
    *,
    next_obs: bool = True,
    change: Callable[[h5py.Group], None] | None = None,
    rewards: tuple[float, ...] = (0.0, 1.0),
) -> dict[str, dict[str, np.ndarray]]:
    """Write a file as robomimic does, and return what is in it."""
    rng = np.random.default_rng(0)
    content: dict[str, dict[str, np.ndarray]] = {}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for name, steps in LENGTHS.items():
            pose, grip = rng.normal(size=(steps + 1, 3)), rng.normal(size=(steps + 1, 2))
            image = rng.integers(0, 256, size=(steps + 1, 4, 5, 3), dtype=np.uint8)
            values = {
                "actions": rng.uniform(-1, 1, size=(steps, 2)),
                "rewards": np.where(np.arange(steps) == steps - 1, rewards[1], rewards[0]),
                "dones": (np.arange(steps) == steps - 1).astype(np.int64),
                "states": rng.normal(size=(steps, 9)),
                "obs/robot0_eef_pos": pose[:-1],
                "obs/gripper": grip[:-1],
                "obs/agentview_image": image[:-1],
                "obs/agentview_depth": rng.normal(size=(steps, 4, 5, 1)),
            }
            if next_obs:
                values |= {
                    "next_obs/robot0_eef_pos": pose[1:],
                    "next_obs/gripper": grip[1:],
                    "next_obs/agentview_image": image[1:],
                }
            group = data.create_group(name)
            group.attrs["num_samples"] = steps
            for key, array in values.items():
                group.create_dataset(key, data=array)
            content[name] = values | {"pose": pose, "grip": grip, "image": image}
        file.create_dataset("mask/train", data=np.array(["demo_10", "demo_0"], dtype="S8"))
        if change is not None:
            change(data)
    return content


def test_demonstrations_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    content = write(tmp_path / "low_dim.hdf5")
    source = open_robomimic(tmp_path / "low_dim.hdf5")
    assert source.control_hz == 20 and source.count == 3
    episodes = list(source.read())
    assert [item.length for item in episodes] == [4, 1, 3]
    for episode, values in zip(episodes, content.values(), strict=True):
        expected = np.concatenate([values["grip"], values["pose"]], axis=1)
        np.testing.assert_array_equal(episode.observations, expected.astype(np.float32))
        np.testing.assert_array_equal(episode.actions, values["actions"].astype(np.float32))
        np.testing.assert_array_equal(episode.images["agentview_image"], values["image"])
        assert episode.rewards.tolist() == values["rewards"].tolist()
        assert (episode.terminated, episode.success, episode.task) == (True, True, "Lift")
    notes = " ".join(source.notes)
    assert "observations = gripper float64 [2], robot0_eef_pos float64 [3]" in notes
    assert "success = rewards" in notes and "not read: " in notes and "agentview_depth" in notes


def test_the_order_of_several_observations_is_a_guess_unless_it_is_named(tmp_path: Path) -> None:
    write(tmp_path / "d.hdf5")
    source = open_robomimic(tmp_path / "d.hdf5")
    assert len(source.guessed_order) > 1
    dims = next(source.read()).observations.shape[1]
    assert len(source.observation_names) == dims
    named = open_robomimic(tmp_path / "d.hdf5", NameMapping(observations=source.guessed_order[::-1]))
    assert named.guessed_order == () and len(named.observation_names) == dims
    assert named.observation_names != source.observation_names


def test_a_mask_and_names_choose(tmp_path: Path) -> None:
    content = write(tmp_path / "d.hdf5")
    mapping = NameMapping(subset="train", observations=("robot0_eef_pos",), images=())
    episodes = list(open_robomimic(tmp_path / "d.hdf5", mapping).read())
    assert [item.length for item in episodes] == [4, 3]
    np.testing.assert_array_equal(episodes[1].observations, content["demo_10"]["pose"].astype(np.float32))
    assert not episodes[0].images


def test_without_next_obs_the_last_observation_is_repeated(tmp_path: Path) -> None:
    write(tmp_path / "d.hdf5", next_obs=False)
    source = open_robomimic(tmp_path / "d.hdf5")
    for episode in source.read():
        np.testing.assert_array_equal(episode.observations[-1], episode.observations[-2])
        np.testing.assert_array_equal(
            episode.images["agentview_image"][-1], episode.images["agentview_image"][-2]
        )
    assert any("no terminal observations" in note for note in source.notes)


def test_dense_rewards_say_nothing_about_success(tmp_path: Path) -> None:
    write(tmp_path / "d.hdf5", rewards=(0.3, 2.0))
    assert [item.success for item in open_robomimic(tmp_path / "d.hdf5").read()] == [None] * 3


def replace(path: str, value: Any) -> Callable[[h5py.Group], None]:
    def change(data: h5py.Group) -> None:
        del data[path]
        if value is not None:
            data.create_dataset(path, data=value)

    return change


@pytest.mark.parametrize(
    ("change", "mapping", "message"),
    [
        (replace("demo_0/actions", None), {}, "nothing to take as actions.*found .*gripper float64"),
        (replace("demo_10/actions", None), {}, "demo_10"),
        (replace("demo_2/actions", np.zeros((1, 5))), {}, r"demo_2.*\[1, 5\]; the first .*\[2\]"),
        (replace("demo_2/obs/gripper", np.full((1, 2), np.nan)), {}, "demo_2: observations at step 0"),
        (
            replace("demo_2/obs/gripper", np.array([["a", "b"]], dtype="S1")),
            {},
            "demo_2.*first demonstration",
        ),
        (replace("demo_10/rewards", np.zeros(7)), {"success": "dones"}, "demo_10: rewards have 7 rows"),
        (None, {"observations": ("gripprr",)}, r"no 'gripprr' \(did you mean 'gripper'\?\); found"),
        (None, {"images": ("gripper",)}, "'gripper float64 .2.' is no image"),
        (None, {"observations": ("agentview_image",)}, "is no vector"),
        (None, {"reward": "actions"}, "not one number per step"),
        (None, {"subset": "valid"}, "no mask 'valid'; found train"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path,
    change: Callable[[h5py.Group], None] | None,
    mapping: dict[str, Any],
    message: str,
) -> None:
    write(tmp_path / "d.hdf5", change=change)
    with pytest.raises(DataError, match=message):
        list(open_robomimic(tmp_path / "d.hdf5", NameMapping(**mapping)).read())


def test_other_hdf5_files_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_group("stuff")
    with pytest.raises(DataError, match="no group 'data'; found stuff"):
        open_robomimic(tmp_path / "x.hdf5")
    with h5py.File(tmp_path / "y.hdf5", "w") as file:
        file.create_group("data")
    with pytest.raises(DataError, match="no demonstrations"):
        open_robomimic(tmp_path / "y.hdf5")
