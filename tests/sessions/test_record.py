"""Recording demonstrations: what is on file, labels by key, going on, and ends that lose nothing."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serfn.cli.main import main
from serfn.core.errors import ConfigError, DataError
from serfn.data.datasets import load_demonstrations
from serfn.data.store.store import EpisodeStore
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.clock import ManualClock
from serfn.robot.contract import Robot
from serfn.robot.keyboard import KeyboardOperator
from serfn.robot.teleoperation import KeyboardJog
from serfn.sessions.config import LearningConfig, RobotRunConfig
from serfn.sessions.late_labels import LATE_LABEL_S
from serfn.sessions.record import kept_episodes, record, recording_session
from serfn.sessions.robots import make_robot
from serfn.sessions.session import RobotSession, SilentWatcher
from serfn.sessions.teleoperators import make_teleoperator

DIAGNOSTIC = "simulated:diagnostic"


class Notes(SilentWatcher):
    """Keeps what people should know."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def config(**changes: Any) -> RobotRunConfig:
    settings = {"learning": LearningConfig(place="none"), "real_time": False, "episode_s": 8.0}
    return RobotRunConfig(**{**settings, **changes})


def scripted(folder: Path, **changes: Any) -> tuple[RobotSession, Notes]:
    clock, notes = ManualClock(), Notes()
    robot = make_robot(DIAGNOSTIC, {}, clock)
    session = recording_session(
        robot,
        make_teleoperator("scripted", robot, seed=1),
        folder,
        config(**changes),
        clock=clock,
        watcher=notes,
    )
    return session, notes


def test_every_step_is_what_was_executed_and_people_are_named_as_its_source(tmp_path: Path) -> None:
    session, _ = scripted(tmp_path / "demos")
    with session:
        assert record(session, 3) == "3 episodes are recorded"
    found = load_demonstrations(tmp_path / "demos")
    assert len(found.episodes) == 3
    for episode in found.episodes:
        assert episode.interventions is not None and episode.interventions.all()
        assert episode.success is not None
        assert np.abs(episode.actions).max() <= 1.0
    assert found.control_hz == 10.0
    # The demonstrator goes round the obstacle: most of its episodes succeed.
    assert sum(bool(episode.success) for episode in found.episodes) >= 2


def test_recording_again_goes_on_where_it_stopped(tmp_path: Path) -> None:
    for episodes in (1, 3, 3):
        session, _ = scripted(tmp_path / "demos")
        with session:
            record(session, episodes)
    assert len(EpisodeStore(tmp_path / "demos")) == kept_episodes(tmp_path / "demos") == 3
    assert session.use.episodes == 3


class Scene(FakeRobot):
    """A fake robot without a scene of its own: a person resets it."""


def by_hand(
    folder: Path, keys: Callable[[KeyboardOperator, int], None]
) -> tuple[RobotSession, KeyboardOperator, ManualClock, Notes]:
    """Return a session with a person who presses keys at each control step, told its number."""
    clock, notes = ManualClock(), Notes()
    robot: Robot = Scene(clock, joints=2, control_hz=50.0)
    jog = KeyboardJog(robot.info.action)
    person = KeyboardOperator(jog)
    steps = [0]

    class Pressing(KeyboardJog):
        def get_action(self) -> dict[str, float]:
            keys(person, steps[0])
            steps[0] += 1
            return jog.get_action()

        def send_feedback(self, feedback: Any) -> None:
            jog.send_feedback(feedback)

    session = recording_session(
        robot,
        Pressing(robot.info.action),
        folder,
        config(reset="none", episode_s=0.5),
        clock=clock,
        person=person,
        watcher=notes,
        confirmed=True,
    )
    return session, person, clock, notes


def test_keys_jog_the_robot_and_success_ends_the_episode(tmp_path: Path) -> None:
    def keys(person: KeyboardOperator, step: int) -> None:
        person.press("s" if step == 10 else "+")

    session, _, _, _ = by_hand(tmp_path / "demos", keys)
    with session:
        outcome = session.run_episode()
    assert outcome is not None and outcome.report.ending.reason == "success"
    episode = EpisodeStore(tmp_path / "demos").episode(0)
    assert episode.success is True and episode.success_source == "operator"
    moved = episode.actions[-1] - episode.actions[0]
    assert moved[0] > 0.05 and moved[1] == pytest.approx(0.0, abs=1e-6)


