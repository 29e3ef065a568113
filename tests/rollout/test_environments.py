from __future__ import annotations

import os
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from serfn.core.errors import SerfnError
from serfn.rollout.environments import DEFAULT_CONTROL_HZ, make_env, task_spec, try_out
from serfn.rollout.simulations import Simulations


def test_dictionary_observations_become_one_float32_vector_in_key_order() -> None:
    env = make_env("test/Counter-v0")
    observation, _ = env.reset(seed=1)
    assert observation.dtype == np.float32
    assert observation.shape == (3,) == env.observation_space.shape
    assert observation[0] == 0.0  # "a" sorts before "b"
    assert env.observation_space.contains(observation)


def test_specification() -> None:
    spec = task_spec(make_env("test/Counter-v0"))
    assert (spec.id, spec.observation.dim, spec.max_episode_steps) == ("test/Counter-v0", 3, 20)
    assert spec.action.low == (-1.0, 0.0)
    assert spec.action.high == (1.0, 0.1)
    assert spec.control_hz == 10


def test_specification_keeps_the_package_that_registers_the_environment() -> None:
    spec = task_spec(make_env("gymnasium.envs.classic_control:Pendulum-v1"))
    assert spec.id == "gymnasium.envs.classic_control:Pendulum-v1"
    assert task_spec(make_env(spec.id)) == spec


def test_control_rate_has_a_documented_default() -> None:
    env = make_env("test/Counter-v0")
    env.unwrapped.metadata = {}
    assert task_spec(env).control_hz == DEFAULT_CONTROL_HZ


def test_classic_environments_work() -> None:
    spec = task_spec(make_env("Pendulum-v1"))
    assert (spec.observation.dim, spec.action.dim) == (3, 1)


def test_environment_without_time_limit_is_refused() -> None:
    with pytest.raises(SerfnError, match="no time limit; register it with max_episode_steps"):
        task_spec(make_env("test/Timeless-v0"))
    assert task_spec(make_env("test/Timeless-v0", max_episode_steps=7)).max_episode_steps == 7


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Nonsense-v3", "environment 'Nonsense-v3' cannot be made.*package that registers it"),
        ("no_such_package:Thing-v0", "No module named 'no_such_package'"),
        ("CartPole-v1", r"action space is Discrete\(2\)"),
    ],
)
def test_unusable_environments_are_named(env_id: str, message: str) -> None:
    with pytest.raises(SerfnError, match=message):
        make_env(env_id)


def test_refused_options_are_named() -> None:
    with pytest.raises(SerfnError, match=r"refuses the options \{'colour': 'red'\}.*colour"):
        make_env("test/Counter-v0", colour="red")


def test_environment_that_breaks_while_it_is_made_is_named() -> None:
    gymnasium.register("test/Broken-v0", f"{__name__}:broken")
    with pytest.raises(
        SerfnError, match=r"'test/Broken-v0' fails in its own code \(AssertionError: no such joint\)"
    ):
        make_env("test/Broken-v0")


def broken() -> gymnasium.Env:
    raise AssertionError("no such joint")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict({"hand": spaces.Discrete(3)}), r"observation\['hand'\] space is Discrete"),
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), "image of shape"),
        (spaces.Tuple([spaces.Box(0, 1, (2,))]), "only Box and Dict of Box"),
    ],
)
def test_unsupported_observations_are_named(space: spaces.Space, message: str) -> None:
    with pytest.raises(SerfnError, match=message):
        make_env("test/Counter-v0", space=space)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-np.inf, np.inf, (2,)), "unbounded.*RescaleAction"),
        (spaces.Box(-1, 1, (2, 2)), "flatten it"),
        (spaces.Box(0, 5, (2,), np.int32), "Box of floats"),
    ],
)
def test_unsupported_actions_are_named(space: spaces.Space, message: str) -> None:
    with pytest.raises(SerfnError, match=message):
        make_env("test/Counter-v0", action_space=space)


@pytest.mark.parametrize(
    ("display", "chosen", "expected"), [("", None, "egl"), (":0", None, None), ("", "glfw", "glfw")]
)
def test_without_a_display_mujoco_is_asked_for_egl(
    monkeypatch: pytest.MonkeyPatch, display: str, chosen: str | None, expected: str | None
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(
        os, "environ", {"DISPLAY": display} | ({} if chosen is None else {"MUJOCO_GL": chosen})
    )
    make_env("test/Counter-v0")
    assert os.environ.get("MUJOCO_GL") == chosen
    make_env("test/Counter-v0", render_mode="rgb_array")
    assert os.environ.get("MUJOCO_GL") == expected


def test_an_environment_is_tried_out_before_work_begins() -> None:
    try_out(make_env("Pendulum-v1"))
    env = make_env("test/Counter-v0")
    env.unwrapped.reset = lambda **_: 1 / 0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SerfnError, match="test/Counter-v0' fails in its own code \\(ZeroDivisionError"):
        try_out(env)


def test_what_fails_while_closing_is_said_and_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    simulations = Simulations("test/Counter-v0", None, {}, count=2)
    for env in simulations.up_to(2):

        def fail() -> None:
            raise AttributeError("the graphics context is gone already")

        monkeypatch.setattr(env.unwrapped, "close", fail)
    (failure,) = simulations.close()
    assert "at close" in failure and "graphics context" in failure
    assert simulations.close() == []
