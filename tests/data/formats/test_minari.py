from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from PIL import Image

from serfn.core.errors import DataError
from serfn.data.formats.minari import open_minari
from serfn.data.mapping import NameMapping

LENGTHS = (4, 1)
BOX = {"type": "Box", "dtype": "float64", "shape": [2], "low": [-1, -1], "high": [1, 1]}
DICT = {
    "type": "Dict",
    "subspaces": {
        "observation": {"type": "Box", "dtype": "float64", "shape": [3], "low": [0], "high": [1]},
        "goal": {"type": "Tuple", "subspaces": [BOX, BOX]},
        "camera": {"type": "Box", "dtype": "uint8", "shape": [32, 40, 3], "low": 0, "high": 255},
    },
}

Write = Callable[..., list[dict[str, np.ndarray]]]


def episodes() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "observation": rng.normal(size=(steps + 1, 3)),
            "goal0": rng.normal(size=(steps + 1, 2)),
            "goal1": rng.normal(size=(steps + 1, 2)),
            "camera": np.full((steps + 1, 32, 40, 3), 40 * steps, np.uint8),
            "actions": rng.uniform(-1, 1, size=(steps, 2)),
            "rewards": rng.normal(size=steps),
            "terminations": np.zeros(steps, bool),
            "truncations": np.arange(steps) == steps - 1,
            "success": np.arange(steps + 1) == (steps if steps > 1 else -1),
        }
        for steps in LENGTHS
    ]


def jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG")
    return buffer.getvalue()


def metadata(folder: Path, data_format: str, **changes: Any) -> None:
    folder.mkdir(parents=True)
    content = {
        "total_episodes": len(LENGTHS),
        "data_format": data_format,
        "dataset_id": "hand/turn-v0",
        "observation_space": json.dumps(DICT),
        "action_space": json.dumps(BOX),
    } | changes
    (folder / "metadata.json").write_text(json.dumps(content), encoding="utf-8")


def write_hdf5(root: Path, change: Callable[[h5py.File], None] | None = None, **meta: Any) -> list[Any]:
    folder = root / "data"
    metadata(folder, "hdf5", **meta)
    content = episodes()
    with h5py.File(folder / "main_data.hdf5", "w", track_order=True) as file:
        for index, item in enumerate(content):
            group = file.create_group(f"episode_{index}")
            group.attrs["seed"] = 7 + index
            files = [np.frombuffer(jpeg(image), np.uint8) for image in item["camera"]]
            group.create_dataset("observations/camera", data=files)
            group.create_dataset("observations/goal/_index_0", data=item["goal0"])
            group.create_dataset("observations/goal/_index_1", data=item["goal1"])
            group.create_dataset("observations/observation", data=item["observation"])
            for name in ("actions", "rewards", "terminations", "truncations"):
                group.create_dataset(name, data=item[name])
            group.create_dataset("infos/success", data=item["success"])
        if change is not None:
            change(file)
    return content


def write_arrow(root: Path, data_format: str = "arrow", **meta: Any) -> list[Any]:
    folder = root / "data"
    metadata(folder, data_format, **meta)
    content = episodes()
    for index, item in enumerate(content):
        rows = len(item["rewards"]) + 1

        def vectors(values: np.ndarray, rows: int = rows) -> pa.Array:
            padded = np.zeros((rows, values.shape[1]))
            padded[: len(values)] = values
            return pa.FixedSizeListArray.from_arrays(padded.ravel(), values.shape[1])

        goal = pa.StructArray.from_arrays([vectors(item["goal0"]), vectors(item["goal1"])], ["0", "1"])
        camera = pa.array([jpeg(image) for image in item["camera"]], pa.binary())
        observations = pa.StructArray.from_arrays(
            [vectors(item["observation"]), goal, camera], ["observation", "goal", "camera"]
        )
        batch = pa.RecordBatch.from_pydict(
            {
                "observations": observations,
                "actions": vectors(item["actions"]),
                "rewards": np.append(item["rewards"], 0),
                "terminations": np.append(item["terminations"], False),
                "truncations": np.append(item["truncations"], False),
                "infos": pa.StructArray.from_arrays([pa.array(item["success"])], ["success"]),
            }
        )
        pads.write_dataset(batch, folder / str(index), format=data_format)
        text = json.dumps({"id": index, "seed": 7 + index})
        (folder / str(index) / "metadata.json").write_text(text, encoding="utf-8")
    return content


def write_parquet(root: Path, **meta: Any) -> list[Any]:
    return write_arrow(root, "parquet", **meta)


