"""Rotations as MuJoCo writes them: quaternions (w, x, y, z), with any number of leading batch axes."""

from __future__ import annotations

import numpy as np


def quaternion_to_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Return rotation matrices [..., 3, 3] of unit quaternions [..., 4]."""
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    # Simulations do this twice per control step, where stacking nine numbers would cost most of it.
    return np.ascontiguousarray(np.moveaxis(np.array(rows), (0, 1), (-2, -1)))


def yaw_twist(quaternion: np.ndarray) -> np.ndarray:
    """Return the rotation about the world's z axis [...] in radians, (-π, π], by swing-twist decomposition.

    Unlike integrated angular velocity this does not drift when an object wobbles.
    """
    return wrap_angle(2 * np.arctan2(quaternion[..., 3], quaternion[..., 0]))


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Return angles wrapped to [-π, π)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def yaw_quaternion(yaw: float) -> np.ndarray:
    """Return the quaternion [4] of a rotation by `yaw` radians about z."""
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def perturb_quaternion(quaternion: np.ndarray, rotation_vector: np.ndarray) -> np.ndarray:
    """Return `quaternion` [4] followed by the world-frame rotation `rotation_vector` [3] in radians."""
    angle = float(np.linalg.norm(rotation_vector))
    scale = 0.5 if angle < 1e-9 else np.sin(angle / 2) / angle
    aw, (ax, ay, az) = np.cos(angle / 2), rotation_vector * scale
    bw, bx, by, bz = quaternion
    return np.array(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ]
    )
