"""What we write, read back the way LeRobot's loader reads it, with pyarrow and PyAV alone.

Each check stands for something LeRobot does: `DatasetInfo.from_dict`, `pd.read_parquet(tasks).iloc[i].name`,
`Dataset.from_parquet(features=...)`, `episodes[i]["dataset_from_index"]`, and a video frame looked up at
`from_timestamp + timestamp` with a tolerance of 0.1 ms. Nothing of the reader under test is used.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from serfn.core.spec import ActionSpec
from serfn.data.episode import Episode
from serfn.data.formats.lerobot_write import LeRobotOptions, write_lerobot

FPS = 20
TOLERANCE_S = 1e-4
QUANTILES = ("q01", "q10", "q50", "q90", "q99")
SPEC = ActionSpec(low=(-2.0, -2.0), high=(2.0, 2.0), names=("thumb", "index"))
CAMERAS = {"top": (16, 12, 3), "wrist": (9, 7, 3)}
AUTOMATIC = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
LOSS = 12
"""Greatest difference of smooth images after compression."""


def smooth(length: int, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Return images that change slowly over space, and by a visible step from frame to frame."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 40, shape[0])[:, None, None] + np.zeros(shape)
    return (ramp + rng.integers(0, 200, size=(length, 1, 1, 3))).astype(np.uint8)


@pytest.fixture(scope="module", params=["png", "video"])
def dataset(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_episode: Callable[..., Episode],
) -> tuple[Path, list[Episode]]:
    episodes = [
        make_episode(
            length,
            seed,
            task="grasp" if seed % 2 else "dreh 🎲",
            images={
                name: smooth(length + 1, shape, 10 * seed + len(name)) for name, shape in CAMERAS.items()
            },
        )
        for seed, length in enumerate((5, 1, 30, 7))
    ]
    root = tmp_path_factory.mktemp("data") / request.param
    options = LeRobotOptions(
        fps=FPS,
        images=request.param,
        robot_type="orca",
        data_mb=0.001,
        video_mb=0.001,
        files_per_chunk=2,
    )
    write_lerobot(root, iter(episodes), options, SPEC)
    return root, episodes


def info_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "meta/info.json").read_text(encoding="utf-8"))


def rows_of(root: Path) -> list[dict[str, Any]]:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    schemas = {tuple(pq.read_schema(file)) for file in files}
    assert len(schemas) == 1, "LeRobot joins these files"
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def frames_of(root: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted((root / "data").glob("*/*.parquet"))])


def test_info_says_what_is_there(dataset: tuple[Path, list[Episode]]) -> None:
    root, episodes = dataset
    info = info_of(root)
    assert info["codebase_version"] == "v3.0" and info["robot_type"] == "orca"
    assert info["fps"] == FPS and isinstance(info["fps"], int)
    assert info["total_episodes"] == 4 and info["splits"] == {"train": "0:4"}
    assert info["total_frames"] == sum(item.length for item in episodes) == len(frames_of(root))
    assert info["total_tasks"] == 2
    for name in ("chunks_size", "data_files_size_in_mb", "video_files_size_in_mb"):
        assert isinstance(info[name], int) and info[name] > 0
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    video_path = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    assert info["video_path"] == (video_path if root.name == "video" else None)
    assert set(info["features"]) >= AUTOMATIC
    for name, feature in info["features"].items():
        assert set(feature) >= {"dtype", "shape", "names"} and "/" not in name
        if feature["dtype"] in ("image", "video"):
            assert feature["names"] == ["height", "width", "channels"] and len(feature["shape"]) == 3
    assert info["features"]["action"]["names"] == ["thumb", "index"]


def test_columns_are_those_of_the_features_in_their_types(dataset: tuple[Path, list[Episode]]) -> None:
    root, _ = dataset
    stored = {name: item for name, item in info_of(root)["features"].items() if item["dtype"] != "video"}
    for file in (root / "data").glob("*/*.parquet"):
        schema = pq.read_schema(file)
        assert set(schema.names) == set(stored), "another column makes the cast to the features fail"
        described = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        for name, feature in stored.items():
            kind = schema.field(name).type
            if feature["dtype"] == "image":
                assert kind == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
                assert described[name] == {"_type": "Image"}
            elif feature["shape"] == [1]:
                assert kind == pa.from_numpy_dtype(feature["dtype"])
            else:
                assert kind == pa.list_(pa.from_numpy_dtype(feature["dtype"]), feature["shape"][0])
                assert described[name]["length"] == feature["shape"][0]


def test_episode_rows_bound_their_frames(dataset: tuple[Path, list[Episode]]) -> None:
    root, episodes = dataset
    info, rows, frames = info_of(root), rows_of(root), frames_of(root)
    assert [row["episode_index"] for row in rows] == [0, 1, 2, 3]
    assert frames["index"].to_pylist() == list(range(len(frames)))
    start = 0
    for row, episode in zip(rows, episodes, strict=True):
        stop = start + episode.length
        assert (row["dataset_from_index"], row["dataset_to_index"], row["length"]) == (
            start,
            stop,
            episode.length,
        )
        assert row["tasks"] == [episode.task]
        assert set(frames["episode_index"].to_pylist()[start:stop]) == {row["episode_index"]}
        path = info["data_path"].format(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )
        assert row["episode_index"] in pq.read_table(root / path)["episode_index"].to_pylist()
        place = (row["meta/episodes/chunk_index"], row["meta/episodes/file_index"])
        meta = root / "meta/episodes" / f"chunk-{place[0]:03d}" / f"file-{place[1]:03d}.parquet"
        assert row["episode_index"] in pq.read_table(meta)["episode_index"].to_pylist()
        start = stop
    assert max(row["data/chunk_index"] for row in rows) > 0, "more files than fit one chunk"
    assert len(list((root / "data").glob("*/*.parquet"))) > 2


def test_row_groups_are_episodes(dataset: tuple[Path, list[Episode]]) -> None:
    root, episodes = dataset
    lengths = []
    for path in sorted((root / "data").glob("*/*.parquet")):
        file = pq.ParquetFile(path)
        for number in range(file.num_row_groups):
            group = file.read_row_group(number, columns=["episode_index"])["episode_index"].to_pylist()
            assert len(set(group)) == 1
            lengths.append(len(group))
    assert lengths == [item.length for item in episodes]


def test_frames_hold_the_steps(dataset: tuple[Path, list[Episode]]) -> None:
    root, episodes = dataset
    frames = frames_of(root)
    state = np.array(frames["observation.state"].to_pylist())
    action = np.array(frames["action"].to_pylist())
    np.testing.assert_array_equal(state, np.concatenate([item.observations[:-1] for item in episodes]))
    np.testing.assert_array_equal(action, np.concatenate([item.actions for item in episodes]))
    np.testing.assert_array_equal(
        frames["next.reward"].to_numpy(), np.concatenate([item.rewards for item in episodes])
    )
    acted = frames["complementary_info.is_intervention"].to_numpy()
    people = [np.asarray(item.interventions) for item in episodes]
    np.testing.assert_array_equal(acted, np.concatenate(people))
    index = np.concatenate([np.arange(item.length) for item in episodes])
    np.testing.assert_array_equal(frames["frame_index"].to_numpy(), index)
    np.testing.assert_array_equal(frames["timestamp"].to_numpy(), (index / FPS).astype(np.float32))
    last = np.concatenate([np.arange(item.length) == item.length - 1 for item in episodes])
    np.testing.assert_array_equal(frames["next.done"].to_numpy(), last)
    cut = np.concatenate([np.full(item.length, not item.terminated) for item in episodes])
    np.testing.assert_array_equal(frames["next.truncated"].to_numpy(), last & cut)
    solved = np.concatenate([np.full(item.length, item.success is True) for item in episodes])
    np.testing.assert_array_equal(frames["next.success"].to_numpy(), last & solved)


def test_tasks_are_an_index_of_pandas(dataset: tuple[Path, list[Episode]]) -> None:
    root, episodes = dataset
    table = pq.read_table(root / "meta/tasks.parquet")
    pandas = json.loads(table.schema.metadata[b"pandas"])
    assert pandas["index_columns"] == ["task"]
    described = {column["field_name"]: column for column in pandas["columns"]}
    assert set(described) == set(table.column_names) == {"task", "task_index"}
    assert described["task"]["name"] == "task"
    assert table["task_index"].to_pylist() == list(range(len(table))), "LeRobot looks rows up by position"
    tasks, frames = table["task"].to_pylist(), frames_of(root)
    said = [tasks[number] for number in frames["task_index"].to_pylist()]
    assert said == [item.task for item in episodes for _ in range(item.length)]


def decode(path: Path, timestamp: float) -> np.ndarray:
    """Return the frame that LeRobot's PyAV backend finds at a time."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        container.seek(round(timestamp / stream.time_base) - 1, backward=True, stream=stream)
        frames, times = [], []
        for frame in container.decode(stream):
            assert frame.pts is not None
            frames.append(frame.to_ndarray(format="rgb24"))
            times.append(float(frame.pts * stream.time_base))
            if times[-1] >= timestamp:
                break
    distance = np.abs(np.array(times) - timestamp)
    assert distance.min() < TOLERANCE_S
    return frames[int(distance.argmin())]


