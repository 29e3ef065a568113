from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from serfn.core.errors import ConfigError
from serfn.robot.chunk_buffer import ExecutionConfig
from serfn.robot.contract import Action, Observation, OperatorEvent, RobotError, Verdict
from serfn.robot.control_loop import LoopConfig


class Teleoperator:
    """A device that wants one position of the first joint."""

    name = "constant"
    action_features = {"joint0.pos": float}  # noqa: RUF012
    is_connected = True

    def __init__(self, position: float = 0.3, error: Exception | None = None) -> None:
        self.position, self.error = position, error
        self.feedback: dict[str, float] = {}

    def connect(self, calibrate: bool = True) -> None: ...

    def disconnect(self) -> None: ...

    def get_action(self) -> Action:
        if self.error is not None:
            raise self.error
        return {"joint0.pos": self.position}

    def send_feedback(self, feedback: Any) -> None:
        self.feedback = dict(feedback)


class Referee:
    """Rewards the number of the judgement, and ends the task at one of them."""

    def __init__(self, over_at: int = 1000) -> None:
        self.calls, self.over_at = 0, over_at

    def judge(self, observation: Observation) -> Verdict:
        self.calls += 1
        over = self.calls == self.over_at
        return Verdict(float(self.calls), over, success=over, metrics={"score": float(self.calls)})


def test_what_is_recorded_is_what_was_executed(make_rig: Any) -> None:
    rig = make_rig(max_steps=20, referee=Referee())
    report = rig.run()
    steps, ending = rig.sink.steps, rig.sink.ending
    assert (report.steps, len(steps), report.ending) == (20, 20, ending)
    assert (ending.reason, ending.terminated, ending.truncated) == ("time_limit", False, True)
    sent = np.array(rig.robot.sent[:20], np.float32)
    assert np.array_equal(rig.sink.column("action"), sent)
    assert rig.sink.column("proposed") == pytest.approx(rig.actor.plan(np.arange(20)), abs=1e-6)
    # The reward of a step is what the referee said of the observation after it.
    assert rig.sink.column("reward").tolist() == list(range(1, 21))
    assert rig.sink.column("time_s") == pytest.approx(0.05 * np.arange(20))
    assert ending.time_s == pytest.approx(1.0)
    assert ending.metrics == {"score": 20.0}
    # What a policy decided from is what was recorded.
    starts = np.flatnonzero(rig.sink.column("chunk_start"))
    assert starts.tolist() == [0, 8, 16]
    assert np.array_equal(np.array(rig.actor.seen), rig.sink.column("observation")[starts])
    assert set(rig.sink.column("policy_version")) == {7}
    # The observation after the last step is the robot's, one step on.
    velocity = ending.observation[3]
    moved = (ending.observation[0] - steps[-1].observation[0]) * 20
    assert velocity == pytest.approx(moved, rel=1e-3)


def test_limits_are_shown_before_anything_moves_and_the_robot_parks(make_rig: Any) -> None:
    rig = make_rig()
    rig.supervised.open()
    assert "joint0.pos" in rig.announced[0]
    assert not rig.robot.sent
    rig.supervised.close()
    assert not rig.robot.sent, "a robot that was never started is not commanded"
    rig.run()
    assert rig.robot.sent[-1].tolist() == [0.0, 0.0, 0.0]
    assert rig.supervised.closed_from == "parked"
    assert not rig.robot.is_connected
    rig.assert_inside_envelope()


def test_an_uncalibrated_robot_is_not_moved(make_rig: Any) -> None:
    rig = make_rig(robot={"calibrated": False})
    with pytest.raises(RobotError, match="not calibrated"):
        rig.run()
    assert not rig.robot.sent
    assert not rig.robot.is_connected


def test_a_robot_without_a_rest_pose_holds_where_it_is(make_rig: Any) -> None:
    rig = make_rig(robot={"rest": False}, max_steps=10)
    rig.run()
    assert rig.supervised.closed_from == "holding"
    assert np.abs(rig.robot.sent[-1] - rig.robot.sent[9]).max() < 0.2


