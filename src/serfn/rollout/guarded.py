"""Environments are other people's code: this is the one place where it is called.

Whatever an environment raises, and whatever it returns that its spaces do not have, becomes one line that
names the environment and the call. An exception while it closes never costs a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim, flatten

from serfn.core.env_step import success_of
from serfn.core.errors import SerfnError
from serfn.core.outcome import SuccessRule, success_rule


class EnvironmentCallError(SerfnError):
    """An environment raised an exception, or returned what its spaces do not have."""


class GuardedEnv(gymnasium.Wrapper):
    """An environment with flat float32 observations `[obs]` whose every call is guarded.

    The order of a Dict observation is Gymnasium's own (`gymnasium.spaces.utils.flatten`): the space's key
    order, which is alphabetical when the space was made from a plain dict.

    Args:
        env: Environment to wrap; its observation space consists of vectors of numbers.
        env_id: What it was made from, with its package in front if it was given (Gymnasium's own record
            forgets that).
        again: Makes it anew. After a failure the next reset does so: a simulator that died, or whose state is
            half a step, is not used again.
    """

    def __init__(
        self, env: gymnasium.Env, env_id: str, again: Callable[[], gymnasium.Env] | None = None
    ) -> None:
        super().__init__(env)
        self.env_id = env_id
        self._again = again
        self._failed = False
        self.close_failure: str | None = None
        """What went wrong when it was closed."""
        self.success_rule: SuccessRule = success_rule(env.metadata)
        """What counts as success of an episode."""
        self.tells_success = False
        """Whether any step so far said something about success: then silence means that there is none."""
        self._size = flatdim(env.observation_space)
        self.observation_space = spaces.Box(-np.inf, np.inf, (self._size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode.

        Raises:
            EnvironmentCallError: It raised, or returned something else than an observation of its space and a
                dictionary.
        """
        if self._failed and self._again is not None:
            self.close()
            self.env = self._again()
            self._failed = False
        with self._guard("reset"):
            returned: Any = self.env.reset(seed=seed, options=options)
            if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], Mapping):
                raise self._wrong("reset", f"{_kind(returned)}", "an observation and a dictionary")
            flat = self._flat("reset", returned[0])
            if not np.isfinite(flat).all():
                raise self._wrong("reset", "an observation that is not finite", "one of finite numbers")
            return flat, dict(returned[1])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one step.

        Raises:
            EnvironmentCallError: It raised, or returned something else than an observation of its space, a
                number, two flags and a dictionary.
        """
        with self._guard("step"):
            returned: Any = self.env.step(action)
            if not isinstance(returned, tuple) or len(returned) != 5:
                raise self._wrong("step", _kind(returned), "observation, reward, terminated, truncated, info")
            observation, reward, terminated, truncated, info = returned
            for name, flag in (("terminated", terminated), ("truncated", truncated)):
                if not isinstance(flag, bool | np.bool_ | int | np.integer):
                    raise self._wrong("step", f"{name} {_kind(flag)}", "a bool")
            if np.ndim(reward) or np.asarray(reward).dtype.kind not in "biuf":
                raise self._wrong("step", f"reward {_kind(reward)}", "one number")
            self._check_info(info)
            flat = self._flat("step", observation)
            return flat, float(reward), bool(terminated), bool(truncated), dict(info)

    def render(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return an image `[height, width, 3]`.

        Raises:
            EnvironmentCallError: The environment does not render, or not on this machine.
        """
        try:
            image: Any = self.env.render()
        except Exception as error:  # OpenGL bindings raise whatever their platform gives them
            raise EnvironmentCallError(
                f"the environment cannot render here ({type(error).__name__}: {first_line(error)}); on a "
                "machine without a display set MUJOCO_GL=egl or MUJOCO_GL=osmesa, or skip the film"
            ) from error
        if not isinstance(image, np.ndarray):
            raise EnvironmentCallError(
                f"the environment renders {type(image).__name__}; make it with render_mode='rgb_array'"
            )
        return image

    def close(self) -> None:
        """Close the environment; what it raises is kept in `close_failure`."""
        try:
            self.env.close()
        except Exception as error:
            self.close_failure = str(own_failure(self.env_id, error, "close"))

    @contextmanager
    def _guard(self, call: str) -> Iterator[None]:
        """Name the environment and the call in whatever foreign code raises; a simulator may even exit."""
        try:
            yield
        except EnvironmentCallError:
            self._failed = True
            raise
        except (Exception, SystemExit) as error:
            self._failed = True
            raise own_failure(self.env_id, error, call) from error

    def _check_info(self, info: Any) -> None:
        if not isinstance(info, Mapping):
            raise self._wrong("step", f"info {_kind(info)}", "a dictionary")
        metrics = info.get("episode_metrics", {})
        if not isinstance(metrics, Mapping):
            raise self._wrong("step", f"info['episode_metrics'] {_kind(metrics)}", "numbers by name")
        for name, value in metrics.items():
            if np.ndim(value) or np.asarray(value).dtype.kind not in "biuf":
                raise self._wrong("step", f"info['episode_metrics']['{name}'] {_kind(value)}", "one number")
        try:
            success_of(info)
        except ValueError as error:
            raise self._wrong("step", "success in info that is neither true nor false", "a bool") from error

    def _flat(self, call: str, observation: Any) -> np.ndarray:
        space = self.env.observation_space
        try:
            flat = np.asarray(flatten(space, observation), np.float32)
        except Exception as error:
            raise self._wrong(call, f"an observation {_kind(observation)}", f"one of {space}") from error
        found = getattr(observation, "shape", None)
        if flat.shape != (self._size,) or (
            isinstance(space, spaces.Box) and found not in (None, space.shape)
        ):
            raise self._wrong(call, f"an observation of shape {found or flat.shape}", f"one of {space}")
        return flat

    def _wrong(self, call: str, found: str, expected: str) -> EnvironmentCallError:
        return EnvironmentCallError(
            f"environment '{self.env_id}': {call} returns {found}, expected is {expected}; correct the "
            "environment"
        )


def own_failure(env_id: str, error: BaseException, call: str = "make") -> EnvironmentCallError:
    """Return what an exception out of an environment's own code becomes: it is theirs to be put right."""
    kind, words = type(error).__name__, first_line(error)
    reason = kind if words == kind else f"{kind}: {words}"
    remedy = (
        "check the id and options, and that its package supports the installed gymnasium and mujoco"
        if call == "make"
        else "correct the environment, or its options"
    )
    return EnvironmentCallError(
        f"environment '{env_id}' fails in its own code ({reason}) at {call}; {remedy}"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its kind if it has none."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__ if shape is None else f"{value.dtype} of shape {shape}"
