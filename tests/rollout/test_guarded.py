"""Every call of an environment fails with one line that names the environment and the call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serfn.rollout.environments import make_env
from serfn.rollout.guarded import EnvironmentCallError, GuardedEnv

ACTION = np.zeros(2, np.float32)


def broken(call: str, answer: Any) -> GuardedEnv:
    """A sound environment of which one call gives another answer, or raises it."""

    def respond(*_: Any, **__: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    env = make_env("test/Counter-v0", render_mode="rgb_array")
    env.reset(seed=0)
    setattr(env.unwrapped, call, respond)
    return env


@pytest.mark.parametrize("call", ["reset", "step", "render"])
def test_exceptions_name_environment_and_call(call: str) -> None:
    env = broken(call, RuntimeError("no such joint\nlong story"))
    arguments = {"step": (ACTION,)}.get(call, ())
    with pytest.raises(EnvironmentCallError, match="RuntimeError: no such joint") as failure:
        getattr(env, call)(*arguments)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "step returns NoneType, expected is observation, reward"),
        (({}, 0.0, False, False, {}), "step returns an observation dict"),
        ((None, 0.0, False, False, {}), "step returns an observation NoneType"),
        (("sound", "much", False, False, {}), "step returns reward str, expected is one number"),
        (("sound", np.zeros(2), False, False, {}), r"reward float64 of shape \(2,\)"),
        (("sound", 0.0, "no", False, {}), "terminated str, expected is a bool"),
        (("sound", 0.0, False, False, None), "info NoneType, expected is a dictionary"),
        (("sound", 0.0, False, False, {"episode_metrics": 3}), "episode_metrics'] int"),
    ],
)
def test_wrong_answers_are_named(answer: Any, words: str) -> None:
    env = make_env("test/Counter-v0")
    env.reset(seed=0)
    if isinstance(answer, tuple) and answer[0] == "sound":
        answer = (env.unwrapped.step(ACTION)[0], *answer[1:])
    # Inside Gymnasium's own wrappers, which take answers apart.
    env.env = type(  # pyright: ignore[reportAttributeAccessIssue]
        "Answering", (), {"step": lambda self, action: answer, "observation_space": space(env)}
    )()
    with pytest.raises(EnvironmentCallError, match=words):
        env.step(ACTION)


def space(env: GuardedEnv) -> Any:
    return env.env.observation_space


def test_a_failure_while_closing_costs_nothing() -> None:
    env = broken("close", RuntimeError("window is gone"))
    env.close()
    assert env.close_failure is not None and "window is gone) at close" in env.close_failure
