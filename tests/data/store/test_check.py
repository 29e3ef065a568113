from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.core.errors import DataError
from serfn.core.spec import ActionSpec, TaskSpec
from serfn.data.store.check import check_store, repair_store
from serfn.data.store.labels import LabelChange, label_damage
from serfn.data.store.store import EpisodeStore
from serfn.data.store.transfer import merge_stores, split_store
from serfn.data.store.writer import StoreWriter


@pytest.fixture
def filled(folder: Path, toys: Any) -> Path:
    with StoreWriter(folder) as writer:
        for seed in range(4):
            writer.add(toys.random(seed, steps=seed + 1))
    return folder


def file_of(store: Path, number: int, suffix: str) -> Path:
    (path,) = (path for path in store.glob(f"episodes/{number:08d}-*{suffix}"))
    return path


def flip(path: Path, index: int) -> None:
    content = bytearray(path.read_bytes())
    content[index % len(content)] ^= 16
    path.write_bytes(content)


def damages(store: Path) -> list[str]:
    return [finding.text for finding in check_store(store) if finding.damage]


def test_a_sound_store(filled: Path) -> None:
    seen = []
    assert check_store(filled, lambda done, total: seen.append((done, total))) == []
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_no_damaged_file_is_ever_served(filled: Path) -> None:
    rng = np.random.default_rng(0)
    path = next(path for path in filled.glob("episodes/00000002*") if "images" not in path.name)
    content = path.read_bytes()
    for index in rng.integers(len(content), size=60):
        flip(path, int(index))
        with pytest.raises(DataError, match="episode 2 is damaged"):
            EpisodeStore(filled).episode(2)
        flip(path, int(index))
    for size in rng.integers(len(content), size=30):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="episode 2 is damaged"):
            EpisodeStore(filled).summary(2)
    path.write_bytes(content)
    images = file_of(filled, 2, ".images.arrow")
    flip(images, 500)
    store = EpisodeStore(filled)
    with pytest.raises(DataError, match="episode 2 is damaged"):
        store.episode(2)
    assert store.episode(2, images=False).length == 3


def test_repair_sets_damage_aside_and_leaves_the_rest(filled: Path, toys: Any) -> None:
    numbers = next(path for path in filled.glob("episodes/00000001*") if "images" not in path.name)
    flip(numbers, 700)
    flip(file_of(filled, 2, ".images.arrow"), 300)
    assert len(damages(filled)) == 2 and "episode 1 is damaged" in damages(filled)[0]
    done = repair_store(filled)
    assert ["quarantine" in done[0], "without images" in done[1]] == [True, True]
    assert damages(filled) == [] and repair_store(filled) == []
    assert numbers.name in {path.name for path in (filled / "quarantine").iterdir()}
    store = EpisodeStore(filled)
    assert store.numbers == (0, 2, 3)
    toys.assert_equal(store.episode(2), toys.random(2, steps=3, images={}))
    with StoreWriter(filled) as writer:
        assert writer.add(toys.random(9)) == 4


def test_a_missing_episode_is_noticed(filled: Path) -> None:
    for path in filled.glob("episodes/00000001*"):
        path.unlink()
    assert damages(filled) == ["episode 1 is missing; restore its file from a copy"]
    with pytest.raises(DataError, match=r"no episode 1; it holds episodes up to 3"):
        EpisodeStore(filled).episode(1)


def test_actions_outside_their_bounds_are_worth_a_note(filled: Path, toys: Any) -> None:
    with StoreWriter(filled) as writer:
        writer.add(toys.random(0, actions=np.full((7, 2), 1.5)))
    (finding,) = check_store(filled)
    assert not finding.damage and "episode 4" in finding.text and "outside [-1, 1]" in finding.text


def test_labels_change_what_is_read_and_not_what_was_written(filled: Path) -> None:
    before = {path: path.read_bytes() for path in filled.glob("episodes/*")}
    store, other = EpisodeStore(filled), EpisodeStore(filled)
    with StoreWriter(filled):
        store.relabel(1, LabelChange(source="operator", success=False))
    store.relabel(1, LabelChange(source="Jürgen", success=True, stage="gripped"))
    store.relabel(2, LabelChange(source="operator", success="unknown", discard=True))
    store.relabel(3, LabelChange(source="operator", discard=True))
    store.relabel(3, LabelChange(source="operator", discard=False))
    assert {path: path.read_bytes() for path in filled.glob("episodes/*")} == before
    assert other.episode(1).success_source == "environment"
    other.refresh()
    for view in (store, other):
        assert (view.episode(1).success, view.episode(1).success_source) == (True, "Jürgen")
        assert view.summary(1).stage == "gripped"
        assert (view.episode(2).success, view.episode(2).success_source) == (None, None)
        assert [episode.length for episode in view.episodes(images=False)] == [1, 2, 4]
    with pytest.raises(DataError, match="changes nothing"):
        LabelChange(source="operator")
    with pytest.raises(DataError, match="source of a label is empty"):
        LabelChange(source="", success=True)
    with pytest.raises(DataError, match="no episode 7"):
        store.relabel(7, LabelChange(source="operator", success=True))


