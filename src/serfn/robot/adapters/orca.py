"""The ORCA hand through its driver `orca_core`, or the driver's own mock of the hand.

The driver speaks degrees; this adapter speaks radians. A reading costs two transactions on the bus (joint
positions, motor currents), a third once a second (temperatures); faults are asked for a few motors at a time.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from serfn.core.errors import ConfigError
from serfn.core.extras import extra
from serfn.core.spec import ActionSpec, ObservationSpec
from serfn.robot.adapters.described import DescribedRobot
from serfn.robot.adapters.orca_health import OrcaHealth
from serfn.robot.clock import Clock
from serfn.robot.contract import Action, Feature, Observation, RobotError, RobotInfo, action_vector
from serfn.robot.health import JointHealth

_Answer = TypeVar("_Answer")
_TEMPERATURE_PERIOD_S = 1.0


def load_orca_hand(
    *,
    mock: bool = False,
    config_path: str | None = None,
    calibration_path: str | None = None,
    model_name: str | None = None,
) -> Any:
    """Return the driver's object for a hand, not connected.

    Args:
        mock: The driver's mock, without hardware.
        config_path: The hand's `config.yaml`; None asks the hardware, or takes the model.
        calibration_path: The hand's `calibration.yaml`; None is the one beside the configuration.
        model_name: A model of the driver, such as `orcahand-right`.

    Raises:
        ConfigError: The driver is not installed, or refuses the configuration.
    """
    with extra("orca"):
        import orca_core
    if mock and config_path is None and model_name is None:
        model_name = "orcahand-right"
    try:
        return orca_core.load_hand(
            config_path=config_path, calibration_path=calibration_path, model_name=model_name, mock=mock
        )
    except (ValueError, OSError) as error:
        raise ConfigError(f"the ORCA driver refuses the configuration: {error}") from error


class OrcaRobot(DescribedRobot):
    """An ORCA hand with all joints of its configuration.

    Commands are positions in rad, bounded by the joints' ranges of motion; the state has position, velocity
    (difference of positions) and last command of every joint. `disconnect` switches the motors off.

    Args:
        hand: From `load_orca_hand`.
        clock: Clock of the loop.
        control_hz: Commands per second.
        simulated: Whether `hand` is the driver's mock.
    """

    def __init__(self, hand: Any, clock: Clock, control_hz: float = 20.0, *, simulated: bool = False) -> None:
        self._hand = hand
        self._clock = clock
        config = hand.config
        self._joints: tuple[str, ...] = tuple(config.joint_ids)
        ranges = np.radians([config.joint_roms_dict[joint] for joint in self._joints])
        names = tuple(f"{joint}.pos" for joint in self._joints)
        motors = [config.motor_to_joint_dict[motor] for motor in config.motor_ids]
        self._motor_joints = tuple(motors)
        self._health = OrcaHealth(
            hand,
            {motor: f"{joint}.pos" for motor, joint in zip(config.motor_ids, motors, strict=True)},
            control_hz,
        )
        state_keys = names + self._keys("vel") + self._keys("target")
        rest = np.radians([config.neutral_position[joint] for joint in self._joints])
        self._info = RobotInfo(
            name="orca",
            action=ActionSpec(tuple(ranges[:, 0].tolist()), tuple(ranges[:, 1].tolist()), names),
            observation=ObservationSpec(len(state_keys), state_keys),
            state_keys=state_keys,
            control_hz=control_hz,
            position_keys=names,
            target_keys=self._keys("target"),
            current_keys=self._keys("current"),
            temperature_keys=self._keys("temperature"),
            time_key="time_s",
            rest=tuple(np.clip(rest, ranges[:, 0], ranges[:, 1]).tolist()),
            simulated=simulated,
        )
        self._forget()

    @property
    def observation_features(self) -> Mapping[str, Feature]:
        """See `Robot`."""
        info = self._info
        return dict.fromkeys((*info.state_keys, *info.current_keys, *info.temperature_keys, "time_s"), float)

    @property
    def is_connected(self) -> bool:
        """See `Robot`."""
        return bool(self._hand.is_connected())

    @property
    def is_calibrated(self) -> bool:
        """See `Robot`; every motor has limits and a ratio."""
        return bool(self._hand.is_calibrated())

    def connect(self, calibrate: bool = True) -> None:
        """See `Robot`; switches the motors on if the hand is calibrated, and does not move it then.

        Calibration drives every joint to both ends. Without it, an uncalibrated hand stays limp.
        """
        if self.is_connected:
            raise RobotError("the ORCA hand is connected already; disconnect it first")
        self._forget()
        # The driver prints while it starts; only the command line may.
        with contextlib.redirect_stdout(io.StringIO()):
            opened, message = self._ask("connect", lambda: self._hand.connect(interactive=False))
            if not opened:
                raise RobotError(f"the ORCA hand cannot be reached: {message}; check power, cable and port")
            try:
                self._ask("read_stop_mask", self._health.opened)
                if calibrate or self.is_calibrated:
                    self._ask("init_joints", lambda: self._hand.init_joints(move_to_neutral=False))
            except RobotError:
                self._hand.disconnect()
                raise

    def get_observation(self) -> Observation:
        """See `Robot`."""
        self._require_connection()
        measured = self._ask("get_joint_position", self._hand.get_joint_position).as_dict()
        self._require_fresh()
        now_s = self._clock.now()
        positions = np.radians([measured.get(joint, math.nan) for joint in self._joints])
        if np.isnan(positions).any():
            joint = self._joints[int(np.argmax(np.isnan(positions)))]
            raise RobotError(f"joint '{joint}' of the ORCA hand has no position; calibrate the hand")
        velocities = np.zeros_like(positions)
        if self._positions is not None and now_s > self._time_s:
            velocities = (positions - self._positions) / (now_s - self._time_s)
        self._positions, self._time_s = positions, now_s
        currents = self._ask("get_motor_state", self._hand.get_motor_state).current
        self._require_fresh()
        if now_s - self._temperatures_s >= _TEMPERATURE_PERIOD_S:
            self._temperatures = self._ask("get_motor_temp", self._hand.get_motor_temp)
            self._temperatures_s = now_s
        targets = positions if self._target is None else self._target
        values = np.concatenate([positions, velocities, targets])
        observation: Observation = dict(zip(self._info.state_keys, values.tolist(), strict=True))
        for joint, current, temperature in zip(self._motor_joints, currents, self._temperatures, strict=True):
            observation[f"{joint}.current"] = float(current)
            observation[f"{joint}.temperature"] = float(temperature)
        observation["time_s"] = now_s
        return observation

    def send_action(self, action: Action) -> Action:
        """See `Robot`; the driver clips to the ranges of motion."""
        self._require_connection()
        values = action_vector(action, self._info.action.names)
        sent = np.clip(values, self._info.action.low, self._info.action.high)
        degrees = dict(zip(self._joints, np.degrees(sent).tolist(), strict=True))
        self._ask("set_joint_positions", lambda: self._hand.set_joint_positions(degrees))
        self._target = sent
        return dict(zip(self._info.action.names, sent.tolist(), strict=True))

    def health(self, *, complete: bool = False) -> Mapping[str, JointHealth]:
        """See `ReportsHealth`; by action name."""
        self._require_connection()
        return self._ask("read_hardware_error", lambda: self._health.ask(complete=complete))

    def recover(self, joints: Sequence[str]) -> Sequence[str]:
        """See `Recovers`; reboots the motors, each of which takes up to a second."""
        self._require_connection()
        return self._ask("reboot_motor", lambda: self._health.recover(joints))

    def disconnect(self) -> None:
        """See `Robot`; switches the motors off."""
        if not self.is_connected:
            return
        closed, message = self._ask("disconnect", self._hand.disconnect)
        if not closed:
            raise RobotError(f"the ORCA hand: {message}; cut its power if the motors still hold")

    def _keys(self, quantity: str) -> tuple[str, ...]:
        return tuple(f"{joint}.{quantity}" for joint in self._joints)

    def _forget(self) -> None:
        self._positions: np.ndarray | None = None
        self._target: np.ndarray | None = None
        self._time_s = -math.inf
        self._temperatures_s = -math.inf
        self._temperatures = np.zeros(len(self._motor_joints))

    def _require_connection(self) -> None:
        if not self.is_connected:
            raise RobotError("the ORCA hand is not connected; call connect first")

    def _require_fresh(self) -> None:
        # After a lost answer the driver returns its last reading; only this flag tells.
        if not self._hand.last_read_ok:
            raise RobotError("the motors of the ORCA hand did not answer")

    def _ask(self, what: str, call: Callable[[], _Answer]) -> _Answer:
        try:
            return call()
        # The driver raises OSError, RuntimeError, errors of its own and of the serial library.
        except Exception as error:
            raise RobotError(f"the ORCA hand: {what} failed: {error}") from error