def test_an_episode_is_labelled_after_its_end_but_not_for_ever(tmp_path: Path) -> None:
    session, person, clock, notes = by_hand(tmp_path / "demos", lambda person, step: None)
    with session:
        session.run_episode()
        clock.sleep_until(clock.now() + LATE_LABEL_S - 1)
        person.press("s")
        assert session.run_episode() is not None
        clock.sleep_until(clock.now() + LATE_LABEL_S + 1)
        person.press("s")
        assert session.run_episode() is not None
        person.press("d")
        session.request_end()
        session.run_episode()
    store = EpisodeStore(tmp_path / "demos")
    rows = [store.summary(number) for number in store.numbers]
    assert [row.success for row in rows] == [True, False, False]
    assert [row.discard for row in rows] == [False, False, True]
    # Its steps stay as they were: a late word does not make the last step a terminal one.
    assert not rows[0].terminated
    assert kept_episodes(tmp_path / "demos") == 2
    assert any("comes too late" in note for note in notes.notes)


def test_discarded_episodes_are_recorded_again(tmp_path: Path) -> None:
    def keys(person: KeyboardOperator, step: int) -> None:
        if step == 5:
            person.press("d")

    session, _, _, _ = by_hand(tmp_path / "demos", keys)
    with session:
        record(session, 2)
    assert len(EpisodeStore(tmp_path / "demos")) == 3
    assert kept_episodes(tmp_path / "demos") == 2


def test_a_full_disk_ends_the_recording_between_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = scripted(tmp_path / "demos")
    with session:
        record(session, 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000_000))
        reason = record(session, 5)
    assert "has 3 MB left" in reason and "make room" in reason
    assert kept_episodes(tmp_path / "demos") == 1


def test_another_robot_does_not_record_into_the_same_folder(tmp_path: Path) -> None:
    session, _ = scripted(tmp_path / "demos")
    with session:
        record(session, 1)
    clock = ManualClock()
    robot = FakeRobot(clock, joints=2, control_hz=50.0)
    with pytest.raises(DataError, match="store"):
        recording_session(
            robot,
            KeyboardJog(robot.info.action),
            tmp_path / "demos",
            config(reset="none"),
            clock=clock,
            confirmed=True,
        )


def test_hardware_does_not_move_before_somebody_confirmed_its_limits(tmp_path: Path) -> None:
    clock = ManualClock()
    robot = FakeRobot(clock, joints=2, control_hz=50.0)
    robot._info = dataclasses.replace(robot.info, name="hand", simulated=False)
    with pytest.raises(ConfigError, match="limits"):
        recording_session(
            robot, KeyboardJog(robot.info.action), tmp_path / "demos", config(reset="none"), clock=clock
        )
    assert not (tmp_path / "demos").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--teleop", "keyboard"], "keys need a terminal"),
        (["--teleop", "zmq:here"], "is no address of a stream"),
        (["--teleop", "lerobot:so101"], "needs LeRobot"),
        (["--teleop", "glove"], "glove"),
        (["--robot", "fake", "--teleop", "scripted"], "no script for robot 'fake'"),
        (["--teleop", "scripted", "--speed", "0"], "speed is 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demos"
    assert main(["robot", "record", "--robot", DIAGNOSTIC, "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert not out.exists()


def test_a_teleoperator_of_lerobot_is_made_from_its_name_and_fields(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stand-in with the functions of `lerobot.teleoperators`: the package needs another Python."""
    made: list[tuple[str, dict[str, str]]] = []

    class Arm:
        is_connected = False
        action_features = dict.fromkeys(("joint0.pos", "joint1.pos"), float)

        def connect(self, calibrate: bool = True) -> None:
            self.is_connected = True

        def get_action(self) -> dict[str, float]:
            return {"joint0.pos": 0.1, "joint1.pos": 0.2}

        def disconnect(self) -> None:
            self.is_connected = False

    class TeleoperatorConfig:
        @staticmethod
        def get_choice_class(kind: str) -> Callable[..., tuple[str, dict[str, str]]]:
            if kind != "arm":
                raise KeyError(kind)
            return lambda **fields: (kind, fields)

    def make(chosen: tuple[str, dict[str, str]]) -> Arm:
        made.append(chosen)
        return Arm()

    package, module = ModuleType("lerobot"), ModuleType("lerobot.teleoperators")
    vars(module).update(TeleoperatorConfig=TeleoperatorConfig, make_teleoperator_from_config=make)
    monkeypatch.setitem(sys.modules, "lerobot", package)
    monkeypatch.setitem(sys.modules, "lerobot.teleoperators", module)
    robot = FakeRobot(ManualClock(), joints=2, control_hz=50.0)
    assert robot.info.action.names == ("joint0.pos", "joint1.pos")
    device = make_teleoperator("lerobot:arm,port=/dev/ttyACM0,id=left", robot)
    device.connect()
    assert device.get_action() == {"joint0.pos": 0.1, "joint1.pos": 0.2}
    assert made == [("arm", {"port": "/dev/ttyACM0", "id": "left"})]
    with pytest.raises(ConfigError, match="no teleoperator 'leg'"):
        make_teleoperator("lerobot:leg", robot)
