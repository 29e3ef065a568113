from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.core.errors import DataError
from serfn.data.episode import Episode
from serfn.data.formats.npz import load_npz
from serfn.data.store.labels import LabelChange
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import StoreWriter
from serfn.robot.budget import InteractionBudget
from serfn.runs.demonstrations import read_findings
from serfn.runs.inputs import write_inputs
from serfn.sessions.actor import RobotActor
from serfn.sessions.actor_learner import run_session
from serfn.sessions.config import LearningConfig, RobotRunConfig
from serfn.sessions.folder import RobotFolder, create
from serfn.sessions.learner import Learner
from serfn.sessions.learner_process import LearnerProcess, learner_lock
from serfn.sessions.promotion import PromotionConfig

pytestmark = pytest.mark.slow

FAKE = {"joints": 2, "control_hz": 50.0}
WAIT_S = 600
"""Far more than needed: a busy machine may be slow, never wrong."""
PERMISSIVE = PromotionConfig(
    max_kl=1e9,
    max_jerk_ratio=1e9,
    failures=None,
)


@pytest.fixture
def make_session(tmp_path: Path, robot_run: Path) -> Callable[..., RobotFolder]:
    def build(place: Any, **options: Any) -> RobotFolder:
        learning = LearningConfig(
            place=place, episodes_per_round=2, updates_per_episode=2, policy_delay_rounds=0
        )
        values = {"promotion": PERMISSIVE, **options}
        config = RobotRunConfig(robot="fake", robot_options=FAKE, reset="none", learning=learning, **values)
        return create(tmp_path / "session", robot_run, config)

    return build


def status(folder: RobotFolder) -> dict[str, Any]:
    path = folder.path / "status.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def test_inline_learning_takes_turns_and_resumes(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session("inline", budget=InteractionBudget(episodes=5))
    with RobotActor(folder) as actor:
        assert "5 episodes" in run_session(actor)
    # The fifth episode waits for a second one.
    assert status(folder)["episodes"] == 4
    assert status(folder)["updates"] == 8
    versions = [episode.policy_version for episode in EpisodeStore(folder.store("robot")).episodes()]
    assert versions == [2, 2, 3, 3, 4]
    learner = Learner(folder.path, should_stop=lambda: True)
    assert learner.state.updates == 8
    assert len(learner.session.context.online) == 4 * 12


