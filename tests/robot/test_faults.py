"""The fault table of docs/robot-safety.md: whatever goes wrong, the hand ends in a defined state."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serfn.robot.adapters.impairments import Fault, Impairments
from serfn.robot.chunk_buffer import ChunkDecision, ExecutionConfig
from serfn.robot.clock import ManualClock
from serfn.robot.contract import OperatorEvent, RobotError, Verdict
from serfn.robot.health import JointHealth
from serfn.robot.inference import InlineInference
from serfn.robot.recording import EpisodeHeader, QueuedSink
from serfn.robot.safety import Intervention


class Script:
    """A policy that says what it is told, chunk by chunk; the last one for ever."""

    chunk_size = 8

    def __init__(self, *chunks: Any, n_action_steps: int = 8) -> None:
        self._chunks, self._next = chunks, 0
        self.n_action_steps = n_action_steps

    def act(self, observations: np.ndarray) -> np.ndarray:
        chunk = self._chunks[min(self._next, len(self._chunks) - 1)]
        self._next += 1
        if isinstance(chunk, BaseException):
            raise chunk
        return np.broadcast_to(np.asarray(chunk, float), (1, 8, 3))

    def reset(self, seed: int) -> None:
        self._next = 0


class Late(InlineInference):
    """Decisions come some time after they are asked for: the k-th after `late_s[k]`, the last for ever."""

    def __init__(self, actor: Any, clock: ManualClock, *late_s: float) -> None:
        super().__init__(actor, clock)
        self._late_s, self._asked, self._ready_s = late_s, 0, -math.inf

    def submit(self, observation: np.ndarray, step: int) -> None:
        super().submit(observation, step)
        late_s = self._late_s[min(self._asked, len(self._late_s) - 1)]
        self._asked, self._ready_s = self._asked + 1, self._clock.now() + late_s

    def collect(self, timeout_s: float = 0.0) -> ChunkDecision | None:
        return super().collect() if self._clock.now() >= self._ready_s else None


def assert_stopped(rig: Any, report: Any, kind: str) -> None:
    """Latched by `kind`, at rest, motors off, the record cut, and nothing moves until a person says so."""
    assert report.cause is not None
    assert report.cause.kind == kind
    assert report.state == "holding"
    assert rig.supervised.closed_from == "holding", "a robot that is stopped does not drive to its rest pose"
    assert rig.supervisor.at_rest
    assert not rig.robot.is_connected
    ending = rig.sink.ending
    assert (ending.terminated, ending.truncated, ending.keep) == (False, True, True)
    assert all(np.isfinite(record.observation).all() for record in rig.sink.steps)
    with rig.supervised, pytest.raises(RobotError, match="stopped"):
        rig.loop.run_episode(EpisodeHeader(1, "fake"))
    rig.supervisor.release()


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("freeze", "stall"),
        ("nan", "stale_observation"),
        ("timeout", "robot_error"),
        ("over_current", "over_current"),
        ("over_temperature", "over_temperature"),
    ],
)
def test_a_fault_that_lasts_stops_the_hand(make_rig: Any, kind: Any, cause: str) -> None:
    rig = make_rig(Fault(kind, 0.5))
    report = rig.run()
    assert report.ending.reason == "fault"
    assert_stopped(rig, report, cause)
    if kind != "timeout":
        rig.assert_inside_envelope()


@pytest.mark.parametrize("kind", ["freeze", "nan", "timeout", "over_current"])
def test_a_fault_that_passes_is_survived(make_rig: Any, kind: Any) -> None:
    rig = make_rig(Fault(kind, 0.5, 0.65))
    report = rig.run()
    assert report.ending.reason == "time_limit"
    assert rig.supervised.closed_from == "parked"
    assert rig.sink.column("action")[-1] == pytest.approx(rig.sink.column("proposed")[-1], abs=1e-6)


def test_a_blocked_joint_stops_the_hand_and_is_relieved(make_rig: Any) -> None:
    rig = make_rig(actor=Script(0.6))
    rig.robot.blocked[1] = True
    report = rig.run()
    assert_stopped(rig, report, "stall")
    assert "joint1.pos" in report.cause.detail
    assert rig.robot.sent[-1][1] == pytest.approx(0.0, abs=1e-6), "the command goes where the joint is"


@pytest.mark.parametrize("state", ["overloaded", "rebooted", "hot", "offline", "fault"])
def test_a_motor_that_its_driver_reports_stops_the_hand(make_rig: Any, state: Any) -> None:
    rig = make_rig(max_steps=100)
    judged: list[int] = []

    class Latch:
        def judge(self, observation: Any) -> Any:
            judged.append(1)
            if len(judged) == 20:
                rig.robot.faults["joint1.pos"] = JointHealth(state, "motor 4", "what the driver says")
            return Verdict()

    rig.loop._referee = Latch()
    report = rig.run()
    assert report.steps <= 22
    assert report.cause.kind == "motor_fault"
    assert re.search(r"motor 4 of joint 'joint1.pos' .*'what the driver says'; \w+", report.cause.detail)
    assert rig.supervisor.at_rest
    with rig.supervised, pytest.raises(RobotError, match=r"motor 4 of joint 'joint1\.pos'"):
        rig.supervisor.release()
        rig.loop.run_episode(EpisodeHeader(1, "fake"))
    rig.robot.connect()
    assert rig.robot.recover(["joint1.pos"]) == ["joint 'joint1.pos' was reset"]
    rig.robot.disconnect()
    assert rig.run().ending.reason == "time_limit"


def test_a_motor_that_goes_on_with_a_warning_is_noted_once(make_rig: Any) -> None:
    rig = make_rig()
    rig.robot.faults["joint0.pos"] = JointHealth("fault", "motor 1", "input_voltage (0x01)", drives=True)
    assert rig.run().ending.reason == "time_limit"
    assert rig.supervisor.counts["motor:warning"] == 1
    assert any("input_voltage" in event.detail for event in rig.supervisor.events)


def test_a_stuck_sensor_of_one_joint_is_found_as_a_stall(make_rig: Any) -> None:
    rig = make_rig(Fault("stuck_joint", 0.2, joint=2), actor=Script(0.0, 0.6))
    assert_stopped(rig, rig.run(), "stall")


@pytest.mark.parametrize("wrong", [math.nan, math.inf, RuntimeError("CUDA error")])
def test_a_policy_that_fails_for_good_stops_the_hand(make_rig: Any, wrong: Any) -> None:
    rig = make_rig(actor=Script(0.2, wrong), max_steps=200)
    report = rig.run()
    assert_stopped(rig, report, "no_proposal")
    assert np.isfinite(rig.sink.column("proposed")).all()
    rig.assert_inside_envelope()


@pytest.mark.parametrize("wrong", [math.nan, RuntimeError("CUDA error")])
def test_a_policy_that_fails_once_is_held_for(make_rig: Any, wrong: Any) -> None:
    rig = make_rig(actor=Script(0.2, wrong, 0.3))
    report = rig.run()
    assert report.ending.reason == "time_limit"
    held = rig.sink.column("safety") & Intervention.HELD != 0
    assert held[8]
    assert not held[10:].any(), "a chunk that cannot be executed is replaced at once"
    assert rig.sink.column("chunk_start")[8:10].all()


def test_huge_proposals_stay_in_the_envelope(make_rig: Any) -> None:
    rig = make_rig(actor=Script(1e308, -1e308, 0.0))
    report = rig.run()
    assert report.cause is None
    assert np.isfinite(rig.sink.column("proposed")).all(), "a float32 record holds no infinity"
    rig.assert_inside_envelope()


@pytest.mark.parametrize("lead_steps", [0, 2])
def test_late_inference_continues_the_old_chunk(make_rig: Any, lead_steps: int) -> None:
    actor = Script(0.0, 0.05, 0.1, 0.15, n_action_steps=4)
    rig = make_rig(
        inference=lambda clock: Late(actor, clock, 0.0, 0.15, 0.0),
        execution=ExecutionConfig(lead_steps),
        max_steps=30,
    )
    report = rig.run()
    assert report.ending.reason == "time_limit"
    assert not rig.sink.column("safety").any(), "no hold: the old chunk had actions left"


def test_inference_later_than_a_chunk_holds_and_then_stops(make_rig: Any) -> None:
    rig = make_rig(inference=lambda clock: Late(Script(0.1), clock, 0.0, 0.6), max_steps=40)
    assert rig.run().ending.reason == "time_limit"
    assert rig.supervisor.counts["no_proposal"] > 0
    rig.assert_inside_envelope()
    rig = make_rig(inference=lambda clock: Late(Script(0.1), clock, 0.0, math.inf), max_steps=200)
    assert_stopped(rig, rig.run(), "no_proposal")


def test_the_operator_stops_in_the_middle_of_a_chunk(make_rig: Any) -> None:
    rig = make_rig(script={12: OperatorEvent("stop")})
    report = rig.run()
    assert report.ending.reason == "operator_stop"
    assert report.steps == 12
    assert_stopped(rig, report, "operator")
    # From full speed, three steps of braking at most.
    assert len(rig.robot.sent) <= 12 + 8
    rig.assert_inside_envelope()


def test_a_full_disk_ends_the_episode_and_the_hand_rests(make_rig: Any) -> None:
    class FullDisk:
        def begin(self, header: EpisodeHeader) -> None: ...
        def step(self, record: Any) -> None:
            if record.step == 10:
                raise OSError("no space left on device")

        def end(self, ending: Any) -> None: ...

    for sink in (FullDisk(), QueuedSink(FullDisk())):
        rig = make_rig(sink=sink, max_steps=100_000)
        if isinstance(sink, FullDisk):
            with pytest.raises(OSError, match="no space"):
                rig.run()
        else:
            report = rig.run()
            assert report.cause.kind == "recording"
            assert "no space left" in report.ending.detail
        assert not rig.robot.is_connected
        assert np.array_equal(rig.robot.sent[-1], rig.robot.sent[-2])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TypeError("a bug")])
def test_an_interruption_ends_the_record_and_parks_the_hand(make_rig: Any, error: BaseException) -> None:
    class Broken:
        def judge(self, observation: Any) -> Any:
            if len(rig.sink.steps) == 9:
                raise error
            return Verdict()

    rig = make_rig(referee=Broken())
    with pytest.raises(type(error)):
        rig.run()
    assert rig.sink.ending.reason == "interrupted"
    assert rig.sink.ending.truncated
    assert rig.supervised.closed_from == "parked"
    assert not rig.robot.is_connected
    rig.assert_inside_envelope()


def test_a_robot_that_dies_while_parking_is_still_closed(make_rig: Any) -> None:
    rig = make_rig(Fault("timeout", 1.1), max_steps=20, actor=Script(0.9))
    rig.run()
    assert rig.supervised.closed_from == "holding"
    assert rig.supervisor.cause.kind == "robot_error"
    assert not rig.robot.is_connected


def test_a_frame_lost_between_two_chunks_does_not_hold(make_rig: Any) -> None:
    rig = make_rig(Fault("timeout", 0.39, 0.44))
    assert rig.run().ending.reason == "time_limit"
    assert rig.supervisor.counts["robot:not_read"] == 1
    held = rig.sink.column("safety") & Intervention.HELD != 0
    assert not held.any()


def test_latency_jitter_and_lost_frames_are_no_faults(make_rig: Any) -> None:
    rig = make_rig(
        impairments=Impairments(sensor_latency_s=0.04, jitter_s=0.01, drop_probability=0.1), max_steps=200
    )
    assert rig.run().ending.reason == "time_limit"
    assert rig.supervised.closed_from == "parked"


numbers = st.one_of(st.floats(width=64), st.floats(-1.2, 1.2), st.sampled_from([math.nan, math.inf, 1e308]))
fault_kinds = st.sampled_from(["freeze", "nan", "over_current", "over_temperature", "stuck_joint"])
faults = st.builds(
    lambda kind, begin, length, joint: Fault(kind, begin, begin + length, joint),
    fault_kinds,
    st.floats(0.05, 2),
    st.floats(0.05, 2),
    st.integers(0, 2),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chunks=st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=6),
    execution=st.sampled_from([(8, ExecutionConfig()), (2, ExecutionConfig()), (3, ExecutionConfig(2, 2))]),
    fault=st.none() | faults,
    stop_at=st.none() | st.integers(0, 40),
)
def test_no_command_leaves_the_envelope_whatever_happens(
    make_rig: Any,
    chunks: Any,
    execution: tuple[int, ExecutionConfig],
    fault: Fault | None,
    stop_at: int | None,
) -> None:
    n_action_steps, config = execution
    rig = make_rig(
        *(() if fault is None else (fault,)),
        actor=Script(*chunks, n_action_steps=n_action_steps),
        execution=config,
        max_steps=50,
        script=None if stop_at is None else {stop_at: OperatorEvent("stop")},
    )
    rig.run()
    rig.assert_inside_envelope()
    assert not rig.robot.is_connected
