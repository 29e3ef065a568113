"""Hostile environments: whatever they return or raise, a rollout ends in episodes, aborts, or one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serfn.core.errors import SerfnError
from serfn.rollout.aborts import Aborts
from serfn.rollout.environments import make_env
from serfn.rollout.rollouts import rollout
from tests.fuzz.accidents import accidents

ENV = "fuzz/Hostile-v0"

numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(10**20), 10**20),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.just(np.zeros(2)),
    st.just(np.float32(1.5)),
)
observations = st.one_of(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=0, max_size=4).map(np.array),
    st.just(np.zeros((2, 1))),
    st.just(np.array(["a", "b"])),
    st.none(),
    st.just({"x": np.zeros(2)}),
)
infos = st.one_of(
    st.none(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["is_success", "episode_metrics", "x"]), numbers, max_size=3),
)
sound = st.just((np.zeros(2, np.float32), 0.0, False, False, {}))
answers = st.one_of(
    sound,
    sound,
    st.tuples(observations, numbers, numbers, numbers, infos),
    st.tuples(st.just(np.zeros(2, np.float32)), st.floats(-1, 1), st.booleans(), st.booleans(), infos),
    st.tuples(observations, numbers),
    numbers,
)
failures = st.sampled_from(
    [None, ValueError("no"), KeyError("x"), SystemExit(3), MemoryError(), RuntimeError("")]
)


class Hostile(gymnasium.Env):
    """An environment that says what it is told to."""

    metadata = {"render_fps": 20}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, script: list[Any], failure: BaseException | None) -> None:
        self.script, self.failure, self.steps = script, failure, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps > len(self.script):
            if self.failure is not None:
                raise self.failure
            return np.zeros(2, np.float32), 1.0, True, False, {}
        return self.script[self.steps - 1]


class Still:
    """An actor that does nothing."""

    chunk_size = n_action_steps = 3

    def act(self, observations: np.ndarray) -> np.ndarray:
        assert np.isfinite(observations).all()
        return np.zeros((len(observations), 3, 1), np.float32)

    def reset(self, seed: int) -> None:
        """Nothing is random."""


@pytest.fixture(autouse=True, scope="module")
def hostile() -> Iterator[None]:
    gymnasium.register(ENV, Hostile, max_episode_steps=12)  # pyright: ignore[reportArgumentType]
    yield
    gymnasium.registry.pop(ENV)


@settings(
    max_examples=accidents(150),
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(script=st.lists(answers, max_size=6), failure=failures)
def test_a_rollout_survives(script: list[Any], failure: BaseException | None) -> None:
    aborts = Aborts()
    try:
        env = make_env(ENV, script=script, failure=failure)
        episodes = rollout([env], Still(), seeds=[0, 1], aborts=aborts)
    except SerfnError as error:
        assert str(error)
        return
    assert len(episodes) + aborts.count == 2
    for episode in episodes:
        assert np.isfinite(episode.observations).all() and np.isfinite(episode.rewards).all()
        assert episode.success in (True, False, None)
