"""Robots, judges and workspaces of another package in a session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.cli.main import main
from serfn.core.registry import installed
from serfn.data.store.store import EpisodeStore
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.clock import ManualClock, MonotonicClock
from serfn.robot.contract import Observation, RobotInfo, Verdict
from serfn.robot.parts.registry import build_teleoperator
from serfn.sessions.config import LearningConfig, RobotRunConfig
from serfn.sessions.folder import RobotFolder
from serfn.sessions.robots import make_robot
from serfn.sessions.run import run_robot

HERE = __name__
CONFIG: dict[str, Any] = {"reset": "none", "learning": LearningConfig(place="none")}


class Hand(FakeRobot):
    """A robot object of somebody's own; simulated, to keep the tests short."""

    def __init__(self, clock: Any, fingers: int = 2) -> None:
        super().__init__(clock, fingers, control_hz=50.0)


class Fails:
    def __init__(self) -> None:
        raise OSError("no such port")


class Lacks:
    def connect(self) -> None: ...


class Judge:
    """Ends the episode at the fifth step, with success."""

    def __init__(self, info: RobotInfo) -> None:
        self.joints, self.steps = info.action.dim, 0

    def judge(self, observation: Observation) -> Verdict:
        self.steps += 1
        return Verdict(reward=float(self.joints), terminated=self.steps == 5, success=self.steps == 5)


def half(positions: np.ndarray, observation: Observation) -> np.ndarray:
    return np.clip(positions, -0.01, 0.01)


def number(observation: Observation) -> float:
    return 0.5


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["robot", *words]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


@pytest.mark.parametrize(
    ("robot", "options", "expected"),
    [
        ("Fails", {}, "OSError: no such port"),
        ("Lacks", {}, "is no Robot: Lacks has no name"),
        ("Hand", {"thumbs": 1}, "thumbs"),
        ("Nobody", {}, "has no 'Nobody'"),
        ("CONFIG", {}, "neither a class nor a function"),
    ],
)
def test_a_robot_that_does_not_work_is_one_line(
    robot: str, options: dict[str, Any], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--set=robot_options.{name}={value}" for name, value in options.items()]
    assert expected in refused(capsys, "limits", "--robot", f"{HERE}:{robot}", *words)


def test_unknown_parts_of_a_session_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    robot = ["--robot", "fake", "--policy", "."]
    assert "cannot import 'mylabb.robot'" in refused(
        capsys, "run", "--robot", "mylabb.robot:Arm", "--policy", "."
    )
    assert "rewards" in refused(capsys, "run", *robot, "--reward", "nothing")
    assert "has no 'nothing'" in refused(capsys, "run", *robot, "--workspace", f"{HERE}:nothing")
    assert "is no Referee" in refused(capsys, "run", *robot, "--reward", f"{HERE}:Lacks")


def test_a_robot_is_made_by_name_with_its_options() -> None:
    robot = make_robot(f"{HERE}:Hand", {"fingers": 3}, ManualClock())
    assert isinstance(robot, Hand)
    assert robot.info.action.dim == 3
    assert build_teleoperator("keyboard", robot.info).action_features == robot.action_features


def test_a_session_takes_a_robot_object_a_judge_and_a_workspace(robot_run: Path, tmp_path: Path) -> None:
    config = RobotRunConfig(reward=f"{HERE}:Judge", workspace=f"{HERE}:half", **CONFIG)
    robot = Hand(MonotonicClock())
    folder = tmp_path / "session"
    assert run_robot(robot, robot_run, folder, config=config, episodes=1) == "1 episodes are done"
    episode = EpisodeStore(RobotFolder(folder).store("robot")).episode(0)
    assert (episode.length, episode.terminated, episode.success) == (5, True, True)
    assert episode.rewards.tolist() == [2.0] * 5
    assert np.abs(episode.actions).max() <= 0.01 + 1e-6
    assert max(np.abs(command).max() for command in robot.sent) <= 0.01 + 1e-6
    # A second call goes on with the session; what is passed in counts before the configuration.
    run_robot(robot, robot_run, folder, episodes=1, referee=None, workspace=lambda wanted, seen: wanted * 0)
    second = EpisodeStore(RobotFolder(folder).store("robot")).episode(1)
    assert not second.actions.any()


def test_a_function_judges_too(robot_run: Path, tmp_path: Path) -> None:
    config = RobotRunConfig(reward=f"{HERE}:number", **CONFIG)
    run_robot(Hand(MonotonicClock()), robot_run, tmp_path / "session", config=config, episodes=1)
    episode = EpisodeStore(RobotFolder(tmp_path / "session").store("robot")).episode(0)
    assert episode.rewards.tolist() == [0.5] * episode.length


SCRIPT = """
import sys
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.clock import MonotonicClock
from serfn.sessions.config import LearningConfig, RobotRunConfig
from serfn.sessions.run import run_robot

print("started")
config = RobotRunConfig(reset="none", learning=LearningConfig(episodes_per_round=1, updates_per_episode=1))
robot = FakeRobot(MonotonicClock(), 2, control_hz=50.0)
print(run_robot(robot, sys.argv[1], sys.argv[2], config=config, episodes=2))
"""


def test_a_script_needs_no_guard_around_its_own_code(robot_run: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    words = [sys.executable, str(script), str(robot_run), str(tmp_path / "session")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # The learner's process does not run the script again.
    assert done.stdout.splitlines() == ["started", "2 episodes are done"]
    assert not (tmp_path / "session" / "learner_error.txt").exists()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Install a package that announces parts, as far as Python's metadata go."""

    def announce(package: str, group: str, **parts: str) -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {place}" for name, place in parts.items())
        (folder / "entry_points.txt").write_text(f"[serfn.{group}]\n{lines}\n")
        installed.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    yield announce
    installed.cache_clear()


def test_entry_points_that_do_not_work_are_one_line(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    install("alpha", "robots", broken="nowhere.robot:Arm", twice=f"{HERE}:Hand", thing=f"{HERE}:CONFIG")
    install("beta", "robots", twice=f"{HERE}:Judge", gripper=f"{HERE}:Lacks")
    install("gamma", "tasks", wrong=f"{HERE}:half")
    for name, expected in {
        "broken": "entry point 'broken' (serfn.robots) of package 'alpha' cannot be imported",
        "twice": "two robots are called 'twice'",
        "thing": "is neither a class nor a function",
        "gripper": "is no Robot",
        "grippper": "did you mean 'gripper'",
    }.items():
        assert expected in refused(capsys, "limits", "--robot", name)
    assert "is no serfn.tasks.registry.Task" in refused(capsys, "limits", "--robot", "simulated:wrong")


def test_an_installed_robot_is_found_by_its_name(install: Callable[..., None]) -> None:
    install("delta", "robots", thumb=f"{HERE}:Hand")
    assert isinstance(make_robot("thumb", {"fingers": 1}, ManualClock()), Hand)
