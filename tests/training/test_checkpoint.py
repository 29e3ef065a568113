from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from serfn.core.errors import CheckpointError
from serfn.data.episode import Episode
from serfn.training.checkpoint import CheckpointStore, config_hash, differing_keys, resolve
from serfn.training.episode_log import load_rounds, save_round

CONFIG = {"seed": 0, "online": {"episodes": 8, "acting": (8, 0.7)}}


def tree() -> dict:
    return {
        "tensors": {"half": torch.ones(2, 3).bfloat16(), "scalar": torch.tensor(0.1, dtype=torch.float64)},
        "mask": np.array([True, False]),
        "rng": np.random.default_rng(3).bit_generator.state,
        "list": [1, None, {"deep": torch.arange(3)}],
        "empty": {},
        "text": "τ",
    }


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", CONFIG)
    folder = store.save(12, tree())
    loaded, original = store.load(), tree()
    assert folder.name == "00000012"
    for name, tensor in original["tensors"].items():
        torch.testing.assert_close(loaded["tensors"][name], tensor, rtol=0, atol=0)
    assert loaded["mask"].tolist() == [True, False] and loaded["mask"].dtype == bool
    assert loaded["rng"] == original["rng"]
    assert loaded["list"][:2] == [1, None] and loaded["list"][2]["deep"].tolist() == [0, 1, 2]
    assert (loaded["empty"], loaded["text"]) == ({}, "τ")


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    folder = CheckpointStore(tmp_path, CONFIG).save(0, tree())
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "state.json",
        "state.safetensors",
    ]


def test_pointers_follow_and_old_checkpoints_go(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, CONFIG)
    store.save(1, {"step": 1})
    store.save(2, {"step": 2}, best=True)
    store.save(3, {"step": 3})
    store.save(4, {"step": 4})
    assert store.load("best") == {"step": 2}
    assert store.load("last") == {"step": 4}
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["00000002", "00000004"]


def test_a_second_checkpoint_of_one_step_never_overwrites_the_first(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, CONFIG)
    store.save(5, {"try": 1}, best=True)
    store.save(5, {"try": 2})
    assert (store.load("best"), store.load("last")) == ({"try": 1}, {"try": 2})


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, CONFIG)
    store.save(1, {"step": 1})
    with pytest.raises(TypeError):
        store.save(2, {"step": object()})
    assert store.load() == {"step": 1}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    CheckpointStore(tmp_path, CONFIG).save(1, {})
    other = CheckpointStore(tmp_path, {"seed": 0, "online": {"episodes": 9, "acting": [8, 0.7]}})
    with pytest.raises(CheckpointError, match=r"online\.episodes: stored 8, now 9") as caught:
        other.load()
    assert "acting" not in str(caught.value)


def test_hash_ignores_the_order_of_keys() -> None:
    assert config_hash({"a": 1, "b": [2]}) == config_hash({"b": (2,), "a": 1})
    assert differing_keys({"a": {"b": 1}}, {"a": {}}) == ["a.b: stored 1, now None"]


@pytest.mark.parametrize("file", ["state.json", "state.safetensors", "config.json"])
@pytest.mark.parametrize("content", [None, b"{"])
def test_damage_is_reported(tmp_path: Path, file: str, content: bytes | None) -> None:
    store = CheckpointStore(tmp_path, CONFIG)
    path = store.save(1, tree()) / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError):
        store.load()


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
def test_a_flipped_bit_is_reported(tmp_path: Path, file: str) -> None:
    store = CheckpointStore(tmp_path, CONFIG)
    path = store.save(1, tree()) / file
    whole = path.read_bytes()
    for index in np.random.default_rng(0).integers(len(whole), size=20):
        flipped = bytearray(whole)
        flipped[index] ^= 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=f"damaged: {file} has checksum"):
            store.load()
    path.write_bytes(whole)
    store.load()


def test_missing_pointers_are_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no 'best' checkpoint"):
        resolve(tmp_path, "best")
    (tmp_path / "best.json").write_text(json.dumps({"folder": "gone"}))
    with pytest.raises(CheckpointError, match="missing"):
        resolve(tmp_path, "best")
    (tmp_path / "best.json").write_text("[")
    with pytest.raises(CheckpointError, match="damaged"):
        resolve(tmp_path, "best")


def test_episodes_of_rounds_come_back(tmp_path: Path, toy_demonstrations: list[Episode]) -> None:
    first, second = toy_demonstrations[:2], toy_demonstrations[2:3]
    save_round(tmp_path, 0, first)
    save_round(tmp_path, 1, second)
    loaded = load_rounds(tmp_path, 2)
    for original, copy in zip([*first, *second], loaded, strict=True):
        for name in ("observations", "actions", "rewards", "chunk_starts"):
            np.testing.assert_array_equal(getattr(copy, name), getattr(original, name))
        assert (copy.success, copy.seed, copy.truncated) == (original.success, original.seed, True)
    assert len(load_rounds(tmp_path, 1)) == 2
    with pytest.raises(CheckpointError, match="round_00002"):
        load_rounds(tmp_path, 3)
