"""What can be measured in the scissors task, and the observation made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serfn.tasks.orca_hand.model import JOINTS
from serfn.tasks.orca_hand.scissors.geometry import SCISSORS, WRIST_CENTRE_M, approach_rotation
from serfn.tasks.orca_hand.wrist import WRIST_JOINTS

MOTORS = (*WRIST_JOINTS, *JOINTS)
NUM_MOTORS = len(MOTORS)

CUT_AT_M = 0.050
"""Where the tape should lie between the blades when they close, from the pivot."""
HELD_PIVOT_M = np.array([-0.052, 0.047, 0.162]) - WRIST_CENTRE_M
"""Place [3] of the pivot of scissors that are held well, from the wrist's point, in the hand frame."""
NEAR_M, NEAR_RAD = 0.02, 0.2
"""Scales of the magnified features: they saturate beyond."""
MAX_ERROR_RAD = 0.5
"""Tracking errors are clipped here, where a motor of the hand as it ships gives its largest torque."""


@dataclass(frozen=True)
class ScissorsState:
    """What can be measured, SI units; rotations are matrices to the world.

    Attributes:
        wrist: wrist joints [6] in m and rad.
        joints: hand joints [17] in rad.
        tracking_errors: what the hand's motors were last told, less the measured joints [17] in rad.
        hand_position: the point of the hand that the wrist moves [3].
        hand_rotation: the hand frame [3, 3].
        scissors_position: the pivot [3].
        scissors_rotation: the scissors frame [3, 3].
        angle: opening angle in rad.
        angle_rate: its rate in rad/s.
        tape_position: the tape's middle as it was put up [3].
        tape_yaw, tape_pitch: the tape's orientation in rad.
        tape_middle: the tape's middle now [3].
        case_position: centre of the case's rim [3].
        case_axis: direction out of the case [3].
        pierced: whether thumb, index and middle finger pass through their loops.
        touching: whether the thumb touches the scissors, a finger touches them, and they touch the case.
    """

    wrist: np.ndarray
    joints: np.ndarray
    tracking_errors: np.ndarray
    hand_position: np.ndarray
    hand_rotation: np.ndarray
    scissors_position: np.ndarray
    scissors_rotation: np.ndarray
    angle: float
    angle_rate: float
    tape_position: np.ndarray
    tape_yaw: float
    tape_pitch: float
    tape_middle: np.ndarray
    case_position: np.ndarray
    case_axis: np.ndarray
    pierced: tuple[bool, bool, bool]
    touching: tuple[bool, bool, bool]

    @property
    def held(self) -> bool:
        """Whether thumb and a finger pass through the loops and touch the scissors."""
        thumb, index, middle = self.pierced
        return thumb and (index or middle) and self.touching[0] and self.touching[1]

    @property
    def tip_height(self) -> float:
        """Height in m of the blades' tips above the rim, along the case's axis."""
        tip = self.scissors_position - SCISSORS.blade_length_m * self.scissors_rotation[:, 0]
        return float(self.case_axis @ (tip - self.case_position))

    @property
    def handles_from_hand(self) -> float:
        """Distance in m of the handles' middle from the point of the hand that the wrist moves."""
        reach = (SCISSORS.thumb.centre_m[0] + SCISSORS.finger.centre_m[0]) / 2
        handles = self.scissors_position + reach * self.scissors_rotation[:, 0]
        return float(np.linalg.norm(handles - self.hand_position))


OBSERVATION_NAMES = (
    *(f"wrist_position.{name}" for name in WRIST_JOINTS),
    *(f"joint_position.{name}" for name in JOINTS),
    *(f"tracking_error.{name}" for name in JOINTS),
    *(f"scissors_position.{axis}" for axis in "xyz"),
    *(f"scissors_axis.{column}.{axis}" for column in ("handles", "normal") for axis in "xyz"),
    "scissors_angle", "scissors_angle_rate",
    *(f"scissors_in_hand.{axis}" for axis in "xyz"),
    *(f"tape_position.{axis}" for axis in "xyz"),
    "tape_yaw.cos", "tape_yaw.sin", "tape_pitch",
    *(f"tape_in_scissors.{axis}" for axis in "xyz"),
    *(f"case_position.{axis}" for axis in "xyz"),
    "case_axis.x", "case_axis.y",
    *(f"pierced.{finger}" for finger in ("thumb", "index", "middle")),
    *(f"touching.{what}" for what in ("thumb", "fingers", "case")),
    *(f"near_{place}.{axis}" for place in ("grip", "grip_turn", "cut", "cut_turn") for axis in "xyz"),
)  # fmt: skip


def observation_features(state: ScissorsState) -> np.ndarray:
    """Return the features [86] float32 in the order of `OBSERVATION_NAMES`.

    SI units, but for the `near` features, which lie in (-1, 1).
    """
    in_hand = state.hand_rotation.T @ (state.scissors_position - state.hand_position)
    in_scissors = state.scissors_rotation.T @ (state.tape_middle - state.scissors_position)
    parts = (
        state.wrist,
        state.joints,
        np.clip(state.tracking_errors, -MAX_ERROR_RAD, MAX_ERROR_RAD),
        state.scissors_position,
        state.scissors_rotation[:, 0],
        state.scissors_rotation[:, 1],
        (state.angle, state.angle_rate),
        in_hand,
        state.tape_position,
        (np.cos(state.tape_yaw), np.sin(state.tape_yaw), state.tape_pitch),
        in_scissors,
        state.case_position,
        state.case_axis[:2],
        state.pierced,
        state.touching,
        *_near_features(state, in_hand),
    )
    return np.concatenate(parts).astype(np.float32)


def _near_features(state: ScissorsState, in_hand: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return what decides in the last centimetres, magnified: scissors against hand, and against tape.

    A quantity that varies over half a metre hides millimetres from a network. These saturate at a distance.
    """
    goal = approach_rotation(state.tape_yaw, state.tape_pitch)
    offset = goal.T @ (state.scissors_position - state.tape_position) - [CUT_AT_M, 0.0, 0.0]
    return (
        np.tanh((in_hand - HELD_PIVOT_M) / NEAR_M),
        np.tanh(_turn(state.hand_rotation.T @ state.scissors_rotation) / NEAR_RAD),
        np.tanh(offset / NEAR_M),
        np.tanh(_turn(goal.T @ state.scissors_rotation) / NEAR_RAD),
    )


def _turn(rotation: np.ndarray) -> np.ndarray:
    """Return the axis [3] of a rotation times the sine of its angle: the rotation vector of small ones."""
    return 0.5 * np.array([
        rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]
    ])  # fmt: skip
