"""Reading an observation of the scissors task back: the poses and flags that a demonstrator reasons about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serfn.tasks.orca_hand.model import JOINTS
from serfn.tasks.orca_hand.scissors.geometry import HAND_AXES, rotation_y, rotation_z
from serfn.tasks.orca_hand.scissors.state import OBSERVATION_NAMES
from serfn.tasks.orca_hand.wrist import NUM_WRIST_JOINTS, WRIST_JOINTS

_INDEX = {name: index for index, name in enumerate(OBSERVATION_NAMES)}
_STAGES = {name: len(OBSERVATION_NAMES) + index for index, name in enumerate(("grasp", "retrieve", "reach"))}


@dataclass(frozen=True)
class Reading:
    """What one observation says, SI units; rotations are matrices to the world.

    Attributes:
        wrist: wrist joints [6] in m and rad; the first three are the moved point of the hand.
        hand_rotation: the hand frame [3, 3].
        joints: hand joints [17] in rad.
        scissors_position: the pivot [3].
        scissors_rotation: the scissors frame [3, 3].
        angle: opening angle in rad.
        tape_position: the tape's middle as it was put up [3].
        tape_yaw, tape_pitch: the tape's orientation in rad.
        case_position: centre of the case's rim [3].
        thumb_inside: whether the thumb passes through its loop.
        grasped, retrieved: whether these stages were achieved.
    """

    wrist: np.ndarray
    hand_rotation: np.ndarray
    joints: np.ndarray
    scissors_position: np.ndarray
    scissors_rotation: np.ndarray
    angle: float
    tape_position: np.ndarray
    tape_yaw: float
    tape_pitch: float
    case_position: np.ndarray
    thumb_inside: bool
    grasped: bool
    retrieved: bool


def read(observation: np.ndarray) -> Reading:
    """Return the reading of an observation [89] of `serfn/OrcaScissorsTape-v0`."""
    values = np.asarray(observation, dtype=np.float64)
    wrist = values[_first("wrist_position", WRIST_JOINTS[0], NUM_WRIST_JOINTS)]
    handles = values[_first("scissors_axis.handles", "x", 3)]
    normal = values[_first("scissors_axis.normal", "x", 3)]
    yaw, pitch, roll = wrist[3:]
    return Reading(
        wrist=wrist,
        hand_rotation=rotation_z(yaw) @ rotation_y(pitch) @ _rotation_x(roll) @ HAND_AXES,
        joints=values[_first("joint_position", JOINTS[0], len(JOINTS))],
        scissors_position=values[_first("scissors_position", "x", 3)],
        scissors_rotation=np.stack([handles, normal, np.cross(handles, normal)], axis=-1),
        angle=float(values[_INDEX["scissors_angle"]]),
        tape_position=values[_first("tape_position", "x", 3)],
        tape_yaw=float(np.arctan2(values[_INDEX["tape_yaw.sin"]], values[_INDEX["tape_yaw.cos"]])),
        tape_pitch=float(values[_INDEX["tape_pitch"]]),
        case_position=values[_first("case_position", "x", 3)],
        thumb_inside=bool(values[_INDEX["pierced.thumb"]] > 0.5),
        grasped=bool(values[_STAGES["grasp"]] > 0.5),
        retrieved=bool(values[_STAGES["retrieve"]] > 0.5),
    )


def _first(group: str, name: str, count: int) -> slice:
    start = _INDEX[f"{group}.{name}"]
    return slice(start, start + count)


def _rotation_x(angle_rad: float) -> np.ndarray:
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
