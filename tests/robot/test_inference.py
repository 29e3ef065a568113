from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from serfn.robot.clock import MonotonicClock
from serfn.robot.gate import LikelihoodGate, LikelihoodRange
from serfn.robot.inference import InlineInference, ThreadedInference

CLOCK = MonotonicClock()
LONG_S = 20.0


class Echo:
    """Answers with what it sees, once it is let go."""

    chunk_size, n_action_steps, version = 2, 2, 5

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.seeds: list[int] = []
        self.threads: set[int] = set()

    def act(self, observations: np.ndarray) -> np.ndarray:
        self.threads.add(threading.get_ident())
        assert self.free.wait(LONG_S)
        if observations[0, 0] < 0:
            raise RuntimeError("negative")
        return np.repeat(observations[:, None, :1], 2, axis=1)

    def reset(self, seed: int) -> None:
        self.threads.add(threading.get_ident())
        self.seeds.append(seed)


@pytest.fixture
def actor() -> Echo:
    return Echo()


@pytest.fixture(params=["inline", "threaded"])
def inference(request: pytest.FixtureRequest, actor: Echo) -> Iterator[InlineInference | ThreadedInference]:
    made = InlineInference(actor, CLOCK) if request.param == "inline" else ThreadedInference(actor, CLOCK)
    yield made
    made.close()


def test_a_request_is_answered_once(inference: InlineInference | ThreadedInference, actor: Echo) -> None:
    inference.reset(3)
    inference.submit(np.array([4.0]), 11)
    decision = inference.collect(LONG_S)
    assert decision is not None
    assert decision.actions is not None
    assert decision.actions.tolist() == [[4.0], [4.0]]
    assert (decision.step, decision.policy_version) == (11, 5)
    assert inference.collect() is None
    assert actor.seeds == [3]


def test_a_policy_that_raises_gives_no_actions(inference: InlineInference | ThreadedInference) -> None:
    inference.submit(np.array([-1.0]), 0)
    decision = inference.collect(LONG_S)
    assert decision is not None
    assert decision.actions is None
    assert decision.detail == "RuntimeError: negative"
    inference.submit(np.array([1.0]), 1)
    decision = inference.collect(LONG_S)
    assert decision is not None
    assert decision.actions is not None, "it goes on with the next request"


def test_a_slow_policy_does_not_keep_the_loop_waiting(actor: Echo) -> None:
    actor.free.clear()
    inference = ThreadedInference(actor, CLOCK)
    observation = np.array([1.0])
    inference.submit(observation, 0)
    observation[:] = 9.0
    assert inference.collect() is None
    assert inference.collect(0.001) is None
    actor.free.set()
    decision = inference.collect(LONG_S)
    assert decision is not None
    assert decision.actions is not None
    assert decision.actions[0, 0] == 1.0, "it sees the observation as it was"
    inference.close()
    assert threading.get_ident() not in actor.threads


def test_a_newer_request_replaces_an_older_one(actor: Echo) -> None:
    actor.free.clear()
    inference = ThreadedInference(actor, CLOCK)
    inference.submit(np.array([1.0]), 0)
    inference.submit(np.array([2.0]), 1)
    actor.free.set()
    decision = inference.collect(LONG_S)
    while decision is not None and decision.step == 0:
        decision = inference.collect(LONG_S)
    assert decision is not None
    assert decision.step == 1
    inference.close()


def test_the_gate_judges_what_is_decided(actor: Echo) -> None:
    judge = LikelihoodGate(lambda obs, chunk: -float(chunk.max()), LikelihoodRange(-3.0), "refuse")
    inference = InlineInference(actor, CLOCK, judge)
    inference.submit(np.array([2.0]), 0)
    decision = inference.collect()
    assert decision is not None
    assert (decision.log_likelihood, decision.flagged) == (-2.0, False)
    inference.submit(np.array([4.0]), 1)
    decision = inference.collect()
    assert decision is not None
    assert decision.actions is None
    assert decision.flagged
    assert "refused" in decision.detail
