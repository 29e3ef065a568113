from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serfn.core.errors import ConfigError, DataError
from serfn.core.spec import ActionSpec
from serfn.data.episode import Episode
from serfn.data.formats.lerobot import open_lerobot
from serfn.data.formats.lerobot_write import LeRobotOptions, write_lerobot
from serfn.data.mapping import NameMapping

MakeEpisode = Callable[..., Episode]
AssertSame = Callable[..., None]
SPEC = ActionSpec(low=(-2.0, -2.0), high=(2.0, 2.0), names=("a", "b"))
NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=("C", "Z")), min_size=1, max_size=8)
ONE_BY_ONE = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def fresh(folder: Path) -> Path:
    path = folder / "set"
    shutil.rmtree(path, ignore_errors=True)
    return path


@ONE_BY_ONE
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    obs=st.integers(1, 3),
    action=st.integers(1, 3),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3])),
    camera=NAMES,
    task=st.text(st.characters(codec="utf-8"), max_size=8),
    full=st.booleans(),
)
def test_what_is_written_comes_back_exactly(
    tmp_path: Path,
    make_episode: MakeEpisode,
    assert_same: AssertSame,
    lengths: list[int],
    obs: int,
    action: int,
    size: tuple[int, int, int],
    camera: str,
    task: str,
    full: bool,
) -> None:
    sizes = {"obs": obs, "action": action, "cameras": {camera: size}, "full": full}
    before = [make_episode(length, seed, **sizes, task=task) for seed, length in enumerate(lengths)]
    path = fresh(tmp_path)
    options = LeRobotOptions(fps=50, data_mb=0.001, files_per_chunk=2)
    assert write_lerobot(path, iter(before), options) == len(before)
    source = open_lerobot(path)
    assert source.count == len(before) and source.control_hz == 50
    for old, new in zip(before, source.read(), strict=True):
        assert_same(old, new)


@ONE_BY_ONE
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    height=st.integers(2, 20),
    width=st.integers(2, 20),
    fps=st.sampled_from([5, 12.5, 20, 29.97, 60]),
)
def test_videos_keep_every_frame_in_its_place(
    tmp_path: Path,
    make_episode: MakeEpisode,
    assert_same: AssertSame,
    lengths: list[int],
    height: int,
    width: int,
    fps: float,
) -> None:
    before = []
    for seed, length in enumerate(lengths):
        levels = (np.arange(length + 1) * 37 + 90 * seed) % 256
        images = np.broadcast_to(levels[:, None, None, None], (length + 1, height, width, 3))
        before.append(make_episode(length, seed, images={"top": images.astype(np.uint8)}))
    path = fresh(tmp_path)
    write_lerobot(path, iter(before), LeRobotOptions(fps=fps, images="video", video_mb=0.002))
    source = open_lerobot(path)
    assert source.control_hz == pytest.approx(fps)
    for old, new in zip(before, source.read(), strict=True):
        assert_same(old, new, but=("images",))
        assert np.abs(old.images["top"].astype(int) - new.images["top"]).max() <= 6
        np.testing.assert_array_equal(old.images["top"][-1], new.images["top"][-1])


def test_the_bounds_of_the_actions_travel_along(tmp_path: Path, make_episode: MakeEpisode) -> None:
    write_lerobot(tmp_path / "a", [make_episode(3)], LeRobotOptions(fps=20), SPEC)
    assert open_lerobot(tmp_path / "a").action_spec == SPEC
    write_lerobot(tmp_path / "b", [make_episode(3)], LeRobotOptions(fps=20))
    assert open_lerobot(tmp_path / "b").action_spec is None


def foreign(root: Path, features: dict[str, tuple[str, list[int]]], drop: tuple[str, ...] = ()) -> None:
    """Write two episodes, of 3 and 2 frames, as another tool would, all in one row group."""
    frames, lengths = 5, [3, 2]
    columns: dict[str, Any] = {}
    described: dict[str, Any] = {}
    for name, (dtype, shape) in features.items():
        described[name] = {"dtype": dtype, "shape": shape, "names": None}
        values = np.arange(frames * int(np.prod(shape))).reshape(frames, *shape).astype(dtype)
        columns[name] = values[:, 0].tolist() if shape == [1] else values.tolist()
    automatic = {
        "timestamp": [0, 0.1, 0.2, 0, 0.1],
        "frame_index": [0, 1, 2, 0, 1],
        "episode_index": [0, 0, 0, 1, 1],
        "index": list(range(frames)),
        "task_index": [0, 0, 0, 1, 1],
    }
    for name, values in automatic.items():
        described[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1]}
        columns[name] = values
    info = {"codebase_version": "v3.0", "fps": 10, "features": described, "total_episodes": 2}
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
    table = pa.table({name: values for name, values in columns.items() if name not in drop})
    pq.write_table(table, root / "data/chunk-000/file-000.parquet")
    # The name that pandas gives to the column of an index without a name.
    tasks = pa.table({"task_index": [1, 0], "__index_level_0__": ["second", "first"]})
    pq.write_table(tasks, root / "meta/tasks.parquet")
    rows = {
        "episode_index": [0, 1],
        "length": lengths,
        "dataset_from_index": [0, 3],
        "dataset_to_index": [3, 5],
        "data/chunk_index": [0, 0],
        "data/file_index": [0, 0],
    }
    pq.write_table(pa.table(rows), root / "meta/episodes/chunk-000/file-000.parquet")