@pytest.mark.parametrize("write", [write_hdf5, write_arrow, write_parquet])
@pytest.mark.parametrize("inside", [False, True])
def test_trees_of_observations_are_flattened_in_the_order_of_their_space(
    tmp_path: Path, write: Write, inside: bool
) -> None:
    content = write(tmp_path / "set")
    source = open_minari(tmp_path / "set" / "data" if inside else tmp_path / "set")
    assert source.count == 2 and source.action_spec is not None
    assert (source.action_spec.low, source.action_spec.high) == ((-1, -1), (1, 1))
    for index, (episode, item) in enumerate(zip(source.read(), content, strict=True)):
        expected = np.concatenate([item["observation"], item["goal0"], item["goal1"]], axis=1)
        np.testing.assert_array_equal(episode.observations, expected.astype(np.float32))
        np.testing.assert_array_equal(episode.actions, item["actions"].astype(np.float32))
        np.testing.assert_array_equal(episode.rewards, item["rewards"].astype(np.float32))
        assert (episode.terminated, episode.truncated) == (False, True)
        assert (episode.success, episode.seed, episode.task) == (index == 0, 7 + index, "hand/turn-v0")
        difference = np.abs(episode.images["camera"].astype(int) - item["camera"])
        assert episode.images["camera"].shape == item["camera"].shape and difference.max() <= 3


@pytest.mark.parametrize("write", [write_hdf5, write_arrow])
def test_names_choose(tmp_path: Path, write: Write) -> None:
    content = write(tmp_path / "set")
    mapping = NameMapping(observations=("observations/goal/1", "observations/observation"), images=())
    episode = next(open_minari(tmp_path / "set", mapping).read())
    expected = np.concatenate([content[0]["goal1"], content[0]["observation"]], axis=1)
    np.testing.assert_array_equal(episode.observations, expected.astype(np.float32))
    assert not episode.images


def test_without_spaces_parts_come_in_alphabetical_order(tmp_path: Path) -> None:
    content = write_hdf5(tmp_path / "set", observation_space=None, action_space=None)
    source = open_minari(tmp_path / "set")
    assert source.action_spec is None
    episode = next(source.read())
    expected = np.concatenate([content[0]["goal0"], content[0]["goal1"], content[0]["observation"]], axis=1)
    np.testing.assert_array_equal(episode.observations, expected.astype(np.float32))
    assert episode.images["camera"].shape == (5, 32, 40, 3)


def test_a_box_is_one_vector_and_raw_images_are_images(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    metadata(folder, "hdf5", observation_space=json.dumps(BOX | {"shape": [3]}))
    with h5py.File(folder / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        group.create_dataset("observations", data=np.arange(9.0).reshape(3, 3))
        group.create_dataset("actions", data=np.zeros((2, 2)))
        group.create_dataset("infos/pixels", data=np.full((3, 4, 5, 3), 9, np.uint8))
        for name in ("rewards", "terminations", "truncations"):
            group.create_dataset(name, data=np.array([0, 1]))
    episode = next(open_minari(tmp_path).read())
    assert episode.observations.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert episode.images["infos.pixels"].shape == (3, 4, 5, 3)
    assert episode.terminated


def drop(path: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[path]

    return change


def put(path: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[path]
        file.create_dataset(path, data=value)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("episode_0/actions"), "nothing to take as actions.*found observations/observation"),
        (drop("episode_1/actions"), "episode 1: there is no 'actions'; found"),
        (drop("episode_0"), "no group 'episode_0'"),
        (put("episode_1/actions", np.zeros((1, 3))), r"episode 1: 'actions' has \[3\] per step"),
        (put("episode_1/actions", np.zeros((2, 2))), "episode 1: observations have 2 rows for 2 actions"),
        (put("episode_1/rewards", np.array(["x"], dtype="S1")), "episode 1: 'rewards' holds"),
        (put("episode_0/actions", np.zeros(4, np.int64)), "'actions int64 .*' is discrete"),
        (put("episode_1/observations/observation", np.full((2, 3), np.inf)), "episode 1: .*not finite"),
        (put("episode_1/observations/camera", np.zeros((2, 9), np.uint8)), "episode 1.*only PNG and JPEG"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, change: Callable[[h5py.File], None], message: str
) -> None:
    write_hdf5(tmp_path / "set", change)
    with pytest.raises(DataError, match=message):
        list(open_minari(tmp_path / "set").read())


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    metadata(tmp_path / "data", "zarr")
    with pytest.raises(DataError, match="data_format is 'zarr'"):
        open_minari(tmp_path)
    metadata(tmp_path / "empty" / "data", "arrow")
    with pytest.raises(DataError, match="no episodes"):
        open_minari(tmp_path / "empty")
