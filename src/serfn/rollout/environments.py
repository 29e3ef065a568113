"""Gymnasium environments as the rest of the package sees them: flat float32 observations, bounded actions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim

from serfn.core.errors import SerfnError
from serfn.core.extras import MissingExtraError, extra, extra_of
from serfn.core.naming import commanded_joints, part_names
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.rollout.guarded import GuardedEnv, first_line, own_failure
from serfn.tasks.registry import register_env, task_of_env

DEFAULT_CONTROL_HZ = 20.0
"""Control rate of an environment whose metadata has no `render_fps`."""


def make_env(env_id: str, **kwargs: Any) -> GuardedEnv:
    """Make a Gymnasium environment with flat float32 observations, whose every call is guarded.

    Args:
        env_id: Registered id; `package:Id` imports the package that registers it first, as in
            `gymnasium_robotics:AdroitHandDoor-v1`. The ids of tasks are always known, and a task of another
            package may be named `package.module:TASK`.
        **kwargs: Passed to the environment, such as `plant="field"` or `render_mode="rgb_array"`.

    Raises:
        SerfnError: Unknown id, options that the environment refuses, or spaces that are not supported.
    """
    env = _make(env_id, kwargs)
    guarded = GuardedEnv(env, env_id, again=lambda: _make(env_id, kwargs))
    try:
        _require_bounded_actions(env.action_space)
        _require_vectors(env.observation_space, "observation")
    except SerfnError:
        guarded.close()
        raise
    return guarded


def _make(env_id: str, kwargs: dict[str, Any]) -> gymnasium.Env:
    entry = None if env_id in gymnasium.registry else task_of_env(env_id)
    if entry is not None:
        register_env(entry)
    elif kwargs.get("render_mode") is not None:
        _prefer_offscreen_rendering()
    package = env_id.partition(":")[0]
    if (name := extra_of(package)) is not None:
        with extra(name):
            import_module(package)
    try:
        return gymnasium.make(env_id if entry is None else entry.env_id, disable_env_checker=True, **kwargs)
    except MissingExtraError:
        raise
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise SerfnError(
            f"environment '{env_id}' cannot be made: {first_line(error)}; check the id, and name the "
            "package that registers it in front, as in gymnasium_robotics:AdroitHandDoor-v1"
        ) from error
    except (TypeError, ValueError) as error:
        if not kwargs:
            raise own_failure(env_id, error) from error
        raise SerfnError(
            f"environment '{env_id}' refuses the options {kwargs}: {first_line(error)}; correct them"
        ) from error
    except (Exception, SystemExit) as error:
        raise own_failure(env_id, error) from error


def try_out(env: GuardedEnv) -> None:
    """Reset an environment and take one step, so that it fails now rather than in an hour.

    Raises:
        EnvironmentCallError: The environment raises, or returns what its spaces do not have.
    """
    space = _require_bounded_actions(env.action_space)
    env.reset(seed=0)
    env.step(((space.low + space.high) / 2).astype(space.dtype))


def task_spec(env: gymnasium.Env) -> TaskSpec:
    """Describe an environment made by `make_env`; its id is the one that `make_env` was given.

    The control rate is `stated_rate`, or else `DEFAULT_CONTROL_HZ`; it scales minutes of robot time, never
    the learning. Names of observations are the environment's `observation_names`, or the keys of a Dict of
    observations; those of actions its `action_names`, or the joints whose targets it observes. Units are its
    `observation_units` and `action_units`.

    Raises:
        SerfnError: The environment has no time limit.
    """
    if env.spec is None or env.spec.max_episode_steps is None:
        name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        raise SerfnError(
            f"environment '{name}' has no time limit; register it with max_episode_steps, or pass that as "
            "an option of the environment"
        )
    action_space = _require_bounded_actions(env.action_space)
    dim, actions = flatdim(env.observation_space), action_space.shape[0]
    observation_names = _words(env, "observation_names", dim) or _names_of_space(env, dim)
    return TaskSpec(
        id=getattr(env, "env_id", None) or env.spec.id,
        observation=ObservationSpec(dim, observation_names, _words(env, "observation_units", dim)),
        action=ActionSpec(
            low=tuple(float(value) for value in action_space.low),
            high=tuple(float(value) for value in action_space.high),
            names=_words(env, "action_names", actions) or commanded_joints(observation_names, actions),
            units=_words(env, "action_units", actions),
        ),
        control_hz=stated_rate(env) or DEFAULT_CONTROL_HZ,
        max_episode_steps=env.spec.max_episode_steps,
    )


def stated_rate(env: gymnasium.Env) -> float | None:
    """Return the control rate that an environment says, or None.

    It is its `metadata["render_fps"]`, which Gymnasium's MuJoCo environments keep equal to the control rate.
    """
    rate = env.metadata.get("render_fps")
    return float(rate) if rate else None


def _words(env: gymnasium.Env, attribute: str, count: int) -> tuple[str, ...]:
    """Return names or units that an environment keeps for each dimension, or nothing."""
    words = tuple(map(str, getattr(env.unwrapped, attribute, ()) or ()))
    return words if len(words) == count else ()


def _names_of_space(env: gymnasium.Env, dim: int) -> tuple[str, ...]:
    """Return the names of a Dict of observations by its keys, in the order in which it is flattened."""
    if not isinstance(env, GuardedEnv):
        return ()
    names = part_names((name, size, ()) for name, size in _leaves(env.env.observation_space, ""))
    return names if len(names) == dim else ()


def _leaves(space: spaces.Space, name: str) -> Iterator[tuple[str, int]]:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, flatdim(space)


def _require_vectors(space: spaces.Space, name: str) -> None:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            _require_vectors(part, f"{name}['{key}']")
        return
    if not isinstance(space, spaces.Box):
        raise SerfnError(
            f"{name} space is {space}; only Box and Dict of Box are supported: wrap the environment so that "
            "it returns vectors of numbers"
        )
    if space.dtype == np.uint8 and len(space.shape) >= 2:
        raise SerfnError(
            f"{name} space is an image of shape {space.shape}; policies here see state vectors: choose the "
            "environment's state observations, or wrap it with an encoder"
        )


def _require_bounded_actions(space: spaces.Space) -> spaces.Box:
    if not isinstance(space, spaces.Box) or not np.issubdtype(cast(Any, space.dtype), np.floating):
        raise SerfnError(f"action space is {space}; only a Box of floats is supported")
    if len(space.shape) != 1:
        raise SerfnError(f"action space has shape {space.shape}; flatten it to one dimension with a wrapper")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise SerfnError(
            "action space is unbounded; wrap the environment with gymnasium.wrappers.RescaleAction, or give "
            "finite bounds"
        )
    return space


def _prefer_offscreen_rendering() -> None:
    """Ask MuJoCo for EGL where there is no display, unless the user chose otherwise.

    Gymnasium's MuJoCo environments try GLFW first. Without a display it gives them a context that does not
    work, and a second attempt aborts the process.
    """
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not display:
        os.environ.setdefault("MUJOCO_GL", "egl")
