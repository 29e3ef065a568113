from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.core.errors import ConfigError, DataError
from serfn.data.store.store import EpisodeStore
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.budget import InteractionBudget
from serfn.robot.clock import ManualClock
from serfn.robot.keyboard import KeyboardOperator
from serfn.robot.teleoperation import KeyboardJog
from serfn.runtime.actor import RobotActor
from serfn.runtime.robot_config import LearningConfig, RobotRunConfig
from serfn.runtime.robot_folder import RobotFolder, create

FAKE = {"joints": 2, "control_hz": 50.0}


class KeysAtStep:
    """Presses keys when the robot has taken so many steps."""

    def __init__(self, keys: dict[int, str], jog: KeyboardJog | None = None) -> None:
        self.keyboard = KeyboardOperator(jog)
        self._keys = dict(keys)
        self._polls = 0

    def poll(self) -> Any:
        if self._polls in self._keys:
            self.keyboard.press(self._keys[self._polls])
        self._polls += 1
        return self.keyboard.poll()

    def session_requests(self) -> Any:
        return self.keyboard.session_requests()


@pytest.fixture
def make_session(tmp_path: Path, robot_run: Path) -> Callable[..., RobotFolder]:
    def build(**options: Any) -> RobotFolder:
        config = RobotRunConfig(
            **{
                "robot": "fake",
                "robot_options": FAKE,
                "reset": "none",
                "learning": LearningConfig(place="none"),
                **options,
            }
        )
        return create(tmp_path / "session", robot_run, config)

    return build


def test_episodes_are_durable_and_counted(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session(budget=InteractionBudget(episodes=3))
    with RobotActor(folder) as actor:
        reason = actor.run()
        assert "3 episodes" in reason
    store = EpisodeStore(folder.store("robot"))
    episodes = list(store.episodes())
    assert [episode.length for episode in episodes] == [12, 12, 12]
    for episode in episodes:
        assert episode.policy_version == 1
        assert episode.truncated
        assert episode.chunk_starts[::4].all()
        assert episode.timestamps_s is not None
        assert episode.proposed_actions is not None
        assert not episode.interrupted
    used = json.loads(folder.interaction("robot").read_text(encoding="utf-8"))
    assert used["episodes"] == 3
    assert used["minutes"] == pytest.approx(36 / 50 / 60)
