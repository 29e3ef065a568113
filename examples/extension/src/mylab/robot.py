"""A robot: two joints that follow their commands with a lag; and a judge of what they do.

A driver has the same members. It leaves `simulated` at False: then it needs a limits file, and a person who
confirms the limits before it is connected.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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

JOINTS = ("shoulder.pos", "elbow.pos")


class Arm(DescribedRobot):
    """Two joints in [-1, 1] rad.

    Args:
        clock: Clock of the control loop, passed by whoever makes the robot.
        lag_s: Time constant with which the joints follow; from `robot_options`.
        simulated: Whether nothing real moves.
    """

    def __init__(self, clock: Clock, *, lag_s: float = 0.03, simulated: bool = True) -> None:
        self._clock, self._lag_s = clock, lag_s
        self._info = RobotInfo(
            name="mylab-arm",
            action=ActionSpec((-1.0, -1.0), (1.0, 1.0), JOINTS),
            observation=ObservationSpec(2, JOINTS),
            state_keys=JOINTS,
            position_keys=JOINTS,
            control_hz=50.0,
            time_key="time_s",
            simulated=simulated,
        )
        self._connected = False
        self._position, self._target, self._time_s = np.zeros(2), np.zeros(2), clock.now()

    @property
    def observation_features(self) -> Mapping[str, Feature]:
        """See `Robot`."""
        return dict.fromkeys((*JOINTS, "time_s"), float)

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
            raise RobotError("the arm is connected already; disconnect it first")
        self._connected, self._time_s = True, self._clock.now()

    def get_observation(self) -> Observation:
        """See `Robot`."""
        self._require_connection()
        elapsed_s, self._time_s = self._clock.now() - self._time_s, self._clock.now()
        way = -np.expm1(-elapsed_s / self._lag_s)
        self._position = self._position + way * (self._target - self._position)
        return {**dict(zip(JOINTS, self._position.tolist(), strict=True)), "time_s": self._time_s}

    def send_action(self, action: Action) -> Action:
        """See `Robot`."""
        self._require_connection()
        self._target = np.clip(action_vector(action, JOINTS), -1.0, 1.0)
        return dict(zip(JOINTS, self._target.tolist(), strict=True))

    def disconnect(self) -> None:
        """See `Robot`."""
        self._connected = False

    def _require_connection(self) -> None:
        if not self._connected:
            raise RobotError("the arm is not connected; call connect first")


def at_zero(observation: Observation) -> Verdict:
    """Judge a step: the nearer to zero, the better."""
    distance = float(np.hypot(*(observation[joint] for joint in JOINTS)))
    return Verdict(reward=-distance, success=distance < 0.1)


def in_front(positions: np.ndarray, observation: Observation) -> np.ndarray:
    """Return the nearest allowed positions [2]: the elbow never opens beyond half a radian."""
    return np.minimum(positions, [1.0, 0.5])
