"""Dimensions of the scissors task: scissors, their handle loops, the case, the tape and the wrist.

**Scissors frame.** The origin is the pivot; x points along the bisector from the blades towards the handles,
y is the normal of the scissors' plane (fingers enter the loops along +y), z is the opening direction. The
thumb half turns by +angle/2 about y: its loop moves to -z and its blade to +z. The finger half turns by
-angle/2: its loop moves to +z and its blade to -z. At angle 0 the halves lie on each other.

**Hand frame.** The frame of the body `right_tower`: z points along the forearm towards the fingers. With all
wrist joints at zero the hand's axes are `HAND_AXES` in the world: fingers towards -x, the hand's x axis up.

Lengths are in metres, angles in radians, masses in kilograms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Half = Literal["thumb", "finger"]

HAND_AXES = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Rotation [3, 3] from the hand frame to the world at zero wrist; the resting scissors have it too."""

WRIST_CENTRE_M = np.array([0.0184, 0.0468, 0.1626])
"""Point [3] in the hand frame about which the wrist turns and which its slides move: near the handles."""


@dataclass(frozen=True)
class LoopGeometry:
    """A rounded loop of capsules in a plane parallel to the scissors.

    Attributes:
        centre_m: centre (x, z) in the frame of its half.
        offset_m: y of its plane; the loops are offset because the thumb reaches deeper than the fingers.
        half_length_m: half extent of the centre line along x.
        half_width_m: half extent of the centre line along z.
        tube_radius_m: radius of the capsules.
        segments: number of capsules.
        mass_kg: mass of the loop.
    """

    centre_m: tuple[float, float]
    offset_m: float
    half_length_m: float
    half_width_m: float
    tube_radius_m: float
    segments: int
    mass_kg: float

    @property
    def inner_half_length_m(self) -> float:
        """Half extent of the opening along x."""
        return self.half_length_m - self.tube_radius_m

    @property
    def inner_half_width_m(self) -> float:
        """Half extent of the opening along z."""
        return self.half_width_m - self.tube_radius_m

    @property
    def centre(self) -> np.ndarray:
        """Centre [3] in the frame of its half."""
        return np.array([self.centre_m[0], self.offset_m, self.centre_m[1]])

    def corners(self) -> np.ndarray:
        """Ends of the capsules [segments, 3] in the frame of the half, on a superellipse."""
        turn = np.linspace(0, 2 * np.pi, self.segments, endpoint=False)
        exponent = 0.75
        x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** exponent
        z = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** exponent
        ring = np.stack([self.half_length_m * x, np.zeros_like(x), self.half_width_m * z], axis=-1)
        return self.centre + ring


@dataclass(frozen=True)
class ScissorsGeometry:
    """Two hinged halves, each a blade, an arm and a loop.

    Attributes:
        blade_length_m: from the pivot to the tip.
        blade_width_m: width of one blade in the opening direction; its edge lies on the bisector when closed.
        blade_thickness_m: thickness of one blade.
        blade_offset_m: distance of a blade's middle from the scissors' plane.
        edge_m: how far a blade's edge lies beyond the pivot in the opening direction: the edges overlap by
            twice this when closed.
        blade_mass_kg: mass of one blade.
        arm_radius_m: radius of the capsule from pivot to loop.
        arm_mass_kg: mass of one arm.
        max_angle_rad: end stop of the hinge.
        hinge_friction_nm: dry friction of the hinge.
        hinge_damping_nms: viscous friction of the hinge.
        thumb, finger: the loops.
    """

    blade_length_m: float = 0.085
    blade_width_m: float = 0.010
    blade_thickness_m: float = 0.0018
    blade_offset_m: float = 0.0011
    edge_m: float = 0.001
    blade_mass_kg: float = 0.016
    arm_radius_m: float = 0.0035
    arm_mass_kg: float = 0.0065
    max_angle_rad: float = 0.7
    hinge_friction_nm: float = 0.02
    hinge_damping_nms: float = 0.001
    thumb: LoopGeometry = field(
        default_factory=lambda: LoopGeometry(
            centre_m=(0.066, -0.026),
            offset_m=0.007,
            half_length_m=0.0195,
            half_width_m=0.018,
            tube_radius_m=0.003,
            segments=10,
            mass_kg=0.010,
        )
    )
    finger: LoopGeometry = field(
        default_factory=lambda: LoopGeometry(
            centre_m=(0.090, 0.026),
            offset_m=-0.007,
            half_length_m=0.0335,
            half_width_m=0.018,
            tube_radius_m=0.003,
            segments=12,
            mass_kg=0.013,
        )
    )

    def loop(self, half: Half) -> LoopGeometry:
        """Return the loop of a half."""
        return self.thumb if half == "thumb" else self.finger

    def loop_centre(self, half: Half, angle_rad: float) -> np.ndarray:
        """Return a loop's centre [3] in the scissors frame at an opening angle."""
        return half_rotation(half, angle_rad) @ self.loop(half).centre

    def edge_gap(self, distance_m: float, angle_rad: float) -> float:
        """Return the gap in m between the edges at a distance from the pivot towards the tips.

        It is negative where the edges have passed each other: `2 (distance · tan(angle/2) - edge)`.
        """
        return 2 * (distance_m * np.tan(angle_rad / 2) - self.edge_m)