def test_a_session_knows_the_demonstrations_of_its_run_by_their_content(
    tmp_path: Path, robot_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(robot_run, tmp_path / "project/run")
    demos = Path(json.loads((run / "config.json").read_text())["demos"] or run / "demonstrations.npz")
    data = tmp_path / "project/data.npz"
    shutil.copyfile(demos, data)
    write_inputs(run, data, load_npz(data).episodes)
    for file in (run / "checkpoints").glob("*/config.json"):
        about = json.loads(file.read_text())
        about["config"]["demos"] = "gone/data.npz"
        file.write_text(json.dumps(about))
    shutil.move(tmp_path / "project", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    config = RobotRunConfig(
        robot="fake", robot_options=FAKE, reset="none", learning=LearningConfig(place="inline")
    )
    folder = create(tmp_path / "session", tmp_path / "moved/run", config)
    (tmp_path / "moved/data.npz").rename(tmp_path / "moved/run/copy.npz")
    with pytest.raises(DataError, match=r"do not exist in .*moved/data\.npz"):
        Learner(folder.path)
    shutil.copyfile(tmp_path / "moved/run/copy.npz", tmp_path / "moved/data.npz")
    assert Learner(folder.path, should_stop=lambda: True).state.updates == 0


def test_learner_in_its_own_process_is_killed_and_continues(
    make_session: Callable[..., RobotFolder],
) -> None:
    folder = make_session("process")
    notes: list[str] = []
    killed: list[int] = []
    with RobotActor(folder) as actor:
        learner = LearnerProcess(folder.path, niceness=0, restarts=1, note=notes.append)
        learner.start()
        actor.follow_weights()
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s and not (killed and learner_has_learnt(folder, killed[0])):
            actor.run(1)
            learner.watch()
            if not killed and status(folder).get("updates", 0) >= 4 and learner.pid is not None:
                os.kill(learner.pid, signal.SIGKILL)
                killed.append(status(folder)["updates"])
                assert actor.run(2) == "2 episodes are done"
        learner.stop()
    assert killed, "the learner never began"
    assert any("started again" in note for note in notes)
    final = status(folder)
    assert final["updates"] > killed[0]
    episodes = list(EpisodeStore(folder.store("robot")).episodes())
    assert not any(episode.interrupted for episode in episodes)
    assert max(episode.policy_version for episode in episodes) > 1
    assert final["episodes"] <= len(episodes)


def test_a_killed_robot_process_takes_its_learner_along_and_resumes(
    make_session: Callable[..., RobotFolder],
) -> None:
    folder = make_session("process")
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_run_session, args=(str(folder.path),))
    process.start()
    until_s = time.monotonic() + WAIT_S
    served = folder.serving("robot")
    while (status(folder).get("updates", 0) < 4 or not served.is_file()) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    before = EpisodeStore(folder.store("robot"))
    with learner_lock(folder.path, wait_s=60):
        learnt = status(folder)
    assert learnt["updates"] >= 4
    acted = json.loads(served.read_text(encoding="utf-8"))["acting"]
    with RobotActor(folder) as actor:
        assert actor.slot.version == acted
        actor.run(1)
        used = actor.session.use.episodes
    after = EpisodeStore(folder.store("robot"))
    assert set(before.uids) <= set(after.uids)
    assert used + sum(after.summary(number).interrupted for number in after.numbers) >= len(after)
    learner = Learner(folder.path, should_stop=lambda: True)
    assert learner.state.updates >= learnt["updates"] - 4


def test_an_episode_that_was_stored_and_not_counted_is_counted_at_the_next_start(
    make_session: Callable[..., RobotFolder],
) -> None:
    folder = make_session("none")
    with RobotActor(folder) as actor:
        actor.run(1)
        first = folder.interaction("robot").read_text(encoding="utf-8")
        actor.run(1)
        counted = actor.session.use
    folder.interaction("robot").write_text(first, encoding="utf-8")
    with RobotActor(folder) as actor:
        assert actor.session.use.episodes == counted.episodes
        assert actor.session.use.minutes == pytest.approx(counted.minutes)


def _run_session(folder: str) -> None:
    with RobotActor(RobotFolder(folder)) as actor:
        run_session(actor)


def learner_has_learnt(folder: RobotFolder, updates: int) -> bool:
    return status(folder).get("updates", 0) > updates + 4


def test_only_one_learner_per_session(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session("process")
    with learner_lock(folder.path), pytest.raises(DataError, match="has a learner already"):
        with learner_lock(folder.path):
            pass


def test_corrected_labels_reach_the_learner(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session("inline", budget=InteractionBudget(episodes=2))
    with RobotActor(folder) as actor:
        run_session(actor)
    store = EpisodeStore(folder.store("robot"))
    store.relabel(0, LabelChange(source="operator", discard=True))
    store.relabel(1, LabelChange(source="operator", success=True))
    learner = Learner(folder.path, should_stop=lambda: True)
    assert learner.session.context.online.num_episodes == 1
    assert learner.session.context.online.num_imitable_steps == 12


@pytest.mark.parametrize(
    ("rewards", "success", "words"),
    [
        (-1.0, None, "those of the session in ["),
        (0.0, True, "2 of 2 episodes of the session"),
    ],
)
def test_a_learner_compares_the_rewards_of_a_session_with_the_demonstrated_ones(
    rewards: float, success: bool | None, words: str, make_session: Callable[..., RobotFolder]
) -> None:
    folder = make_session("elsewhere")
    task = folder.task()
    EpisodeStore.create(folder.store("robot"), task)
    recorded = Episode(
        observations=np.zeros((13, 4)),
        actions=np.zeros((12, 2)),
        rewards=np.full(12, rewards),
        terminated=success is True,
        truncated=success is None,
        success=success,
        chunk_starts=np.arange(12) % 4 == 0,
    )
    with StoreWriter(folder.store("robot"), flush="never") as writer:
        for _ in range(2):
            writer.add(recorded)
    notes: list[str] = []
    learner = Learner(
        folder.path, should_stop=lambda: any("rewards:" in note for note in notes), progress=Notes(notes)
    )
    learner.run()
    (finding,) = read_findings(folder.path)
    assert words in str(finding["text"]) and notes.count(str(finding["text"])) == 1


class Notes:
    """Progress that keeps what is said."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def stage_started(self, name: str, total: int) -> None: ...

    def advanced(self, name: str, n: int, metrics: object) -> None: ...

    def stage_finished(self, name: str, summary: object) -> None: ...

    def note(self, text: str) -> None:
        self._notes.append(text)
