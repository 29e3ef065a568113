"""Any Gymnasium environment as a robot: one command is one environment step, whatever the clock says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import cast

import gymnasium
import numpy as np
from gymnasium import spaces

from serfn.core.env_step import read_step
from serfn.core.errors import ConfigError
from serfn.core.naming import POSITION, TARGET, commanded_joints
from serfn.core.outcome import Success, success_rule
from serfn.core.spec import ActionSpec, ObservationSpec
from serfn.robot.adapters.described import DescribedRobot
from serfn.robot.clock import Clock
from serfn.robot.contract import (
    Action,
    Feature,
    Observation,
    RobotError,
    RobotInfo,
    Verdict,
    action_vector,
)


class GymnasiumRobot(DescribedRobot):
    """An environment with a flat Box observation and a bounded Box action.

    The environment may name its observations (`observation_names`). Where these are `joint_position.X` and
    `joint_target.X`, the actions are the targets of the joints X, in the order of the observations.

    Args:
        env: The environment; it stays open, and belongs to its maker.
        clock: Clock of the loop.
        name: Short name, such as `gymnasium:cube`.
        rest: Pose to park in `[action]`; None stays where it is.
        unit_rad: Whether actions are positions in rad; otherwise they count as normalised.
        simulated: Whether nothing real moves when the environment steps; see `RobotInfo.simulated`.

    Raises:
        ConfigError: The spaces are not supported.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        clock: Clock,
        name: str,
        *,
        rest: Sequence[float] | None = None,
        unit_rad: bool = True,
        simulated: bool = False,
    ) -> None:
        action_space, observation_space = env.action_space, env.observation_space
        for kind, space in (("action", action_space), ("observation", observation_space)):
            if not isinstance(space, spaces.Box) or len(space.shape) != 1:
                raise ConfigError(f"robot '{name}': the {kind} space is {space}; use a flat Box")
        self._env = env
        self._clock = clock
        self._space = cast(spaces.Box, action_space)
        self._info = dataclasses.replace(_describe(env, name, rest, unit_rad), simulated=simulated)
        self._connected = False
        self._observation = np.zeros(self._info.observation.dim)
        self._tells_success = False
        self._forget()

    @property
    def observation_features(self) -> Mapping[str, Feature]:
        """See `Robot`."""
        return dict.fromkeys((*self._info.state_keys, "time_s"), float)

    @property
    def is_connected(self) -> bool:
        """See `Robot`."""
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        """See `Robot`; always True."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """See `Robot`."""
        if self._connected:
            raise RobotError(f"robot '{self.name}' is connected already; disconnect it first")
        self._connected = True
        self.reset_scene()

    def reset_scene(self, seed: int | None = None) -> None:
        """Reset the environment."""
        self._require_connection()
        self._forget()
        observation, _ = self._env.reset(seed=seed)
        self._see(observation)

    def get_observation(self) -> Observation:
        """See `Robot`."""
        self._require_connection()
        observation: Observation = dict(zip(self._info.state_keys, self._observation.tolist(), strict=True))
        observation["time_s"] = self._time_s
        return observation

    def send_action(self, action: Action) -> Action:
        """See `Robot`; takes one environment step, or none once the episode is over."""
        sent = self._executable(action)
        self._step(sent)
        return dict(zip(self._info.action.names, sent.tolist(), strict=True))

    def disconnect(self) -> None:
        """See `Robot`."""
        self._connected = False

    def judge(self, observation: Observation) -> Verdict:
        """Return what the environment said since the last call."""
        verdict = Verdict(self._reward, self._terminated, self._truncated, self._outcome.value, self._metrics)
        self._reward = 0.0
        return verdict

    def _executable(self, action: Action) -> np.ndarray:
        self._require_connection()
        values = action_vector(action, self._info.action.names)
        # float32 round-off may put an action at its bound one unit outside.
        return np.clip(values.astype(self._space.dtype), self._space.low, self._space.high)

    def _step(self, action: np.ndarray) -> None:
        if self._terminated or self._truncated:
            return
        result = read_step(self._env.step(action))
        self._reward += result.reward
        self._terminated, self._truncated = result.terminated, result.truncated
        self._outcome.add(result.success)
        self._tells_success = self._outcome.told
        if result.metrics is not None:
            self._metrics = dict(result.metrics)
        self._see(result.observation)

    def _see(self, observation: np.ndarray) -> None:
        self._observation = np.asarray(observation, np.float64)
        self._time_s = self._clock.now()

    def _forget(self) -> None:
        self._reward = 0.0
        self._terminated = self._truncated = False
        self._outcome = Success(success_rule(self._env.metadata), self._tells_success)
        self._metrics: dict[str, float] = {}
        self._time_s = self._clock.now()

    def _require_connection(self) -> None:
        if not self._connected:
            raise RobotError(f"robot '{self.name}' is not connected; call connect first")


def _describe(env: gymnasium.Env, name: str, rest: Sequence[float] | None, unit_rad: bool) -> RobotInfo:
    action_space, observation_space = cast(spaces.Box, env.action_space), env.observation_space
    dim = int(np.prod(cast(spaces.Box, observation_space).shape))
    names = tuple(getattr(env.unwrapped, "observation_names", ())) or tuple(
        f"observation.{index}" for index in range(dim)
    )
    joints = commanded_joints(names, action_space.shape[0])
    return RobotInfo(
        name=name,
        action=ActionSpec(
            tuple(float(value) for value in action_space.low),
            tuple(float(value) for value in action_space.high),
            joints or tuple(f"action.{index}" for index in range(action_space.shape[0])),
        ),
        observation=ObservationSpec(dim, names),
        state_keys=names,
        control_hz=float(env.metadata.get("render_fps") or 20.0),
        position_keys=tuple(POSITION + joint for joint in joints),
        target_keys=tuple(TARGET + joint for joint in joints),
        time_key="time_s",
        rest=None if rest is None else tuple(float(value) for value in rest),
        unit="rad" if unit_rad else "normalized",
    )