@pytest.mark.parametrize("n_action_steps", [1, 3])
def test_receding_horizon_executes_the_beginning_of_each_chunk(make_rig: Any, n_action_steps: int) -> None:
    rig = make_rig(max_steps=9, n_action_steps=n_action_steps)
    rig.run()
    assert np.flatnonzero(rig.sink.column("chunk_start")).tolist() == list(range(0, 9, n_action_steps))
    plans = 8 * (np.arange(9) // n_action_steps) + np.arange(9) % n_action_steps
    assert rig.sink.column("proposed") == pytest.approx(rig.actor.plan(plans), abs=1e-6)


def test_asynchronous_chunks_are_decided_ahead_and_meet_without_a_jump(make_rig: Any) -> None:
    class Aware:
        """Plans the wave from the step in which it was asked."""

        chunk_size = n_action_steps = 8

        def __init__(self) -> None:
            self.asked: list[int] = []

        def act(self, observations: np.ndarray) -> np.ndarray:
            self.asked.append(round((rig.clock.now() - 100.0) / 0.05))
            steps = self.asked[-1] + np.arange(8)
            return rig.actor.plan(steps)[None]

        def reset(self, seed: int) -> None: ...

    actor = Aware()
    rig = make_rig(actor=actor, execution=ExecutionConfig(lead_steps=2, blend_steps=2), max_steps=40)
    rig.run()
    assert actor.asked[:4] == [0, 4, 10, 16]
    assert np.flatnonzero(rig.sink.column("chunk_start"))[:4].tolist() == [0, 6, 12, 18]
    assert rig.sink.column("proposed") == pytest.approx(rig.actor.plan(np.arange(40)), abs=1e-6)
    assert not rig.sink.column("safety").any()


def test_the_task_ends_when_the_referee_says_so(make_rig: Any) -> None:
    rig = make_rig(referee=Referee(over_at=5))
    ending = rig.run().ending
    assert (ending.reason, ending.terminated, ending.truncated) == ("terminated", True, False)
    assert (ending.success, ending.success_source) == (True, "referee")
    assert len(rig.sink.steps) == 5


@pytest.mark.parametrize(
    ("command", "terminated", "success", "keep"),
    [("success", True, True, True), ("failure", True, False, True), ("discard", False, False, False)],
)
def test_a_person_labels_the_end(
    make_rig: Any, command: Any, terminated: bool, success: bool | None, keep: bool
) -> None:
    rig = make_rig(script={12: OperatorEvent(command)})
    ending = rig.run().ending
    assert (ending.reason, ending.terminated, ending.truncated) == (command, terminated, not terminated)
    assert (ending.success, ending.keep) == (success, keep)
    assert ending.success_source == ("operator" if terminated else "referee")
    assert len(rig.sink.steps) == 12


def test_an_episode_without_steps_is_not_kept(make_rig: Any) -> None:
    ending = make_rig(script={0: OperatorEvent("success")}).run().ending
    assert not ending.keep


def test_a_pause_ends_the_episode_and_another_one_may_go_on(make_rig: Any) -> None:
    rig = make_rig(script={12: OperatorEvent("pause")}, max_steps=20)
    with rig.supervised:
        from serfn.robot.recording import EpisodeHeader

        first = rig.loop.run_episode(EpisodeHeader(0, "fake"))
        here = rig.supervisor.position
        assert (first.ending.reason, first.ending.truncated, first.cause) == ("paused", True, None)
        assert first.state == "holding"
        second = rig.loop.run_episode(EpisodeHeader(1, "fake"))
        assert second.ending.reason == "time_limit"
        assert np.abs(rig.sink.steps[0].action - here).max() < 0.16
    rig.assert_inside_envelope()


def test_a_person_takes_over_and_hands_back(make_rig: Any) -> None:
    device = Teleoperator(0.3)
    script = {10: OperatorEvent("take_over"), 20: OperatorEvent("hand_back"), 15: OperatorEvent("stage", 4)}
    rig = make_rig(teleoperator=device, script=script, max_steps=40)
    rig.run()
    interventions = rig.sink.column("intervention")
    assert np.flatnonzero(interventions).tolist() == list(range(10, 20))
    actions, proposed = rig.sink.column("action"), rig.sink.column("proposed")
    assert actions[19, 0] == pytest.approx(0.3)
    assert actions[19, 1] == pytest.approx(actions[10, 1], abs=0.1), "joints left out keep their command"
    assert device.feedback["joint0.pos"] == pytest.approx(actions[9, 0], abs=1e-6)
    assert proposed[12] == pytest.approx(rig.actor.plan(np.array([12]))[0], abs=1e-6), "the policy's wish"
    starts = rig.sink.column("chunk_start")
    assert starts[10:21].all(), "each step of a person is a decision, and so is the first one after"
    assert rig.sink.column("stage").tolist() == [0] * 15 + [4] * 25
    rig.assert_inside_envelope()


def test_a_person_passes_the_supervisor_too(make_rig: Any) -> None:
    for device in (Teleoperator(1e9), Teleoperator(math.nan), Teleoperator(error=OSError("unplugged"))):
        rig = make_rig(teleoperator=device, script={5: OperatorEvent("take_over")}, max_steps=30)
        rig.run()
        assert rig.sink.column("safety")[6:].all()
        rig.assert_inside_envelope()


def test_taking_over_without_a_device_changes_nothing(make_rig: Any) -> None:
    rig = make_rig(script={5: OperatorEvent("take_over")}, max_steps=10)
    rig.run()
    assert not rig.sink.column("intervention").any()
    assert rig.loop.counts["take_over:no_teleoperator"] == 1


def test_images_are_recorded_with_their_observation(make_rig: Any) -> None:
    rig = make_rig(robot={"image": (4, 6, 3)}, max_steps=3)
    ending = rig.run().ending
    assert all(record.images["camera"].shape == (4, 6, 3) for record in rig.sink.steps)
    assert ending.images["camera"].dtype == np.uint8


def test_punctuality_is_measured(make_rig: Any) -> None:
    rig = make_rig(max_steps=30)
    rig.run()
    summary = rig.loop.timing.summary()
    assert (summary.steps, summary.missed) == (30, 0)
    assert summary.jitter_max_ms == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "fields",
    [{"max_steps": 0}, {"wait_fraction": 0.9}, {"deadline_fraction": 1.5}, {"first_chunk_s": 0.0}],
)
def test_impossible_settings_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LoopConfig(**{"max_steps": 10, **fields})
