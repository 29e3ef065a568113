"""One suite over the data formats, the example's included: recognised by content, read as written."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serfn.data.convert import ConvertOptions, convert
from serfn.data.datasets import formats, load_demonstrations, recognise
from serfn.data.episode import Episode
from serfn.data.formats.npz import save_npz
from serfn.data.mapping import GUESS_ALL

OWN = "mylab.table:CSV"


@pytest.fixture(autouse=True)
def with_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were installed."""
    ours = formats.names()
    monkeypatch.setattr(formats, "names", lambda: [*ours, OWN])


@pytest.fixture
def episodes() -> list[Episode]:
    rng = np.random.default_rng(0)
    return [
        Episode(
            observations=rng.normal(0, 1, (length + 1, 3)).astype(np.float32),
            actions=rng.uniform(-1, 1, (length, 2)).astype(np.float32),
            rewards=rng.uniform(0, 1, length).astype(np.float32),
            terminated=False,
            truncated=True,
            chunk_starts=np.ones(length, np.bool_),
        )
        for length in (6, 9)
    ]


def as_npz(path: Path, episodes: list[Episode]) -> Path:
    save_npz(path.with_suffix(".npz"), episodes)
    return path.with_suffix(".npz")


def as_store(path: Path, episodes: list[Episode]) -> Path:
    convert(as_npz(path.with_name("source"), episodes), path, ConvertOptions(control_hz=20.0, to="store"))
    return path


def as_lerobot(path: Path, episodes: list[Episode]) -> Path:
    convert(as_npz(path.with_name("source"), episodes), path, ConvertOptions(control_hz=20.0, to="lerobot"))
    return path


def as_csv(path: Path, episodes: list[Episode]) -> Path:
    path = path.with_suffix(".csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["episode", "obs.a", "obs.b", "obs.c", "action.x", "action.y", "reward"])
        for number, episode in enumerate(episodes):
            actions = np.vstack([episode.actions, np.zeros(2)])
            rewards = np.append(episode.rewards, 0.0)
            for row in zip(episode.observations, actions, rewards, strict=True):
                table.writerow([number, *row[0].tolist(), *row[1].tolist(), float(row[2])])
    return path


WRITERS: dict[str, Callable[[Path, list[Episode]], Path]] = {
    "npz": as_npz,
    "store": as_store,
    "lerobot": as_lerobot,
    OWN: as_csv,
}


@pytest.mark.parametrize("name", WRITERS)
def test_it_is_recognised_by_itself_alone_and_read_as_written(
    name: str, episodes: list[Episode], tmp_path: Path
) -> None:
    path = WRITERS[name](tmp_path / "data", episodes)
    assert [known for known in formats.names() if formats.find(known).holds(path)] == [name]
    assert recognise(path) == name
    source = formats.find(name).open(path, GUESS_ALL)
    assert source.count == 2
    for read in (list(source.read()), list(source.read()), list(load_demonstrations(path).episodes)):
        for episode, written in zip(read, episodes, strict=True):
            np.testing.assert_allclose(episode.observations, written.observations, rtol=1e-6)
            np.testing.assert_allclose(episode.actions, written.actions, rtol=1e-6)
            np.testing.assert_allclose(episode.rewards, written.rewards, rtol=1e-6)
            assert (episode.terminated, episode.truncated) == (False, True)


@pytest.mark.parametrize("name", [*formats.names(), OWN])
def test_it_does_not_take_what_is_nobodys(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "words").write_text("nothing here", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for path in tmp_path.iterdir():
        assert formats.find(name).holds(path) is False
