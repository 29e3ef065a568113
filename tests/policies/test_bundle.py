"""Bundles: bit-exact round trip, atomic replacement, refusals that name the remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from serfn.core.errors import CheckpointError
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.flows import FlowConfig
from serfn.policies import (
    ChunkPolicy,
    DeterministicConfig,
    DiffusionConfig,
    DistilledFlowConfig,
    FlowMatchingConfig,
    FlowPolicyConfig,
    GaussianConfig,
    GaussianMixtureConfig,
    PolicyConfig,
    bundle,
    load_bundle,
    make_policy,
    save_bundle,
)
from serfn.policies.encoders.mlp import MLPEncoderConfig

SPEC = TaskSpec("toy", ObservationSpec(3), ActionSpec((-1.0, 0.0), (1.0, 2.0)), 25.0, 100)
FLOW = FlowPolicyConfig(FlowConfig(couplings=2, width=8), encoder=MLPEncoderConfig(width=8))


def make(config: PolicyConfig = FLOW, seed: int = 0) -> ChunkPolicy:
    policy = make_policy(config, 3, 2, 4, seed=seed)
    source = torch.Generator().manual_seed(seed)
    obs, actions = torch.randn(20, 3, generator=source), torch.rand(20, 4, 2, generator=source)
    policy.fit_statistics(obs, actions, torch.ones(20, 4, dtype=torch.bool))
    return policy


@pytest.mark.parametrize(
    "config",
    [
        FLOW,
        replace(FLOW, base_components=3),
        FlowMatchingConfig(width=8),
        DistilledFlowConfig(width=8),
        DiffusionConfig(width=8),
        GaussianConfig(width=8),
        GaussianMixtureConfig(width=8),
        DeterministicConfig(width=8),
    ],
)
def test_round_trip_is_bit_exact(config: PolicyConfig, tmp_path: Path) -> None:
    policy = make(config)
    save_bundle(tmp_path / "deep" / "policy", policy, SPEC, {"stage": "imitation", "steps": 3})
    loaded = load_bundle(tmp_path / "deep" / "policy")
    assert loaded.spec == SPEC and loaded.metadata == {"stage": "imitation", "steps": 3}
    assert type(loaded.policy) is type(policy) and loaded.policy.chunk_size == 4
    assert not loaded.policy.training
    assert loaded.policy.state_dict().keys() == policy.state_dict().keys()
    assert all(torch.equal(loaded.policy.state_dict()[k], v) for k, v in policy.state_dict().items())
    obs = torch.ones(2, 3)
    samples = [p.sample(obs, generator=torch.Generator().manual_seed(1)) for p in (policy, loaded.policy)]
    assert torch.equal(samples[0], samples[1])


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    save_bundle(tmp_path / "policy", make(seed=0), SPEC)
    save_bundle(tmp_path / "policy", make(seed=1), SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert sorted(path.name for path in (tmp_path / "policy").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    loaded = load_bundle(tmp_path / "policy").policy
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in make(seed=1).state_dict().items())


def test_a_failed_save_keeps_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_bundle(tmp_path / "policy", make(seed=0), SPEC)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(bundle, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_bundle(tmp_path / "policy", make(seed=1), SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    loaded = load_bundle(tmp_path / "policy").policy
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in make(seed=0).state_dict().items())


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="choose another folder"):
        save_bundle(tmp_path, make(), SPEC)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_task_must_fit(tmp_path: Path) -> None:
    other = TaskSpec("other", ObservationSpec(4), SPEC.action, 25.0, 100)
    with pytest.raises(CheckpointError, match="task 'other' has 4 observations"):
        save_bundle(tmp_path / "policy", make(), other)


def test_metadata_must_be_plain(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="pass plain values"):
        save_bundle(tmp_path / "policy", make(), SPEC, {"bad": object()})
    assert not list(tmp_path.iterdir())


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((path / "config.json").read_text())
    change(document)
    (path / "config.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.update(type="tabular"),
            "type 'tabular', which does not load here: no 'tabular' among the pol",
        ),
        (lambda d: d.update(version=99), "format 99, this serfn knows up to 2; install a newer serfn"),
        (lambda d: d.update(format="other"), "does not describe a serfn policy"),
        (lambda d: d.pop("task"), "lacks a valid entry 'task'"),
        (lambda d: d["policy"].update(colour="red"), "policy.colour"),
        (lambda d: d["policy"].update(data_noise=2.0), "data_noise is 2.0"),
        (lambda d: d["policy"]["flow"].update(width=9), "does not match config.json"),
        (lambda d: d.update(chunk_size=5), "does not match config.json"),
        (lambda d: d.update(chunk_size=0), "chunk_size 0"),
    ],
)
def test_inconsistent_configurations_are_refused(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    save_bundle(tmp_path / "policy", make(), SPEC)
    edit(tmp_path / "policy", change)
    with pytest.raises(CheckpointError, match=message):
        load_bundle(tmp_path / "policy")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    with pytest.raises(CheckpointError, match="no policy bundle"):
        load_bundle(folder)
    save_bundle(folder, make(), SPEC)
    tensors = load_file(folder / "model.safetensors")
    tensors["flow.whitening.mean"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"NaN or infinity in 'flow.whitening.mean'"):
        load_bundle(folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
    with pytest.raises(CheckpointError, match="copy the whole bundle again"):
        load_bundle(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_bundle(folder)


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    save_bundle(tmp_path / "policy", make(), SPEC)
    (tmp_path / "ordinary").write_text("")
    ordinary = (tmp_path / "ordinary").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "policy").iterdir()} == {ordinary}
    (tmp_path / "folder").mkdir()
    assert (tmp_path / "policy").stat().st_mode == (tmp_path / "folder").stat().st_mode
