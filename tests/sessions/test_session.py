from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.core.errors import ConfigError, DataError
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import Recording
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.budget import InteractionBudget
from serfn.robot.clock import ManualClock
from serfn.robot.keyboard import KeyboardOperator
from serfn.robot.teleoperation import KeyboardJog
from serfn.sessions.actor import RobotActor
from serfn.sessions.config import LearningConfig, RobotRunConfig
from serfn.sessions.folder import RobotFolder, create
from serfn.sessions.session import SilentWatcher

pytestmark = pytest.mark.slow

FAKE = {"joints": 2, "control_hz": 50.0}
WAIT_S = 600
"""Far more than needed: a busy machine may be slow, never wrong."""
TIMEOUT = {"kind": "timeout", "begin_s": 0.1}


class Broken:
    """An actor whose chunks come out changed."""

    chunk_size = n_action_steps = 4

    def __init__(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self._change = change

    def act(self, observations: np.ndarray) -> np.ndarray:
        return self._change(np.zeros((len(observations), 4, 2), np.float32))

    def reset(self, seed: int) -> None:
        pass


class Notes(SilentWatcher):
    """Keeps what people should know."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def note(self, text: str) -> None:
        self._notes.append(text)


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

    def press_at(self, keys: dict[int, str]) -> None:
        """Press keys so many polls from now."""
        self._keys = {self._polls + poll: key for poll, key in keys.items()}

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


def test_a_restarted_session_goes_on_with_its_budget(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session(budget=InteractionBudget(episodes=3))
    with RobotActor(folder) as actor:
        actor.run(2)
    with RobotActor(folder) as actor:
        assert "budget of 3 episodes" in actor.run()
    store = EpisodeStore(folder.store("robot"))
    assert len(store) == 3
    assert len({store.summary(number).seed for number in store.numbers}) == 3


def test_labels_and_discards_of_the_operator_are_kept(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session()
    person = KeysAtStep({4: "2", 6: "s"})
    with RobotActor(folder, person=person) as actor:
        actor.run(1)
        person.press_at({3: "d"})
        actor.run(1)
        used = actor.session.use
    store = EpisodeStore(folder.store("robot"))
    first, second = store.summary(0), store.summary(1)
    assert (first.success, first.success_source, first.stage, first.discard) == (True, "operator", "2", False)
    assert first.terminated
    assert second.discard
    assert len(list(store.episodes())) == 1
    assert (used.episodes, used.discarded) == (2, 1)


def test_taking_over_is_recorded_and_counted(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session(budget=InteractionBudget(interventions=1))
    jog = KeyboardJog(FakeRobot(ManualClock(), 2).info.action, step=0.05)
    person = KeysAtStep({3: "t", 4: "+", 5: "+", 8: "h"}, jog)
    with RobotActor(folder, person=person, teleoperator=jog) as actor:
        assert "1 interventions" in actor.run()
    episode = EpisodeStore(folder.store("robot")).episode(0)
    assert episode.interventions is not None
    taken = np.flatnonzero(episode.interventions)
    assert taken.size >= 3
    assert (np.diff(taken) == 1).all()
    assert episode.proposed_actions is not None
    assert not np.array_equal(episode.proposed_actions[taken], episode.actions[taken])
    # A person's steps are decisions of their own: the critic's chunks may start at each of them.
    assert episode.chunk_starts[taken].all()


def test_a_resumed_session_keeps_interventions_and_counts_what_a_crash_hid(
    make_session: Callable[..., RobotFolder],
) -> None:
    folder = make_session(budget=InteractionBudget(interventions=2))
    jog = KeyboardJog(FakeRobot(ManualClock(), 2).info.action, step=0.05)
    person = KeysAtStep({3: "t", 4: "+", 8: "h"}, jog)
    with RobotActor(folder, person=person, teleoperator=jog) as actor:
        actor.run(1)
        assert actor.session.use.interventions == 1
    # As if the process had died between committing the episode and counting it.
    folder.interaction("robot").unlink()
    with RobotActor(folder, person=KeysAtStep({3: "t", 8: "h"}, jog), teleoperator=jog) as actor:
        assert actor.session.use.interventions == 1
        assert "2 interventions" in actor.run()
    for episode in EpisodeStore(folder.store("robot")).episodes():
        assert episode.interventions is not None
        assert episode.interventions.any()


def test_a_stop_latches_until_a_person_releases_it(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session()
    person = KeysAtStep({3: " "})
    with RobotActor(folder, person=person) as actor:
        outcome = actor.session.run_episode()
        assert outcome is not None
        assert outcome.report.ending.reason == "operator_stop"
        assert outcome.report.state == "holding"
        person.keyboard.press("u")
        again = actor.session.run_episode()
        assert again is not None
        assert again.report.ending.reason == "time_limit"
        person.press_at({2: " ", 3: " "})
        actor.session.run_episode()
        person.keyboard.press("q")
        assert actor.session.run_episode() is None
        assert actor.session.ended is not None


def test_without_a_person_a_stop_ends_the_session(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session(episode_s=5.0, robot_options={**FAKE, "impairments": {"faults": [TIMEOUT]}})
    with RobotActor(folder) as actor:
        reason = actor.run()
    assert "stopped" in reason
    assert actor.session.robot.state == "closed"
    episode = EpisodeStore(folder.store("robot")).episode(0)
    assert episode.truncated
    assert not episode.terminated


def test_a_pause_waits_for_the_person(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session()
    person = KeysAtStep({3: "p", 10: "\n"})
    with RobotActor(folder, person=person) as actor:
        outcome = actor.session.run_episode()
        assert outcome is not None
        assert outcome.report.ending.reason == "paused"
        assert actor.session.run_episode() is not None


def test_a_person_resets_the_scene(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session(reset="person")
    with pytest.raises(ConfigError, match="nobody"):
        RobotActor(folder)
    person = KeysAtStep({2: "\n"})
    with RobotActor(folder, person=person) as actor:
        actor.run(1)
        assert actor.session.use.resets == 1


def test_nan_from_the_policy_holds_and_is_not_recorded(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session()
    with RobotActor(folder) as actor:
        actor.slot.offer(Broken(lambda chunk: chunk * np.nan), 9)
        actor.run(1)
    episode = EpisodeStore(folder.store("robot")).episode(0)
    assert np.isfinite(episode.actions).all()
    assert episode.policy_version == 9
    assert np.abs(np.diff(episode.actions, axis=0)).max() == 0.0


def test_late_inference_holds_and_catches_up(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session()
    slow = Broken(lambda chunk: (time.sleep(0.05), chunk)[1])
    with RobotActor(folder) as actor:
        actor.slot.offer(slow, 2)
        outcome = actor.session.run_episode()
        assert outcome is not None
        assert outcome.report.ending.reason == "time_limit"
        assert actor.session.loop.counts["chunks:late"] > 0
    episode = EpisodeStore(folder.store("robot")).episode(0)
    assert episode.length == 12
    assert episode.metrics["safety_steps"] > 0


def test_a_full_disk_stops_the_robot_and_loses_nothing_committed(
    make_session: Callable[..., RobotFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_session()
    with RobotActor(folder) as actor:
        actor.run(1)
        full = {"from": 2}
        append = Recording.append

        def fail(recording: Recording, chunk: Any) -> None:
            full["from"] -= 1
            if full["from"] < 0:
                raise DataError("cannot write the journal: no space left on device; free space")
            append(recording, chunk)

        monkeypatch.setattr(Recording, "append", fail)
        reason = actor.run()
        assert "no space left" in reason
        assert actor.session.robot.state == "holding"
        monkeypatch.undo()
    store = EpisodeStore(folder.store("robot"))
    assert store.episode(0).length == 12
    with RobotActor(folder) as actor:
        actor.run(1)
    store.refresh()
    lengths = [episode.length for episode in store.episodes()]
    interrupted = [episode.interrupted for episode in store.episodes()]
    assert lengths == [12, 8, 12]
    assert interrupted == [False, True, False]


def test_ctrl_c_brings_the_robot_to_rest_and_keeps_the_episode(
    make_session: Callable[..., RobotFolder],
) -> None:
    class Interrupts(KeysAtStep):
        def poll(self) -> Any:
            if self._polls == 6:
                self._polls += 1
                raise KeyboardInterrupt
            return super().poll()

    folder = make_session()
    with pytest.raises(KeyboardInterrupt), RobotActor(folder, person=Interrupts({})) as actor:
        actor.run()
    assert actor.session.robot.closed_from == "parked"
    episode = EpisodeStore(folder.store("robot")).episode(0)
    assert 4 <= episode.length < 12
    assert json.loads(folder.interaction("robot").read_text(encoding="utf-8"))["episodes"] == 1


def test_a_killed_actor_goes_on_where_it_was(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session(episode_s=60.0)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_act, args=(str(folder.path),), daemon=True)
    process.start()
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s:
        journals = list((folder.store("robot") / "journal").glob("*.journal"))
        if journals and journals[0].stat().st_size > 4000:
            break
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    notes: list[str] = []
    with RobotActor(folder, watcher=Notes(notes)) as actor:
        assert any("unfinished" in note for note in notes)
        # The robot did move: what was interrupted is counted too.
        assert actor.session.use.episodes == 1
    (episode,) = EpisodeStore(folder.store("robot")).episodes()
    assert episode.interrupted
    assert episode.length % 4 == 0
    assert episode.length > 12


def test_policies_that_do_not_fit_are_refused(make_session: Callable[..., RobotFolder]) -> None:
    folder = make_session(robot_options={"joints": 3})
    with pytest.raises(ConfigError, match="trained for it"):
        RobotActor(folder)


@pytest.mark.parametrize("steps", [None, 3])
def test_a_session_executes_as_many_steps_of_a_chunk_as_training_did_unless_it_says_otherwise(
    make_session: Callable[..., RobotFolder], steps: int | None
) -> None:
    folder = make_session(n_action_steps=steps, budget=InteractionBudget(episodes=1))
    with RobotActor(folder, clock=ManualClock()) as actor:
        actor.run(episodes=1)
    (episode,) = EpisodeStore(folder.store("robot")).episodes()
    starts = np.flatnonzero(episode.chunk_starts)
    assert len(starts) > 1 and set(np.diff(starts)) == {4 if steps is None else steps}


def test_the_robot_rests_between_episodes(make_session: Callable[..., RobotFolder]) -> None:
    clock = ManualClock()
    folder = make_session(rest_s=7.0, budget=InteractionBudget(episodes=3))
    with RobotActor(folder, clock=clock) as actor:
        begun = clock.now()
        actor.run()
        lasted = clock.now() - begun
    # Three episodes of 12 steps at 50 Hz, and nothing else that takes time on this clock.
    assert 2 * 7.0 <= lasted - 3 * 12 / 50 <= 3 * 7.0 + 1.0


def test_a_folder_is_set_up_once(
    make_session: Callable[..., RobotFolder], tmp_path: Path, robot_run: Path
) -> None:
    folder = make_session()
    with pytest.raises(ConfigError, match="already holds"):
        create(folder.path, robot_run, RobotRunConfig(robot="fake"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    with pytest.raises(ConfigError, match="not empty"):
        create(tmp_path / "other", robot_run, RobotRunConfig(robot="fake"))


def _act(folder: str) -> None:
    with RobotActor(RobotFolder(folder)) as actor:
        actor.run()
