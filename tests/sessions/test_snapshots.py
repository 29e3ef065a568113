from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from serfn.core.errors import CheckpointError, ConfigError
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.critics.mlp import MLPCriticConfig
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.runs.evaluate import load_actor
from serfn.sessions.snapshots import SnapshotStore
from serfn.training.acting import BestOfNActor

CRITIC = MLPCriticConfig(width=16, depth=2, v_min=-1.0, v_max=1.0)
WAIT_S = 600
"""Far more than needed: a busy machine may be slow, never wrong."""


@pytest.fixture
def actor(robot_run: Path) -> BestOfNActor:
    return load_actor(robot_run, candidates=3)[0]


def test_a_snapshot_acts_as_what_was_published(actor: BestOfNActor, tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "policies")
    assert store.latest() is None
    version = store.publish(actor, updates=7, critic=CRITIC)
    assert (version, store.latest(), store.versions()) == (1, 1, [1])
    loaded = store.load(1)
    observations = np.random.default_rng(0).normal(0, 1, (5, 4)).astype(np.float32)
    for each in (actor, loaded):
        each.reset(3)
    np.testing.assert_array_equal(actor.act(observations), loaded.act(observations))
    assert loaded.acting == actor.acting
    assert store.info(1).updates == 7


def test_a_critic_needs_its_configuration(actor: BestOfNActor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="critic"):
        SnapshotStore(tmp_path).publish(actor, updates=0)


def test_versions_go_on_and_old_ones_go_unless_in_use(actor: BestOfNActor, tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path, keep=2)
    assert [store.publish(actor, updates=n, critic=CRITIC) for n in range(5)] == [1, 2, 3, 4, 5]
    store.prune(frozenset({1}))
    assert store.versions() == [1, 4, 5]
    assert SnapshotStore(tmp_path).publish(actor, updates=9, critic=CRITIC) == 6


@pytest.mark.parametrize("name", ["critic.safetensors", "policy/model.safetensors", "policy/config.json"])
def test_a_changed_file_is_never_loaded(actor: BestOfNActor, tmp_path: Path, name: str) -> None:
    store = SnapshotStore(tmp_path)
    store.publish(actor, updates=0, critic=CRITIC)
    path = tmp_path / "00000001" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="digests"):
        store.load(1)


def test_a_damaged_pointer_names_the_remedy(actor: BestOfNActor, tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    store.publish(actor, updates=0, critic=CRITIC)
    (tmp_path / "latest.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="publish again"):
        store.latest()


def test_snapshots_travel_as_bytes(actor: BestOfNActor, tmp_path: Path) -> None:
    here, there = SnapshotStore(tmp_path / "here"), SnapshotStore(tmp_path / "there")
    here.publish(actor, updates=0, critic=CRITIC)
    files = here.pack(1)
    there.unpack(1, files)
    there.unpack(1, files)
    assert there.latest() == 1
    there.load(1)
    with pytest.raises(CheckpointError, match="brings"):
        there.unpack(2, {**files, "../escape": b""})
    assert not (tmp_path / "escape").exists()


def _publish_for_ever(root: str) -> None:
    # Without the training stack: what matters is the order of files, folders and pointers.
    from serfn.policies.factory import make_policy
    from serfn.policies.flow import FlowPolicyConfig
    from serfn.training.acting import ActingConfig

    task = TaskSpec("t", ObservationSpec(4), ActionSpec((-1.0,) * 2, (1.0,) * 2), 20.0, 10)
    policy = make_policy(FlowPolicyConfig(encoder=MLPEncoderConfig(width=8)), 4, 2, 4, seed=0)
    store = SnapshotStore(Path(root), keep=3)
    while True:
        store.publish(BestOfNActor(policy, None, task, ActingConfig(candidates=1)), updates=0)
        store.prune()


def test_a_killed_publisher_leaves_a_whole_snapshot(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_publish_for_ever, args=(str(tmp_path / "policies"),), daemon=True)
    process.start()
    store = SnapshotStore(tmp_path / "policies", keep=3)
    until_s = time.monotonic() + WAIT_S
    while (store.latest() or 0) < 5 and time.monotonic() < until_s:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    version = store.latest()
    assert version is not None
    assert version >= 5
    store.load(version)
    assert json.loads((tmp_path / "policies" / "latest.json").read_text())["folder"] == f"{version:08d}"
