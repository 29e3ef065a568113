"""A force-limited wrist with six degrees of freedom: the arm that carries the hand, without its kinematics.

Three slides move a point of the hand in the world, three hinges turn the hand about that point:
`R = Rz(yaw) Ry(pitch) Rx(roll) R0`. Position servos with bounded force drive them, as an arm under impedance
control would; the hand's weight is compensated, the load's is not.
"""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from serfn.tasks.orca_hand.model import TOWER, mount_hand

WRIST_JOINTS = ("arm_x", "arm_y", "arm_z", "arm_yaw", "arm_pitch", "arm_roll")
NUM_WRIST_JOINTS = len(WRIST_JOINTS)


@dataclass(frozen=True)
class WristConfig:
    """Limits and servos of the wrist; translations in m and N, rotations in rad and Nm.

    Attributes:
        low, high: range of each of `WRIST_JOINTS`.
        stiffness: position gain of (slides, hinges).
        damping: velocity gain of (slides, hinges).
        max_force: largest force of (slides, hinges).
        armature: reflected inertia of (slides, hinges).
        max_change: largest change of a target in one control step of (slides, hinges).
    """

    low: tuple[float, ...] = (-0.6, -0.4, 0.05, -1.0, -0.6, -0.7)
    high: tuple[float, ...] = (0.4, 0.3, 0.8, 1.0, 1.6, 0.7)
    stiffness: tuple[float, float] = (2500.0, 60.0)
    damping: tuple[float, float] = (140.0, 4.0)
    max_force: tuple[float, float] = (60.0, 6.0)
    armature: tuple[float, float] = (0.5, 0.01)
    max_change: tuple[float, float] = (0.03, 0.15)


WRIST = WristConfig()


def add_wrist(
    spec: mujoco.MjSpec, centre_m: np.ndarray, axes: np.ndarray, config: WristConfig = WRIST
) -> None:
    """Put a hand on a wrist.

    Args:
        spec: a hand from `model.load_hand`.
        centre_m: the point of the hand, in the frame of its tower [3], that the wrist moves and turns about.
        axes: orientation of the tower in the world [3, 3] at zero wrist.
        config: limits and servos.
    """
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(axes).ravel())
    mount_hand(spec, tuple(-axes @ centre_m), tuple(quaternion))
    for body in spec.bodies:
        if body.name != "world":
            body.gravcomp = 1.0
    tower = spec.body(TOWER)
    directions = np.vstack([np.eye(3), np.eye(3)[::-1]])  # slides along x, y, z; hinges about z, y, x
    for index, (name, direction) in enumerate(zip(WRIST_JOINTS, directions, strict=True)):
        turns = int(index >= 3)
        limits = [config.low[index], config.high[index]]
        tower.add_joint(
            name=name,
            type=mujoco.mjtJoint.mjJNT_HINGE if turns else mujoco.mjtJoint.mjJNT_SLIDE,
            axis=axes.T @ direction,
            pos=centre_m,
            range=limits,
            limited=True,
            margin=0.0,
            armature=config.armature[turns],
            damping=0.0,
            frictionloss=0.0,
        )
        servo = spec.add_actuator(
            name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrlrange=limits, ctrllimited=True
        )
        servo.set_to_position(kp=config.stiffness[turns], kv=config.damping[turns])
        servo.forcelimited = True
        servo.forcerange = [-config.max_force[turns], config.max_force[turns]]