def test_damaged_labels_are_refused_and_repaired(filled: Path) -> None:
    store, log = EpisodeStore(filled), filled / "labels.log"
    for number in range(3):
        store.relabel(number, LabelChange(source="operator", success=False))
    whole = log.read_bytes()
    log.write_bytes(whole[:-5])
    assert label_damage(log) is None and EpisodeStore(filled).episode(2).success is True
    store.relabel(2, LabelChange(source="operator", success=False))
    assert len(log.read_bytes()) == len(whole)
    flip(log, len(whole) // 2)
    with pytest.raises(DataError, match="serfn data repair"):
        EpisodeStore(filled)
    with pytest.raises(DataError, match="serfn data repair"):
        store.relabel(2, LabelChange(source="operator", success=True))
    StoreWriter(filled).close()
    assert ["labels are damaged" in text for text in damages(filled)] == [True]
    assert "2 whole ones kept" in repair_store(filled)[0]
    assert [EpisodeStore(filled).episode(number).success for number in range(3)] == [False, True, False]


def test_damaged_descriptions_are_refused(filled: Path) -> None:
    about = filled / "store.json"
    text = about.read_text()
    for change, message in (
        (text.replace("20.0", "30.0"), "wrong checksum"),
        (text[:-20], "is damaged"),
        ("[]", "is damaged"),
    ):
        about.write_text(change)
        with pytest.raises(DataError, match=message):
            EpisodeStore(filled)
    about.unlink()
    with pytest.raises(DataError, match="is no store"):
        check_store(filled)


def test_a_store_is_made_in_an_empty_folder_only(tmp_path: Path, filled: Path) -> None:
    task = EpisodeStore(filled).task
    with pytest.raises(DataError, match="already holds a store"):
        EpisodeStore.create(filled, task)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is not empty"):
        EpisodeStore.create(tmp_path, task)
    with pytest.raises(DataError, match="is no folder"):
        EpisodeStore.create(tmp_path / "file", task)
    # What a crash before the description leaves.
    (tmp_path / "half" / "episodes").mkdir(parents=True)
    assert EpisodeStore.create(tmp_path / "half", task).task == task
    document = json.loads((filled / "store.json").read_text())
    assert document["task"]["action"]["low"] == [-1.0, -1.0]


def test_split_and_merge_keep_episodes_labels_and_identities(filled: Path, tmp_path: Path, toys: Any) -> None:
    store = EpisodeStore(filled)
    store.relabel(1, LabelChange(source="operator", success=False, stage="gripped"))
    store.relabel(3, LabelChange(source="operator", discard=True))
    parts = tmp_path / "a", tmp_path / "b"
    assert split_store(filled, parts, 0.75, seed=0) == (3, 1)
    assert merge_stores([*parts, filled], tmp_path / "c") == 4
    merged = EpisodeStore(tmp_path / "c")
    assert damages(tmp_path / "c") == [] and merged.uids == store.uids
    for number in merged.numbers:
        twin = next(n for n in store.numbers if store.summary(n).uid == merged.summary(number).uid)
        toys.assert_equal(merged.episode(number), store.episode(twin))
        assert merged.labels(number) == store.labels(twin)


def test_what_cannot_be_merged_or_split(
    filled: Path, tmp_path: Path, task: TaskSpec, make_store: Callable[[str], Path]
) -> None:
    other = TaskSpec("other", task.observation, ActionSpec((-2.0, -1.0), (1.0, 1.0)), 20.0, 100)
    EpisodeStore.create(tmp_path / "other", other)
    with pytest.raises(DataError, match="action bounds"):
        merge_stores([filled, tmp_path / "other"], tmp_path / "c")
    with pytest.raises(DataError, match="already exists"):
        merge_stores([filled], tmp_path / "other")
    with pytest.raises(DataError, match="nothing to merge"):
        merge_stores([], tmp_path / "c")
    with pytest.raises(DataError, match=r"fraction of a split is 1\.5"):
        split_store(filled, (tmp_path / "c", tmp_path / "d"), 1.5, 0)
    with pytest.raises(DataError, match="0 episodes"):
        split_store(make_store("empty"), (tmp_path / "c", tmp_path / "d"), 0.5, 0)
    with pytest.raises(DataError, match="name two folders"):
        split_store(filled, (tmp_path / "c", tmp_path / "c"), 0.5, 0)
    flip(file_of(filled, 2, ".images.arrow"), 300)
    with pytest.raises(DataError, match="episode 2 is damaged"):
        merge_stores([filled], tmp_path / "c")
    assert not list(tmp_path.glob("*c")) and not list(tmp_path.glob(".*"))
