"""One bad episode does not stop the others: it is named, listed, and left out on request, in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serfn.cli.main import main
from serfn.core.errors import DataError
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.check import check_data
from serfn.data.convert import ConvertOptions, convert
from serfn.data.datasets import load_demonstrations, open_source
from serfn.data.episode import Episode
from serfn.data.extremes import extremes
from serfn.data.formats.lerobot_write import LeRobotOptions, write_lerobot
from serfn.data.formats.npz import save_npz
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import StoreWriter

TASK = TaskSpec("toy", ObservationSpec(3), ActionSpec((-1.0, -1.0), (1.0, 1.0)), 20.0, 50)
MakeEpisode = Callable[..., Episode]


@pytest.fixture
def good(make_episode: MakeEpisode) -> list[Episode]:
    return [make_episode(length, seed, full=False) for seed, length in enumerate((6, 9, 7))]


def npz(path: Path, good: list[Episode]) -> Path:
    """The second episode has an observation that is not a number."""
    save_npz(path / "x.npz", good, TASK.action)
    arrays = dict(np.load(path / "x.npz"))
    arrays["observations"][8] = np.nan
    np.savez(path / "x.npz", **arrays)
    return path / "x.npz"


def lerobot(path: Path, good: list[Episode]) -> Path:
    """The second episode has an action that is not a number."""
    write_lerobot(path / "x", good, LeRobotOptions(fps=20), TASK.action)
    file = path / "x/data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    actions = [row.as_py() for row in table.column("action")]
    actions[8] = [float("nan"), 0.0]
    place = table.schema.get_field_index("action")
    column = pa.array(actions, table.schema.field("action").type)
    pq.write_table(table.set_column(place, table.schema.field("action"), column), file)
    return path / "x"


def robomimic(path: Path, good: list[Episode]) -> Path:
    """The second demonstration is empty."""
    with h5py.File(path / "x.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for index, episode in enumerate(good):
            steps = 0 if index == 1 else episode.length
            group = data.create_group(f"demo_{index}")
            group["actions"] = episode.actions[:steps]
            group["rewards"] = episode.rewards[:steps]
            group["dones"] = (np.arange(steps) == steps - 1).astype(np.int64)
            group["obs/state"] = episode.observations[:steps]
            group["next_obs/state"] = episode.observations[1 : steps + 1]
    return path / "x.hdf5"


def minari(path: Path, good: list[Episode]) -> Path:
    """The second episode lacks its last observation."""
    folder = path / "x/data"
    folder.mkdir(parents=True)
    box = {"type": "Box", "dtype": "float32", "low": [-1.0, -1.0], "high": [1.0, 1.0], "shape": [2]}
    space = {"type": "Box", "dtype": "float32", "low": [-9.0] * 3, "high": [9.0] * 3, "shape": [3]}
    meta = {
        "total_episodes": 3,
        "data_format": "hdf5",
        "dataset_id": "hand/turn-v0",
        "observation_space": json.dumps(space),
        "action_space": json.dumps(box),
    }
    (folder / "metadata.json").write_text(json.dumps(meta), encoding="utf-8")
    with h5py.File(folder / "main_data.hdf5", "w", track_order=True) as file:
        for index, episode in enumerate(good):
            group = file.create_group(f"episode_{index}")
            group["observations"] = episode.observations[: episode.length + (index != 1)]
            group["actions"], group["rewards"] = episode.actions, episode.rewards
            group["terminations"] = np.arange(episode.length) == episode.length - 1
            group["truncations"] = np.zeros(episode.length, bool)
    return path / "x"


def store(path: Path, good: list[Episode]) -> Path:
    """A file of the second episode was overwritten."""
    EpisodeStore.create(path / "x", TASK)
    with StoreWriter(path / "x") as writer:
        numbers = [writer.add(episode) for episode in good]
    (file,) = (path / "x").glob(f"episodes/{numbers[1]:08d}-*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    return path / "x"


EVERY_FORMAT = pytest.mark.parametrize("write", [npz, lerobot, robomimic, minari, store])


@EVERY_FORMAT
def test_the_bad_episode_is_named_and_the_others_can_be_used(
    write: Callable[..., Path], tmp_path: Path, good: list[Episode]
) -> None:
    path = write(tmp_path, good)
    with pytest.raises(DataError, match=r"(episode|demo_?) ?0*1"):
        load_demonstrations(path)
    found = load_demonstrations(path, skip_bad=True)
    assert [episode.length for episode in found.episodes] == [6, 7]
    np.testing.assert_array_equal(found.episodes[1].actions, good[2].actions)
    assert found.left_out is not None and "1 of 3 episodes are bad" in found.left_out


@EVERY_FORMAT
def test_a_check_lists_it_and_a_conversion_leaves_it_out(
    write: Callable[..., Path], tmp_path: Path, good: list[Episode], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, good)
    damages = [finding.text for finding in check_data(path) if finding.damage]
    assert len(damages) == 1
    assert main(["data", "check", str(path)]) == 2
    printed = capsys.readouterr()
    assert "damage: " in printed.out and "has 1 damage" in printed.err
    with pytest.raises(DataError):
        convert(path, tmp_path / "all.npz")
    assert not (tmp_path / "all.npz").exists()
    done = convert(path, tmp_path / "rest.npz", ConvertOptions(skip_bad=True))
    assert (done.episodes, len(done.bad)) == (2, 1)
    assert open_source(tmp_path / "rest.npz").count == 2


def test_training_leaves_bad_episodes_out_on_request_and_says_so(tmp_path: Path, good: list[Episode]) -> None:
    path = npz(tmp_path, good)
    with pytest.raises(DataError, match="step 2"):
        load_demonstrations(path)
    with pytest.raises(DataError, match="no episodes that can be used"):
        arrays = dict(np.load(path))
        arrays["observations"][:] = np.nan
        np.savez(tmp_path / "none.npz", **arrays)
        load_demonstrations(tmp_path / "none.npz", skip_bad=True)


def test_lone_values_and_still_dimensions_are_said(make_episode: MakeEpisode) -> None:
    episodes = [make_episode(40, seed, full=False) for seed in range(4)]
    assert extremes(episodes) == ()
    observations = episodes[2].observations.copy()
    observations[5, 1] = 1e4
    odd = make_episode(40, 2, full=False, observations=observations)
    (note,) = extremes([*episodes[:2], odd, episodes[3]])
    assert "observation dimension 1 is 10000 in episode 2, step 5" in note
    still = [
        make_episode(40, seed, full=False, observations=episodes[seed].observations * [1, 1, 0])
        for seed in range(4)
    ]
    assert extremes(still) == ("observation dimensions [2] never move",)
