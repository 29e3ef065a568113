from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serfn.core.errors import ConfigError
from serfn.data.store.store import EpisodeStore, is_store
from serfn.sessions.cluster.ray import Cluster, ClusterConfig
from serfn.sessions.config import LearningConfig, RobotRunConfig
from serfn.sessions.folder import RobotFolder, create
from serfn.sessions.promotion import PromotionConfig

pytestmark = pytest.mark.slow

ray = pytest.importorskip("ray")

WAIT_S = 600
"""Far more than needed: a busy machine may be slow, never wrong."""

ANYTHING = PromotionConfig(
    max_kl=1e9,
    max_jerk_ratio=1e9,
    failures=None,
)


@pytest.fixture
def local_ray() -> Iterator[None]:
    ray.init(
        num_cpus=2,
        object_store_memory=80 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    yield
    ray.shutdown()


def learner_status(folder: RobotFolder) -> dict[str, Any]:
    path = folder.path / "status.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"updates": 0, "episodes": 0}


def arrived(folder: RobotFolder, name: str) -> int:
    path = folder.store(name)
    return len(EpisodeStore(path)) if is_store(path) else 0


def newest_version(folder: RobotFolder, name: str) -> int:
    store = EpisodeStore(folder.store(name))
    return store.summary(store.numbers[-1]).policy_version


def supervise_until(cluster: Cluster, condition: Any, what: str) -> None:
    until_s = time.monotonic() + WAIT_S
    while not condition():
        assert cluster.supervise(0.2), f"all robots ended before {what}"
        assert time.monotonic() < until_s, f"waited in vain until {what}"


def test_a_killed_robot_is_replaced_while_the_learner_goes_on(
    local_ray: None, tmp_path: Path, robot_run: Path
) -> None:
    learning = LearningConfig(
        place="elsewhere", episodes_per_round=2, updates_per_episode=2, policy_delay_rounds=0
    )
    config = RobotRunConfig(
        robot="fake",
        robot_options={"joints": 2, "control_hz": 50.0},
        reset="none",
        learning=learning,
        promotion=ANYTHING,
    )
    folder = create(tmp_path / "session", robot_run, config)
    notes: list[str] = []
    places = ClusterConfig(
        robots={"left": {}, "right": {}},
        robot_root=tmp_path / "nodes",
        learner_cpus=0.5,
        robot_cpus=0.5,
    )
    cluster = Cluster(folder, places, note=notes.append)
    cluster.start()
    try:
        supervise_until(
            cluster, lambda: min(arrived(folder, name) for name in places.robots) >= 1, "both robots act"
        )
        killed = ray.get(cluster.robots["left"].handle.pid.remote())
        before = arrived(folder, "left")
        os.kill(killed, signal.SIGKILL)
        supervise_until(cluster, lambda: arrived(folder, "left") >= before + 2, "the replacement acts")
        updates = learner_status(folder)["updates"]
        supervise_until(cluster, lambda: learner_status(folder)["updates"] > updates, "the learner goes on")
        supervise_until(cluster, lambda: newest_version(folder, "right") > 1, "new weights act")
        assert ray.get(cluster.robots["left"].handle.pid.remote()) != killed
    finally:
        cluster.stop()
    assert any("left died" in note for note in notes)
    for name in places.robots:
        own = EpisodeStore(tmp_path / "nodes" / name / "experience" / name)
        sent = EpisodeStore(folder.store(name))
        # Everything that arrived is durable on the robot's side too, once, with the same identity.
        assert sent.uids <= own.uids
        assert len(sent.uids) == len(sent)
        for number in sent.numbers:
            assert sent.episode(number).length == 12 or sent.episode(number).interrupted


def test_without_ray_running_the_remedy_is_named(tmp_path: Path, robot_run: Path) -> None:
    config = RobotRunConfig(robot="fake", reset="none", learning=LearningConfig(place="elsewhere"))
    folder = create(tmp_path / "session", robot_run, config)
    with pytest.raises(ConfigError, match=r"ray\.init"):
        Cluster(folder, ClusterConfig(robots={"left": {}}))
