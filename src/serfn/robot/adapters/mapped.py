"""A robot in a policy's terms: its joints renamed, turned and shifted by a `JointMap`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serfn.core.errors import ConfigError
from serfn.core.spec import ActionSpec, ObservationSpec
from serfn.robot.adapters.described import DescribedRobot
from serfn.robot.adapters.joint_map import JointMap, JointRow
from serfn.robot.contract import (
    Action,
    Feature,
    Observation,
    Robot,
    RobotError,
    RobotInfo,
    action_vector,
    read_vector,
)
from serfn.robot.health import JointHealth, Recovers, health_of

HELD_TOLERANCE_RAD = 0.05
"""How far from its angle a held joint may stand at the start."""

_COMMAND, _VELOCITY = ".pos", ".vel"


class MappedRobot(DescribedRobot):
    """A robot under the names, order, signs and zeros of the joints that a policy knows.

    Commands are named as the policy's joints, measurements `joint_position.X`, `joint_velocity.X` (of all
    joints) and `joint_target.X` (of the commanded ones), in this order, as in our simulated hands. Everything
    else, such as currents, temperatures and what a tracker sees, passes through as the robot names it. Bounds
    are the robot's own ranges of motion; a policy may have been trained in wider ones (`RobotInfo.accepts`).

    Held joints never move, as the safety supervisor does not see them: they must stand at their angles, to
    within `HELD_TOLERANCE_RAD`, when the robot is first read, and stay where their motors are driven to.

    Args:
        robot: A robot in rad that measures its joints; its commands are named `JOINT.pos`.
        joints: The table.

    Raises:
        ConfigError: The table does not fit the robot.
    """

    def __init__(self, robot: Robot, joints: JointMap) -> None:
        self._robot, self._map = robot, joints
        info = robot.info
        if info.unit != "rad" or not info.position_keys:
            raise ConfigError(
                f"robot '{info.name}' has commands in {info.unit} and {len(info.position_keys)} measured "
                "joints; a joint map needs rad and all of them"
            )
        own = [name.removesuffix(_COMMAND) for name in info.action.names]
        ranges = zip(info.action.low, info.action.high, strict=True)
        joints.check(dict(zip(own, ranges, strict=True)))
        # What the robot lists at order[i] is the i-th row of the table.
        order = [own.index(row.robot) for row in joints.joints]
        self._names = [info.action.names[index] for index in order]
        self._positions = [info.position_keys[index] for index in order]
        self._targets = [info.target_keys[index] for index in order] if info.target_keys else []
        velocities = [row.robot + _VELOCITY for row in joints.joints]
        self._velocities = velocities if set(velocities) <= set(robot.observation_features) else []
        replaced = {*self._positions, *self._targets, *self._velocities}
        self._passed = [key for key in robot.observation_features if key not in replaced]
        self._signs = np.array([row.sign for row in joints.joints], np.float64)
        self._is_held = np.array([row.policy in joints.held_rad for row in joints.joints])
        self._wanted_held = np.array([joints.held_rad.get(row.policy, 0.0) for row in joints.joints])
        self._info = self._describe(info, order)
        self._forget()

    @property
    def joint_map(self) -> JointMap:
        """The table."""
        return self._map

    @property
    def observation_features(self) -> Mapping[str, Feature]:
        """See `Robot`."""
        features = self._robot.observation_features
        mapped = (*self._keys("position"), *self._info.target_keys)
        mapped += self._keys("velocity") if self._velocities else ()
        return dict.fromkeys(mapped, float) | {key: features[key] for key in self._passed}

    @property
    def is_connected(self) -> bool:
        """See `Robot`."""
        return self._robot.is_connected

    @property
    def is_calibrated(self) -> bool:
        """See `Robot`."""
        return self._robot.is_calibrated

    def connect(self, calibrate: bool = True) -> None:
        """See `Robot`."""
        self._forget()
        self._robot.connect(calibrate)

    def get_observation(self) -> Observation:
        """See `Robot`."""
        measured = self._robot.get_observation()
        positions = self._map.to_policy(read_vector(measured, self._positions))
        targets = self._map.to_policy(read_vector(measured, self._targets)) if self._targets else positions
        if not self._started:
            self._hold(targets)
        observation: Observation = dict(zip(self._keys("position"), positions.tolist(), strict=True))
        if self._velocities:
            velocities = self._signs * read_vector(measured, self._velocities)
            observation.update(zip(self._keys("velocity"), velocities.tolist(), strict=True))
        if self._targets:
            commanded = targets[~self._is_held].tolist()
            observation.update(zip(self._info.target_keys, commanded, strict=True))
        return observation | {key: measured[key] for key in self._passed}

    def send_action(self, action: Action) -> Action:
        """See `Robot`; held joints stay where they are, see the class."""
        values = action_vector(action, self._info.action.names)
        if not self._started:
            self.get_observation()
        wanted = self._held_rad.copy()
        wanted[~self._is_held] = values
        command = dict(zip(self._names, self._map.to_robot(wanted).tolist(), strict=True))
        answer = self._robot.send_action(command)
        sent = self._map.to_policy(read_vector(answer, self._names))[~self._is_held]
        return dict(zip(self._info.action.names, sent.tolist(), strict=True))

    def health(self, *, complete: bool = False) -> Mapping[str, JointHealth]:
        """See `ReportsHealth`; by the policy's names, as the robot's own where the policy has none."""
        known = health_of(self._robot, complete=complete)
        return {self._policy_name(joint): health for joint, health in known.items()}

    def recover(self, joints: Sequence[str]) -> Sequence[str]:
        """See `Recovers`."""
        if not isinstance(self._robot, Recovers):
            return [f"robot '{self._robot.name}' clears no faults: see its own tools"]
        own = {self._policy_name(name): name for name in self._robot.info.action.names}
        return self._robot.recover([own.get(joint, joint) for joint in joints])

    def disconnect(self) -> None:
        """See `Robot`."""
        self._robot.disconnect()

    def row(self, name: str) -> JointRow:
        """Return the row of a command."""
        return next(row for row in self._map.joints if row.policy == name)

    def _policy_name(self, own: str) -> str:
        return dict(zip(self._names, (row.policy for row in self._map.joints), strict=True)).get(own, own)

    def _hold(self, targets: np.ndarray) -> None:
        """Hold the joints that the policy does not command where they are driven to, `targets` [joint]."""
        for row, target, wanted in zip(self._map.joints, targets, self._wanted_held, strict=True):
            if row.policy in self._map.held_rad and abs(target - wanted) > HELD_TOLERANCE_RAD:
                raise RobotError(
                    f"joint '{row.policy}' stands at {target:+.3f} rad and is to be held at {wanted:+.3f}; "
                    f"bring '{row.robot}' there with the robot's own tools, or change robot_options.held"
                )
        self._held_rad, self._started = np.where(self._is_held, targets, 0.0), True

    def _describe(self, info: RobotInfo, order: list[int]) -> RobotInfo:
        rows = self._map.commanded
        bounds = [row.bounds_rad for row in rows]
        names = tuple(row.policy for row in rows)
        rest = None
        if info.rest is not None:
            parked = self._map.to_policy(np.array(info.rest)[order])[~self._is_held]
            rest = tuple(np.clip(parked, *np.transpose(bounds)).tolist())
        target_keys = tuple(f"joint_target.{name}" for name in names) if self._targets else ()
        replaced = {*self._positions, *self._targets, *self._velocities}
        state_keys = (
            *self._keys("position"),
            *(self._keys("velocity") if self._velocities else ()),
            *target_keys,
            *(key for key in info.state_keys if key not in replaced),
        )
        ranges = [(*row.policy_range_rad, *bound) for row, bound in zip(rows, bounds, strict=True)]
        return RobotInfo(
            name=f"{info.name}:{self._map.name}",
            action=ActionSpec(tuple(low for low, _ in bounds), tuple(high for _, high in bounds), names),
            observation=ObservationSpec(len(state_keys), state_keys),
            state_keys=state_keys,
            control_hz=info.control_hz,
            image_keys=info.image_keys,
            position_keys=tuple(f"joint_position.{name}" for name in names),
            target_keys=target_keys,
            current_keys=info.current_keys,
            temperature_keys=info.temperature_keys,
            time_key=info.time_key,
            rest=rest,
            accepts=ActionSpec(
                tuple(min(values) for values in ranges), tuple(max(values) for values in ranges), names
            ),
            simulated=info.simulated,
        )

    def _keys(self, quantity: str) -> tuple[str, ...]:
        return tuple(f"joint_{quantity}.{row.policy}" for row in self._map.joints)

    def _forget(self) -> None:
        self._started = False
        self._held_rad = np.zeros(len(self._map.joints))