@dataclass(frozen=True)
class CaseGeometry:
    """A slot in a block on the floor's stand; the closed blades rest in it, the handles above it.

    Attributes:
        position_m: nominal position of the rim's centre in the world.
        slot_m: inner width in the opening direction, inner thickness and depth of the slot.
        wall_m: thickness of the walls.
        rest_height_m: height of the scissors' pivot above the rim when the tips stand on the bottom.
    """

    position_m: tuple[float, float, float] = (0.0, 0.0, 0.2)
    slot_m: tuple[float, float, float] = (0.023, 0.011, 0.088)
    wall_m: float = 0.008
    rest_height_m: float = -0.003


@dataclass(frozen=True)
class TapeGeometry:
    """A strip between two posts, joined in its middle; its frame has y along the strip and x across it.

    Attributes:
        position_m: nominal position of its middle in the world.
        pitch_rad: nominal pitch of the scissors that cut it squarely (see `approach_rotation`).
        segments: stiff pieces on each side of the middle.
        segment_length_m: length of a piece along the strip.
        width_m: width of the strip.
        thickness_m: its thickness.
        segment_mass_kg: mass of a piece.
        post_radius_m: radius of the posts.
    """

    position_m: tuple[float, float, float] = (-0.32, 0.0, 0.40)
    pitch_rad: float = 0.75
    segments: int = 2
    segment_length_m: float = 0.03
    width_m: float = 0.010
    thickness_m: float = 0.0014
    segment_mass_kg: float = 0.0008
    post_radius_m: float = 0.004

    @property
    def half_span_m(self) -> float:
        """Distance from the middle to a post."""
        return self.segments * self.segment_length_m


SCISSORS = ScissorsGeometry()
CASE = CaseGeometry()
TAPE = TapeGeometry()


def rotation_y(angle_rad: float) -> np.ndarray:
    """Return the rotation [3, 3] about y."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def rotation_z(angle_rad: float) -> np.ndarray:
    """Return the rotation [3, 3] about z."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def half_rotation(half: Half, angle_rad: float) -> np.ndarray:
    """Return the rotation [3, 3] of a half in the scissors frame at an opening angle."""
    return rotation_y(angle_rad / 2 if half == "thumb" else -angle_rad / 2)


def approach_rotation(yaw_rad: float, pitch_rad: float) -> np.ndarray:
    """Return the scissors' rotation [3, 3] in the world that meets a tape of that yaw and pitch squarely."""
    return rotation_z(yaw_rad) @ rotation_y(pitch_rad) @ HAND_AXES


def rotation_angles(rotation: np.ndarray) -> np.ndarray:
    """Return (yaw, pitch, roll) [3] in rad of `rotation = Rz(yaw) Ry(pitch) Rx(roll)`: the wrist's joints.

    The hand's rotation in the world is `Rz(yaw) Ry(pitch) Rx(roll) HAND_AXES`.
    """
    yaw = np.arctan2(rotation[1, 0], rotation[0, 0])
    pitch = np.arcsin(np.clip(-rotation[2, 0], -1.0, 1.0))
    return np.array([yaw, pitch, np.arctan2(rotation[2, 1], rotation[2, 2])])
