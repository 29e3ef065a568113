"""What former versions wrote opens, or is refused with one clear line; data that cost robot time always open.

`samples/version-0.1` was written by that version: episodes with every field in three formats, a training run
of the diagnostic task, and a session that learnt beside a fake robot.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.core.errors import CheckpointError, ConfigError, DataError, SerfnError
from serfn.core.format_version import FILE
from serfn.data.datasets import load_demonstrations, open_source
from serfn.data.store.store import EpisodeStore
from serfn.policies.bundle import load_bundle
from serfn.reports.run_record import load_run
from serfn.runs.evaluate import load_actor
from serfn.runs.folder import RUN, stored_config
from serfn.sessions.folder import SESSION, RobotFolder
from serfn.training.checkpoint import read_config, read_tree, resolve

SAMPLES = Path(__file__).parent / "samples" / "version-0.1"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("samples")
    for name in ("data", "run", "session"):
        with zipfile.ZipFile(SAMPLES / f"{name}.zip") as archive:
            archive.extractall(root / name)
    return root


@pytest.mark.parametrize("name", ["demos.npz", "store", "lerobot"])
def test_episodes_of_every_format_are_read_whole(samples: Path, name: str) -> None:
    first, second = open_source(samples / "data" / name).read()
    assert (first.length, second.length) == (7, 9)
    for episode, seed in ((first, 1), (second, 2)):
        rng = np.random.default_rng(seed)
        np.testing.assert_array_equal(
            episode.observations, rng.normal(0, 0.3, (episode.length + 1, 4)).astype(np.float32)
        )
        np.testing.assert_array_equal(
            episode.actions, rng.uniform(-0.5, 0.5, (episode.length, 2)).astype(np.float32)
        )
        assert episode.interventions is not None and episode.proposed_actions is not None
        assert episode.interventions.tolist() == [step % 3 == 0 for step in range(episode.length)]
        assert episode.timestamps_s is not None and episode.timestamps_s[2] == pytest.approx(0.1)
        assert episode.images["wrist"].shape == (episode.length + 1, 6, 8, 3)
        assert (episode.terminated, episode.success, episode.success_source) == (True, True, "operator")
        assert (episode.seed, episode.policy_version, episode.task) == (seed, 3, "turn the cube")
        assert episode.metrics == {"rev_per_min": 1.5 + seed}


@pytest.mark.parametrize(
    ("store", "episodes"), [("run/experience", 2), ("session/experience/robot", 2), ("data/store", 2)]
)
def test_experience_of_runs_and_sessions_stays_readable(samples: Path, store: str, episodes: int) -> None:
    assert len(list(EpisodeStore(samples / store).episodes())) == episodes
    assert len(load_demonstrations(samples / store).episodes) == episodes


@pytest.mark.parametrize("bundle", ["run/policy", "session/policies/00000001/policy"])
def test_policies_still_act(samples: Path, bundle: str) -> None:
    loaded = load_bundle(samples / bundle)
    actor, config = load_actor(samples / bundle)
    assert config is None and actor.chunk_size == 4
    actor.reset(0)
    chunks = actor.act(np.zeros((2, loaded.spec.observation.dim), np.float32))
    assert chunks.shape == (2, 4, loaded.spec.action.dim) and np.isfinite(chunks).all()


def test_a_policy_that_can_no_longer_be_made_is_refused(samples: Path, tmp_path: Path) -> None:
    document = json.loads((samples / "run/policy/config.json").read_text())
    document["policy"]["flow"]["conditioner"] = "transformer"
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"format 1 with policy.flow.conditioner = 'transformer'"):
        load_bundle(tmp_path)


def test_a_former_run_is_shown_but_not_resumed(samples: Path) -> None:
    assert len(load_run(samples / "run").finals()) == 3
    with pytest.raises(ConfigError, match=r"run of format 1, this serfn goes on with 2.*serfn data convert"):
        stored_config(samples / "run")
    with pytest.raises(CheckpointError, match=r"checkpoint of format 1.*bundle 'policy' of its run"):
        load_actor(samples / "run")


def test_a_former_session_is_not_gone_on_with(samples: Path) -> None:
    folder = RobotFolder(samples / "session")
    assert folder.exists
    for read in (folder.task, folder.robot_config):
        with pytest.raises(ConfigError, match=r"session on a robot of format 1.*'experience' are read"):
            read()


def newer_bundle(root: Path) -> Any:
    _raise_version(root / "run/policy/config.json")
    return load_bundle(root / "run/policy")


def newer_checkpoint(root: Path) -> Any:
    folder = resolve(root / "run/checkpoints", "last")
    _raise_version(folder / "config.json")
    with pytest.raises(CheckpointError, match="format 99"):
        read_tree(folder)
    return read_config(folder)


def newer_store(root: Path) -> Any:
    path = root / "data/store/store.json"
    document = json.loads(path.read_text())
    document["version"] = 99
    del document["crc32"]
    document["crc32"] = zlib.crc32(json.dumps(document, sort_keys=True).encode())
    path.write_text(json.dumps(document))
    return EpisodeStore(path.parent)


def newer_run(root: Path) -> Any:
    (root / "run" / FILE).write_text(json.dumps({"format": RUN.name, "version": 99}))
    return stored_config(root / "run")


def newer_session(root: Path) -> Any:
    (root / "session" / FILE).write_text(json.dumps({"format": SESSION.name, "version": 99}))
    return RobotFolder(root / "session").task()


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (newer_bundle, CheckpointError),
        (newer_checkpoint, CheckpointError),
        (newer_store, DataError),
        (newer_run, ConfigError),
        (newer_session, ConfigError),
    ],
)
def test_what_is_newer_is_refused_in_one_line(read: Any, error: type[SerfnError], tmp_path: Path) -> None:
    for name in ("data", "run", "session"):
        with zipfile.ZipFile(SAMPLES / f"{name}.zip") as archive:
            archive.extractall(tmp_path / name)
    with pytest.raises(error, match=r"of format 99, this serfn knows up to [12]; install a newer") as refusal:
        read(tmp_path)
    assert "\n" not in str(refusal.value)


def _raise_version(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
