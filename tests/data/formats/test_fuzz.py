"""Damaged files: each importer raises `DataError`, or returns episodes that are whole, and nothing else.

Every format is written once and then damaged at random, always the same way: cut, with flipped bits, with
pieces overwritten, moved or repeated, with values of JSON texts replaced, and with files taken away.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from serfn.core.errors import DataError
from serfn.data.datasets import open_source
from serfn.data.episode import Episode
from serfn.data.formats.lerobot_write import LeRobotOptions, write_lerobot
from serfn.data.formats.npz import save_npz
from tests.fuzz.accidents import accidents, damage

MakeEpisode = Callable[..., Episode]
CAMERAS = {"top": (6, 8, 3)}


def write_lerobot_png(path: Path, make_episode: MakeEpisode) -> None:
    episodes = [make_episode(3, 0, cameras=CAMERAS), make_episode(2, 1, cameras=CAMERAS)]
    write_lerobot(path, episodes, LeRobotOptions(fps=20))


def write_lerobot_video(path: Path, make_episode: MakeEpisode) -> None:
    episodes = [make_episode(3, 0, cameras=CAMERAS), make_episode(2, 1, cameras=CAMERAS)]
    write_lerobot(path, episodes, LeRobotOptions(fps=20, images="video"))


def write_npz(path: Path, make_episode: MakeEpisode) -> None:
    save_npz(path, [make_episode(3, 0, cameras=CAMERAS), make_episode(2, 1, cameras=CAMERAS)])


def write_robomimic(path: Path, make_episode: MakeEpisode) -> None:
    with h5py.File(path, "w") as file:
        for index in range(2):
            episode = make_episode(3, index, cameras=CAMERAS)
            group = file.create_group(f"data/demo_{index}")
            group.create_dataset("obs/state", data=episode.observations[:-1], compression="gzip")
            group.create_dataset("next_obs/state", data=episode.observations[1:])
            group.create_dataset("obs/image", data=episode.images["top"][:-1])
            group.create_dataset("actions", data=episode.actions)
            group.create_dataset("rewards", data=episode.rewards)
            group.create_dataset("dones", data=np.array([0, 0, 1]))
        file["data"].attrs["env_args"] = json.dumps({"env_name": "x", "env_kwargs": {"control_freq": 20}})


BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1, -1], "high": [1, 1]}


def minari_metadata(path: Path, data_format: str) -> None:
    path.mkdir()
    content = {"data_format": data_format, "action_space": json.dumps(BOX), "dataset_id": "a/b-v0"}
    (path / "metadata.json").write_text(json.dumps(content), encoding="utf-8")


def write_minari_hdf5(path: Path, make_episode: MakeEpisode) -> None:
    minari_metadata(path, "hdf5")
    with h5py.File(path / "main_data.hdf5", "w") as file:
        for index in range(2):
            episode = make_episode(3, index)
            group = file.create_group(f"episode_{index}")
            group.create_dataset("observations/state", data=episode.observations)
            group.create_dataset("actions", data=episode.actions)
            group.create_dataset("rewards", data=episode.rewards)
            group.create_dataset("terminations", data=np.array([False, False, True]))
            group.create_dataset("truncations", data=np.zeros(3, bool))
            group.attrs["seed"] = 3


def write_minari_arrow(path: Path, make_episode: MakeEpisode) -> None:
    minari_metadata(path, "arrow")
    for index in range(2):
        episode = make_episode(3, index)
        flat = pa.array(episode.observations.ravel())
        padded = pa.array(np.vstack([episode.actions, np.zeros((1, 2), np.float32)]).ravel())
        table = pa.table(
            {
                "observations": pa.FixedSizeListArray.from_arrays(flat, 3),
                "actions": pa.FixedSizeListArray.from_arrays(padded, 2),
                "rewards": np.append(episode.rewards, 0),
                "terminations": [False, False, True, False],
                "truncations": [False] * 4,
            }
        )
        pads.write_dataset(table, path / str(index), format="arrow")
        (path / str(index) / "metadata.json").write_text('{"seed": 3}', encoding="utf-8")


WRITERS = {
    "lerobot.png": write_lerobot_png,
    "lerobot.video": write_lerobot_video,
    "demos.npz": write_npz,
    "demos.hdf5": write_robomimic,
    "minari.hdf5": write_minari_hdf5,
    "minari.arrow": write_minari_arrow,
}


def check(path: Path) -> None:
    """Read a data set; whatever comes out is whole, everything else is a `DataError`."""
    try:
        for episode in open_source(path).read():
            assert np.isfinite(episode.observations).all()
            assert len(episode.observations) == episode.length + 1
    except DataError as error:
        assert str(error)


@pytest.mark.parametrize("name", WRITERS)
def test_accidents_are_errors_that_say_so(tmp_path: Path, make_episode: MakeEpisode, name: str) -> None:
    original, copy = tmp_path / "original" / name, tmp_path / "copy" / name
    original.parent.mkdir()
    WRITERS[name](original, make_episode)
    assert len(list(open_source(original).read())) == 2
    for seed in range(accidents(60)):
        shutil.rmtree(copy.parent, ignore_errors=True)
        shutil.copytree(original.parent, copy.parent)
        what = damage(copy, np.random.default_rng(seed))
        try:
            check(copy)
        except BaseException as error:
            error.add_note(f"{name}, seed {seed}: {what}")
            raise


@pytest.mark.parametrize("name", ["lerobot.png", "demos.npz"])
def test_a_flipped_bit_in_our_own_files_never_passes_unnoticed(
    tmp_path: Path, make_episode: MakeEpisode, assert_same: Callable[..., None], name: str
) -> None:
    path = tmp_path / name
    WRITERS[name](path, make_episode)
    before = list(open_source(path).read())
    tables = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    rng = np.random.default_rng(1)
    for file in tables:
        data = file.read_bytes()
        for _ in range(15):
            changed = bytearray(data)
            changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
            file.write_bytes(bytes(changed))
            try:
                after = list(open_source(path).read())
            except DataError:
                continue
            # What is left are bits that mean nothing, such as statistics of columns and timestamps of a zip.
            for old, new in zip(before, after, strict=True):
                assert_same(old, new)
        file.write_bytes(data)


def test_wrong_types_in_npz(tmp_path: Path, make_episode: MakeEpisode) -> None:
    save_npz(tmp_path / "a.npz", [make_episode(3, 0, cameras=CAMERAS), make_episode(2, 1, cameras=CAMERAS)])
    with np.load(tmp_path / "a.npz") as archive:
        arrays = dict(archive)
    odd = [
        np.zeros(0),
        np.zeros(()),
        np.full(5, np.nan),
        np.zeros((5, 2, 2)),
        np.array(["a"] * 5),
        np.full(2, -(2**62)),
        np.full((5, 2), 1e300),
        np.array([1 + 1j] * 5),
    ]
    for name in arrays:
        for value in odd:
            np.savez(tmp_path / "b.npz", **(arrays | {name: value}))
            check(tmp_path / "b.npz")
        np.savez(tmp_path / "b.npz", **{key: array for key, array in arrays.items() if key != name})
        check(tmp_path / "b.npz")