FEATURES: dict[str, tuple[str, list[int]]] = {
    "action": ("float64", [2]),
    "observation.velocity": ("float32", [1]),
    "observation.environment_state": ("float32", [2]),
    "observation.state": ("float32", [3]),
    "observation.tactile": ("float32", [2, 2]),
    "next.success": ("bool", [1]),
}


@pytest.mark.parametrize("name", ["intervention", "is_intervention", "complementary_info.is_intervention"])
def test_data_of_others_are_read_with_guesses_that_are_told(tmp_path: Path, name: str) -> None:
    foreign(tmp_path / "x", FEATURES | {name: ("bool", [1])})
    source = open_lerobot(tmp_path / "x")
    first, second = source.read()
    assert first.observations.shape == (4, 6)
    assert first.observations[1].tolist() == [3, 4, 5, 2, 3, 1], "state, environment, then the rest"
    np.testing.assert_array_equal(first.observations[-1], first.observations[-2])
    assert (first.success, first.terminated, first.truncated) == (True, True, False)
    assert first.rewards.tolist() == [0, 0, 1]
    assert (first.task, second.task) == ("first", "second")
    assert first.interventions is not None and first.interventions.tolist() == [False, True, True]
    notes = " ".join(source.notes)
    for said in ("observation.state float32 [3]", "not read: observation.tactile", "no rewards", name):
        assert said in notes
    assert "no terminal observations" in notes


def test_a_mapping_names_what_guesses_miss(tmp_path: Path) -> None:
    foreign(tmp_path / "x", FEATURES)
    mapping = NameMapping(
        observations=("observation.tactile", "observation.velocity"),
        actions=("observation.environment_state", "action"),
        reward="observation.velocity",
    )
    first = next(open_lerobot(tmp_path / "x", mapping).read())
    assert first.observations[1].tolist() == [4, 5, 6, 7, 1]
    assert first.actions[1].tolist() == [2, 3, 2, 3]
    assert first.rewards.tolist() == [0, 1, 2]


def test_done_with_truncated_tells_the_end(tmp_path: Path) -> None:
    flags = {"next.done": ("bool", [1]), "next.truncated": ("bool", [1]), "next.reward": ("float32", [1])}
    foreign(tmp_path / "x", FEATURES | flags)
    first = next(open_lerobot(tmp_path / "x").read())
    assert (first.terminated, first.truncated) == (False, True)
    mapped = next(open_lerobot(tmp_path / "x", NameMapping(terminated="next.success")).read())
    assert (mapped.terminated, mapped.truncated) == (True, True)


def test_cameras_of_others_have_their_channels_first_or_lie_in_arrays(
    tmp_path: Path, make_episode: MakeEpisode
) -> None:
    before = make_episode(3, cameras={"top": (4, 6, 3)})
    path = tmp_path / "x"
    write_lerobot(path, [before], LeRobotOptions(fps=20))
    features = json.loads((path / "meta/info.json").read_text())["features"]
    features["observation.images.top"] |= {"shape": [3, 4, 6], "names": ["channels", "height", "width"]}
    change_info(path, features=features)
    after = next(open_lerobot(path).read())
    np.testing.assert_array_equal(after.images["top"], before.images["top"])
    foreign(tmp_path / "y", FEATURES | {"observation.images.raw": ("uint8", [2, 2, 3])})
    images = next(open_lerobot(tmp_path / "y").read()).images["raw"]
    assert images.shape == (4, 2, 2, 3) and images[1].ravel().tolist() == list(range(12, 24))


def test_without_reward_and_success_somebody_must_say(tmp_path: Path) -> None:
    features = {name: item for name, item in FEATURES.items() if name != "next.success"}
    foreign(tmp_path / "x", features)
    with pytest.raises(DataError, match="assume_success if every episode is a success; found action"):
        open_lerobot(tmp_path / "x")
    source = open_lerobot(tmp_path / "x", NameMapping(assume_success=True))
    assert [item.success for item in source.read()] == [True, True]
    assert "success: assumed for every episode" in source.notes