def test_every_image_is_found_at_its_time(dataset: tuple[Path, list[Episode]]) -> None:
    root, episodes = dataset
    info, frames = info_of(root), frames_of(root)
    for row, episode in zip(rows_of(root), episodes, strict=True):
        for camera, images in episode.images.items():
            key = f"observation.images.{camera}"
            for step in {0, episode.length // 2, episode.length - 1}:
                at = row["dataset_from_index"] + step
                if root.name == "png":
                    item = frames[key][at].as_py()
                    with Image.open(io.BytesIO(item["bytes"])) as image:
                        np.testing.assert_array_equal(np.array(image), images[step])
                    continue
                start = row[f"videos/{key}/from_timestamp"]
                span = row[f"videos/{key}/to_timestamp"] - start
                assert span == pytest.approx(episode.length / FPS)
                path = root / info["video_path"].format(
                    video_key=key,
                    chunk_index=row[f"videos/{key}/chunk_index"],
                    file_index=row[f"videos/{key}/file_index"],
                )
                found = decode(path, start + frames["timestamp"][at].as_py())
                assert np.abs(found.astype(int) - images[step]).max() <= LOSS
    if root.name == "video":
        assert len(list((root / "videos").rglob("*.mp4"))) >= 2 * len(CAMERAS)
        described = info["features"]["observation.images.top"]["info"]
        assert described["video.height"] == 16 and described["video.width"] == 12
        assert described["video.fps"] == FPS and described["is_depth_map"] is False


def test_statistics_have_the_shapes_and_values(dataset: tuple[Path, list[Episode]]) -> None:
    root, episodes = dataset
    features = info_of(root)["features"]
    stats = json.loads((root / "meta/stats.json").read_text(encoding="utf-8"))
    assert set(stats) == set(features)
    for name, feature in features.items():
        parts = {part: np.array(value) for part, value in stats[name].items()}
        assert set(parts) == {"min", "max", "mean", "std", "count", *QUANTILES}
        assert parts.pop("count").shape == (1,)
        camera = feature["dtype"] in ("image", "video")
        shape = (feature["shape"][2], 1, 1) if camera else tuple(feature["shape"])
        for part, value in parts.items():
            assert value.shape == shape, (name, part)
            assert np.isfinite(value).all()
            if camera:
                assert (value >= 0).all() and (value <= 1).all()
        assert (parts["min"] <= parts["q01"] + 1e-9).all() and (parts["q99"] <= parts["max"] + 1e-9).all()
    actions = np.concatenate([item.actions for item in episodes]).astype(np.float64)
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(stats["action"]["min"], actions.min(axis=0))
    assert stats["action"]["count"] == [len(actions)]
    pixels = np.concatenate([item.images["top"][:-1] for item in episodes]).reshape(-1, 3) / 255
    top = stats["observation.images.top"]
    np.testing.assert_allclose(np.ravel(top["mean"]), pixels.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(top["std"]), pixels.std(axis=0), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(top["max"]), pixels.max(axis=0))


def test_episodes_carry_their_own_statistics(dataset: tuple[Path, list[Episode]]) -> None:
    root, episodes = dataset
    for row, episode in zip(rows_of(root), episodes, strict=True):
        actions = episode.actions.astype(np.float64)
        np.testing.assert_allclose(row["stats/action/mean"], actions.mean(axis=0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(row["stats/action/q90"], np.quantile(actions, 0.9, axis=0), rtol=1e-9)
        assert np.shape(row["stats/observation.images.top/std"]) == (3, 1, 1)
        assert row["stats/index/count"] == [episode.length]


def test_what_lerobot_does_not_know_lies_outside_its_folders(dataset: tuple[Path, list[Episode]]) -> None:
    root, _ = dataset
    known = {"meta", "data", "serfn"} | ({"videos"} if root.name == "video" else set())
    assert {entry.name for entry in root.iterdir()} == known
    assert {entry.name for entry in (root / "serfn").iterdir()} == {"episodes.parquet", "dataset.json"}
