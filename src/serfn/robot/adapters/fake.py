"""A robot for tests: joints that follow their targets with a lag, and a scripted life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serfn.core.spec import ActionSpec, ObservationSpec
from serfn.robot.adapters.described import DescribedRobot
from serfn.robot.adapters.impairments import ImpairedChannel, Impairments
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
from serfn.robot.health import JointHealth

_TIME_CONSTANT_S = 0.03
_TEMPERATURE_C, _CURRENT_MA_PER_RAD = 35.0, 300.0


class FakeRobot(DescribedRobot):
    """A few joints in [-1, 1] rad that follow their targets with a first-order lag, and fail as told.

    `sent` keeps every command; a joint that is `blocked` does not move; `faults` has what its driver
    reports, by joint, until `recover` clears it.

    Args:
        clock: Clock of the loop.
        joints: Number of joints.
        control_hz: Commands per second.
        rest: Whether it has a rest pose, at 0.
        impairments: What it lacks.
        generator: Source of jitter and lost frames.
        calibrated: Whether it is calibrated before `connect` is asked to.
        image: Shape `(height, width, channels)` of its camera's images; None has no camera.
    """

    def __init__(
        self,
        clock: Clock,
        joints: int = 3,
        *,
        control_hz: float = 20.0,
        rest: bool = True,
        impairments: Impairments | None = None,
        generator: np.random.Generator | None = None,
        calibrated: bool = True,
        image: tuple[int, int, int] | None = None,
    ) -> None:
        names = tuple(f"joint{index}.pos" for index in range(joints))
        velocities = tuple(f"joint{index}.vel" for index in range(joints))
        self._info = RobotInfo(
            name="fake",
            action=ActionSpec((-1.0,) * joints, (1.0,) * joints, names),
            observation=ObservationSpec(2 * joints, names + velocities),
            state_keys=names + velocities,
            control_hz=control_hz,
            image_keys=("camera",) if image else (),
            position_keys=names,
            target_keys=tuple(f"joint{index}.target" for index in range(joints)),
            current_keys=tuple(f"joint{index}.current" for index in range(joints)),
            temperature_keys=tuple(f"joint{index}.temperature" for index in range(joints)),
            time_key="time_s",
            rest=(0.0,) * joints if rest else None,
            simulated=True,
        )
        self._image = image
        self._clock = clock
        self._calibrated, self._connected = calibrated, False
        self._channel = ImpairedChannel(
            impairments or Impairments(), self._info, clock, generator or np.random.default_rng(0)
        )
        self._positions, self._targets = np.zeros(joints), np.zeros(joints)
        self._time_s = clock.now()
        self.sent: list[np.ndarray] = []
        self.blocked = np.zeros(joints, np.bool_)
        self.faults: dict[str, JointHealth] = {}

    @property
    def observation_features(self) -> Mapping[str, Feature]:
        """See `Robot`."""
        info = self._info
        keys = (*info.state_keys, *info.target_keys, *info.current_keys, *info.temperature_keys, "time_s")
        features: dict[str, Feature] = dict.fromkeys(keys, float)
        if self._image is not None:
            features["camera"] = self._image
        return features

    @property
    def is_connected(self) -> bool:
        """See `Robot`."""
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        """See `Robot`."""
        return self._calibrated

    def connect(self, calibrate: bool = True) -> None:
        """See `Robot`."""
        if self._connected:
            raise RobotError("the fake robot is connected already; disconnect it first")
        self._connected = True
        self._calibrated = self._calibrated or calibrate
        self._channel.reset()
        self._time_s = self._clock.now()

    def get_observation(self) -> Observation:
        """See `Robot`."""
        self._require_connection()
        self._channel.check_answer()
        elapsed_s, self._time_s = self._clock.now() - self._time_s, self._clock.now()
        lag = np.where(self.blocked, 0.0, -np.expm1(-elapsed_s / _TIME_CONSTANT_S))
        moved = lag * (self._targets - self._positions)
        self._positions = self._positions + moved
        info, errors = self._info, self._targets - self._positions
        velocities = moved / max(elapsed_s, 1e-9)
        values = (*self._positions, *velocities, *self._targets, *(_CURRENT_MA_PER_RAD * np.abs(errors)))
        keys = (*info.state_keys, *info.target_keys, *info.current_keys)
        observation: Observation = {key: float(value) for key, value in zip(keys, values, strict=True)}
        observation |= dict.fromkeys(info.temperature_keys, _TEMPERATURE_C)
        observation["time_s"] = self._time_s
        if self._image is not None:
            observation["camera"] = np.zeros(self._image, np.uint8)
        return self._channel.read(observation)

    def send_action(self, action: Action) -> Action:
        """See `Robot`."""
        self._require_connection()
        targets = action_vector(action, self._info.action.names)
        self._channel.check_answer()
        self._targets = np.clip(targets, self._info.action.low, self._info.action.high)
        self.sent.append(self._targets)
        return dict(zip(self._info.action.names, self._targets.tolist(), strict=True))

    def health(self, *, complete: bool = False) -> Mapping[str, JointHealth]:
        """See `ReportsHealth`."""
        self._require_connection()
        return dict.fromkeys(self._info.action.names, JointHealth("ok")) | self.faults

    def recover(self, joints: Sequence[str]) -> Sequence[str]:
        """See `Recovers`."""
        self._require_connection()
        return [f"joint '{joint}' was reset" for joint in joints if self.faults.pop(joint, None)]

    def disconnect(self) -> None:
        """See `Robot`."""
        self._connected = False

    def judge(self, observation: Observation) -> Verdict:
        """Reward being near 0; never over."""
        return Verdict(reward=-float(np.abs(self._positions).max()), success=False)

    def reset_scene(self, seed: int | None = None) -> None:
        """Restart the script of faults; the joints stay where they are."""
        self._channel.reset()

    def _require_connection(self) -> None:
        if not self._connected:
            raise RobotError("the fake robot is not connected; call connect first")
