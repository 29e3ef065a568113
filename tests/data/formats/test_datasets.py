from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from serfn.cli.main import main
from serfn.core.errors import ConfigError, DataError
from serfn.core.spec import ActionSpec
from serfn.data.convert import ConvertOptions, convert
from serfn.data.datasets import load_demonstrations, open_source, recognise
from serfn.data.episode import Episode
from serfn.data.formats.lerobot_write import LeRobotOptions, write_lerobot
from serfn.data.formats.npz import load_npz, save_npz
from serfn.data.mapping import NameMapping

MakeEpisode = Callable[..., Episode]
SPEC = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0))
CAMERAS = {"top": (6, 8, 3), "hänge/links": (5, 3, 1)}


@pytest.fixture
def episodes(make_episode: MakeEpisode) -> list[Episode]:
    return [make_episode(length, seed, cameras={"top": (6, 8, 3)}) for seed, length in enumerate((4, 1, 7))]


def test_a_data_set_travels_through_every_format_unchanged(
    tmp_path: Path, episodes: list[Episode], assert_same: Callable[..., None]
) -> None:
    save_npz(tmp_path / "a.npz", episodes, SPEC)
    seen: list[Any] = []
    done = convert(
        tmp_path / "a.npz",
        tmp_path / "store",
        ConvertOptions(control_hz=20),
        opened=lambda source: seen.append(source.count),
        written=lambda episode: seen.append(episode.length),
    )
    assert (done.to, done.episodes, done.steps, seen) == ("store", 3, 12, [3, 4, 1, 7])
    assert convert(tmp_path / "store", tmp_path / "robot").to == "lerobot"
    assert convert(tmp_path / "robot", tmp_path / "b.npz").to == "npz"
    names = {"a.npz": "npz", "store": "store", "robot": "lerobot", "b.npz": "npz"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for name, expected in names.items():
        source = open_source(tmp_path / name)
        assert source.format == recognise(tmp_path / name) == expected
        assert source.action_spec == SPEC
        assert source.control_hz == (None if name == "a.npz" else 20)
        for before, after in zip(episodes, source.read(), strict=True):
            assert_same(before, after)


def test_npz_keeps_what_only_some_episodes_have(
    tmp_path: Path, make_episode: MakeEpisode, assert_same: Callable[..., None]
) -> None:
    some = [make_episode(3, 0, cameras=CAMERAS), make_episode(2, 1, cameras=CAMERAS, full=False)]
    save_npz(tmp_path / "a.npz", some, SPEC)
    for before, after in zip(some, load_npz(tmp_path / "a.npz").episodes, strict=True):
        assert_same(before, after)
    with pytest.raises(DataError, match="episode 1 has the cameras"):
        save_npz(tmp_path / "b.npz", [some[0], make_episode(2, 1)])
    with pytest.raises(DataError, match="cannot name an array"):
        save_npz(tmp_path / "b.npz", [make_episode(2, cameras={"a\0": (2, 2, 3)})])


def test_the_rate_comes_from_the_timestamps_or_must_be_said(
    tmp_path: Path, make_episode: MakeEpisode
) -> None:
    times = np.arange(5) / 12.4
    save_npz(tmp_path / "a.npz", [make_episode(4, timestamps_s=times)])
    done = convert(tmp_path / "a.npz", tmp_path / "robot", ConvertOptions(to="lerobot"))
    assert open_source(tmp_path / "robot").control_hz == 12.5
    assert any("12.5 steps per second, guessed" in note for note in done.notes)
    save_npz(tmp_path / "b.npz", [make_episode(4, full=False)])
    with pytest.raises(DataError, match="give the rate"):
        convert(tmp_path / "b.npz", tmp_path / "x")


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, episodes: list[Episode]) -> None:
    write_lerobot(tmp_path / "robot", episodes, LeRobotOptions(fps=20))
    data = tmp_path / "robot/data/chunk-000/file-000.parquet"
    data.write_bytes(data.read_bytes()[:-200])
    for target in ("x.npz", "x", "y"):
        with pytest.raises(DataError, match="cannot be read"):
            convert(tmp_path / "robot", tmp_path / target, ConvertOptions(to=None))
    assert [path.name for path in tmp_path.iterdir()] == ["robot"]
    with pytest.raises(ConfigError, match="already exists"):
        convert(tmp_path / "robot", tmp_path / "robot")
    with pytest.raises(ConfigError, match="is no folder"):
        convert(tmp_path / "robot", tmp_path / "none" / "x")


@pytest.mark.parametrize("changes", [{"control_hz": -1.0}, {"to": "zarr"}])
def test_impossible_options(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        ConvertOptions(**changes)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    with h5py.File(tmp_path / "main_data.hdf5", "w"):
        pass
    for name, message in (
        ("none", "does not exist"),
        ("text", "starts with b'hello'"),
        ("empty", "holds no data set that is known"),
        ("main_data.hdf5", "part of a Minari data set"),
    ):
        with pytest.raises(DataError, match=message):
            recognise(tmp_path / name)


def test_demonstrations_of_any_format(tmp_path: Path, episodes: list[Episode]) -> None:
    write_lerobot(tmp_path / "robot", episodes, LeRobotOptions(fps=20))
    demonstrations = load_demonstrations(tmp_path / "robot", SPEC, obs_dim=3)
    assert demonstrations.action_spec == SPEC and demonstrations.steps == 12
    assert not demonstrations.episodes[0].images
    assert load_demonstrations(tmp_path / "robot", images=True).episodes[0].images
    inferred = load_demonstrations(tmp_path / "robot")
    assert any("no action bounds" in note for note in inferred.notes)
    with pytest.raises(DataError, match=r"3 observation dimensions, the task has 5.*found observation.state"):
        load_demonstrations(tmp_path / "robot", SPEC, obs_dim=5)
    wide = ActionSpec(low=(-1.0,) * 3, high=(1.0,) * 3)
    with pytest.raises(DataError, match=r"actions of 2 dimensions, the task 3.*found observation.state"):
        load_demonstrations(tmp_path / "robot", wide)
    narrow = ActionSpec(low=(-1e-3,) * 2, high=(1e-3,) * 2)
    with pytest.raises(DataError, match="robot', episode 0: action at index"):
        load_demonstrations(tmp_path / "robot", narrow)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": ()}, "observations names no field"),
        ({"actions": ("a", "a")}, "names a field twice: a, a"),
    ],
)
def test_mappings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NameMapping(**changes)


def test_the_command_says_what_it_guessed(
    tmp_path: Path, episodes: list[Episode], capsys: pytest.CaptureFixture[str]
) -> None:
    robot, out = str(tmp_path / "robot"), str(tmp_path / "out.npz")
    write_lerobot(tmp_path / "robot", episodes, LeRobotOptions(fps=20))
    assert main(["data", "convert", robot, out]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == f"wrote {out}: npz, 3 episodes, 12 steps"
    assert "guessed observations = observation.state float32 [3]" in " ".join(said.err.split())
    mapping = tmp_path / "mapping.json"
    mapping.write_text(json.dumps({"observations": ["nothing"]}), encoding="utf-8")
    assert main(["data", "convert", robot, str(tmp_path / "x"), "--mapping", str(mapping)]) == 2
    assert "there is no 'nothing'; found observation.state" in capsys.readouterr().err
    assert main(["data", "convert", robot, str(tmp_path / "x"), "--set", "reward=next.rewart"]) == 2
    assert "did you mean 'next.reward'" in capsys.readouterr().err
    assert main(["data", "convert", robot, out]) == 2
    assert "already exists" in capsys.readouterr().err