def change_info(root: Path, **changes: Any) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "mapping", "message"),
    [
        ({"codebase_version": "v2.1"}, {}, "version v2.1; only v3.0 is read.*convert_dataset_v21_to_v30"),
        ({"total_episodes": 3}, {}, "lists 2 episodes in meta/episodes, its info.json 3"),
        ({"fps": 0}, {}, "fps 0; it must be positive"),
        ({"features": {}}, {}, "nothing to take as observations"),
        ({"data_path": "elsewhere/{chunk_index}-{file_index}"}, {}, "cannot be read"),
        ({}, {"observations": ("observation.stat",)}, "did you mean 'observation.state'.*found action"),
        ({}, {"images": ("observation.state",)}, "is no image"),
    ],
)
def test_index_and_names_that_do_not_fit(
    tmp_path: Path, changes: dict[str, Any], mapping: dict[str, Any], message: str
) -> None:
    foreign(tmp_path / "x", FEATURES)
    change_info(tmp_path / "x", **changes)
    with pytest.raises(DataError, match=message):
        list(open_lerobot(tmp_path / "x", NameMapping(**mapping)).read())


def test_features_that_the_columns_contradict(tmp_path: Path) -> None:
    foreign(tmp_path / "x", FEATURES)
    features = json.loads((tmp_path / "x/meta/info.json").read_text())["features"]
    features["action"]["shape"] = [3]
    change_info(tmp_path / "x", features=features)
    with pytest.raises(DataError, match=r"episode 0: 'action' holds 6 values.*says float64 \[3\]"):
        list(open_lerobot(tmp_path / "x").read())
    foreign(tmp_path / "y", FEATURES, drop=("action",))
    with pytest.raises(DataError, match=r"lacks .'action'.; found"):
        list(open_lerobot(tmp_path / "y").read())


def test_a_missing_file_and_a_folder_changed_by_another_tool(
    tmp_path: Path, make_episode: MakeEpisode
) -> None:
    path = tmp_path / "set"
    options = LeRobotOptions(fps=20, data_mb=1e-6)
    write_lerobot(path, [make_episode(3), make_episode(4)], options)
    second = path / "data/chunk-000/file-001.parquet"
    data = second.read_bytes()
    second.unlink()
    with pytest.raises(DataError, match=r"file-001.parquet', episode 1: it cannot be read"):
        list(open_lerobot(path).read())
    second.write_bytes(data)
    other = tmp_path / "other"
    write_lerobot(other, [make_episode(3), make_episode(5)], options)
    shutil.copy(other / "serfn/episodes.parquet", path / "serfn/episodes.parquet")
    with pytest.raises(DataError, match="changed by another tool, delete the folder 'serfn'"):
        list(open_lerobot(path).read())
    shutil.rmtree(path / "serfn")
    assert len(list(open_lerobot(path).read())) == 2


def test_nothing_half_written(tmp_path: Path, make_episode: MakeEpisode) -> None:
    options = LeRobotOptions(fps=20)
    with pytest.raises(DataError, match="at least one episode"):
        write_lerobot(tmp_path / "a", [], options)
    with pytest.raises(DataError, match=r"episode 1 has .*\[4\].*the first one has .*\[3\]"):
        write_lerobot(tmp_path / "a", [make_episode(2), make_episode(2, obs=4)], options)
    for camera, message in (("a/b", "without '/'"), ("a\nb", "rename")):
        with pytest.raises(DataError, match=message):
            write_lerobot(tmp_path / "a", [make_episode(2, cameras={camera: (2, 2, 3)})], options)
    with pytest.raises(DataError, match="4 channels; LeRobot knows 1 and 3"):
        write_lerobot(tmp_path / "a", [make_episode(2, cameras={"a": (2, 2, 4)})], options)
    with pytest.raises(DataError, match="store PNG images instead"):
        gray = make_episode(2, cameras={"a": (2, 2, 1)})
        write_lerobot(tmp_path / "a", [gray], LeRobotOptions(fps=20, images="video"))
    with pytest.raises(DataError, match="cannot be stored"):
        write_lerobot(tmp_path / "a", [make_episode(2, **{"policy_version": 2**70})], options)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match="already exists"):
        write_lerobot(tmp_path / "a", [make_episode(2)], options)


@pytest.mark.parametrize("changes", [{"fps": 0}, {"fps": float("nan")}, {"fps": 1e-9}, {"data_mb": -1}])
def test_impossible_options(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        LeRobotOptions(**{"fps": 20.0, **changes})
