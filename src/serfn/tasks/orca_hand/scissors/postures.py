"""Finger postures that hold scissors: one curve of joint angles over the scissors' opening angle.

Thumb, index and middle finger must pass through the handle loops wherever the hinge stands. At every opening
angle the lines of the distal links are to cross the planes of the loops in given points, while the scissors
stand still in the hand (its wrist joint at zero) but for a tilt that is linear in the angle. One damped
least-squares problem over all angles at once (Levenberg, Quarterly of Applied Mathematics 2, 1944; Nocedal
and Wright, Numerical Optimization, section 10.3) yields the joint angles, the place of the pivot in the hand
and the tilt. It depends on the hand model and the scissors' dimensions alone and takes about a second.
"""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import mujoco
import numpy as np
import orca_sim

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.model import JOINTS, NUM_JOINTS
from serfn.tasks.orca_hand.scissors.geometry import SCISSORS, ScissorsGeometry, rotation_y

GRIP_JOINTS = (
    "thumb_mcp", "thumb_abd", "thumb_pip", "thumb_dip",
    "index_abd", "index_mcp", "index_pip",
    "middle_abd", "middle_mcp", "middle_pip",
)  # fmt: skip
"""The joints of the three fingers that work the scissors; the others stay as they are."""
GRIP_INDICES = np.array([JOINTS.index(name) for name in GRIP_JOINTS])
"""Where they stand among all joints of the hand."""

_LINKS = ("right_thumb_dp", "right_index_ip", "right_middle_ip")
_JOINT_MARGIN_RAD = 0.02
_CROSSING_SCALE_M = 0.0005
_STEP = 1e-6


@dataclass(frozen=True)
class GripConfig:
    """What the postures aim at, and how they are solved.

    Attributes:
        angles_rad: opening angles of the curve's nodes, increasing.
        finger_spacing_m: distance of index and middle finger along the finger loop.
        depth_m: where the loop's plane crosses the distal link of thumb, index and middle finger, measured
            from the link's joint towards the tip.
        depth_scale_m: deviation from that depth which weighs as much as `_CROSSING_SCALE_M` aside.
        pivot_m: place of the scissors' pivot in the hand frame from which the solution starts.
        posture_rad: joint angles from which it starts, ordered as `GRIP_JOINTS`.
        preferred_rad: joint angles towards which it is drawn where the loops leave a choice.
        preference: strength of that pull per joint, in 1/rad.
        smoothness: strength of the pull between neighbouring nodes, in 1/rad.
        iterations: most iterations of damped least squares.

    Raises:
        ConfigError: fewer than two angles, or angles that do not increase.
    """

    angles_rad: tuple[float, ...] = (-0.08, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    finger_spacing_m: float = 0.031
    depth_m: tuple[float, float, float] = (-0.016, 0.014, 0.014)
    depth_scale_m: tuple[float, float, float] = (0.02, 0.005, 0.005)
    pivot_m: tuple[float, float, float] = (-0.052, 0.047, 0.162)
    posture_rad: tuple[float, ...] = (0.0, -0.6, -0.3, -0.2, 0.0, 1.0, 0.4, 0.0, 1.0, 0.4)
    preferred_rad: tuple[float, ...] = (0.0, 0.0, 0.0, -0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    preference: tuple[float, ...] = (0.03, 0.03, 0.03, 2.0, 2.0, 0.03, 0.03, 2.0, 0.03, 0.03)
    smoothness: float = 0.1
    iterations: int = 60

    def __post_init__(self) -> None:
        if len(self.angles_rad) < 2 or np.any(np.diff(self.angles_rad) <= 0):
            raise ConfigError(f"angles_rad must be at least two increasing numbers, got {self.angles_rad}")


@dataclass(frozen=True)
class GripPostures:
    """The solved curve.

    Attributes:
        angles_rad: opening angles of the nodes [nodes].
        joints_rad: joint angles [nodes, 10], ordered as `GRIP_JOINTS`.
        pivot_m: the scissors' pivot in the hand frame [3].
        tilt_rad: the scissors' rotation about the hand's -y axis at opening angle 0.
        tilt_slope: its change per radian of opening.
        errors_m: distances [nodes, 3] by which the finger lines miss their points in the loops' planes.
    """

    angles_rad: np.ndarray
    joints_rad: np.ndarray
    pivot_m: np.ndarray
    tilt_rad: float
    tilt_slope: float
    errors_m: np.ndarray

    def posture(self, angle_rad: float) -> np.ndarray:
        """Return the joint angles [10] for an opening angle.

        The curve is piecewise linear and goes on in a straight line beyond its ends: targets beyond the
        closed angle press the handles together.
        """
        angles = self.angles_rad
        node = int(np.clip(np.searchsorted(angles, angle_rad) - 1, 0, len(angles) - 2))
        share = (angle_rad - angles[node]) / (angles[node + 1] - angles[node])
        return (1 - share) * self.joints_rad[node] + share * self.joints_rad[node + 1]

    def closing(self) -> np.ndarray:
        """Return how the hand's joints [17] move per radian as the scissors close from 0.4 rad."""
        opened = 0.4
        change = np.zeros(NUM_JOINTS)
        change[GRIP_INDICES] = (self.posture(0.0) - self.posture(opened)) / opened
        return change

    def scissors_in_hand(self, angle_rad: float) -> np.ndarray:
        """Return the rotation [3, 3] of the held scissors in the hand frame; their pivot is `pivot_m`."""
        return rotation_y(-(self.tilt_rad + self.tilt_slope * angle_rad))


@lru_cache(maxsize=2)
def grip_postures(geometry: ScissorsGeometry = SCISSORS, config: GripConfig | None = None) -> GripPostures:
    """Solve the postures for scissors; the same arguments give the same object.

    Minimises over pivot, tilt and all joint angles q_k, within the joint limits,

        Σ_k Σ_fingers |miss|² / scale² + (depth error)² / scale² + (obliqueness)² + |preference (q_k - q*)|²
        + Σ_k |smoothness (q_k - q_{k-1})|².
    """
    config = config or GripConfig()
    problem = _GripProblem(geometry, config)
    frame = np.array([*config.pivot_m, 0.0, 0.0])
    joints = problem.clip(np.tile(np.array(config.posture_rad), (len(config.angles_rad), 1)))
    residual, jacobian = problem.linearize(frame, joints)
    damping = 1e-2
    for _ in range(config.iterations):
        normal = jacobian.T @ jacobian
        gradient = jacobian.T @ residual
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-9), -gradient)
        new_frame = frame + step[:5]
        new_joints = problem.clip(joints + step[5:].reshape(joints.shape))
        new_residual, new_jacobian = problem.linearize(new_frame, new_joints)
        gain = residual @ residual - new_residual @ new_residual
        if gain <= 0:
            damping = min(4 * damping, 1e8)
            continue
        frame, joints, residual, jacobian = new_frame, new_joints, new_residual, new_jacobian
        damping = max(damping / 3, 1e-9)
        if gain < 1e-9:
            break
    misses = problem.misses(frame, *problem.links(joints))[0]
    return GripPostures(
        angles_rad=np.array(config.angles_rad),
        joints_rad=joints,
        pivot_m=frame[:3],
        tilt_rad=float(frame[3]),
        tilt_slope=float(frame[4]),
        errors_m=np.linalg.norm(misses, axis=-1),
    )


class _GripProblem:
    """Residuals of the postures; `frame` [5] is the pivot, the tilt and its slope."""

    def __init__(self, geometry: ScissorsGeometry, config: GripConfig) -> None:
        model = mujoco.MjModel.from_xml_path(str(Path(orca_sim.__file__).parent / "scene_right.xml"))
        self._model, self._data = model, mujoco.MjData(model)
        joints = [model.joint(f"right_{name}") for name in GRIP_JOINTS]
        self._addresses = [joint.qposadr[0] for joint in joints]
        self._low = np.array([joint.range[0] for joint in joints]) + _JOINT_MARGIN_RAD
        self._high = np.array([joint.range[1] for joint in joints]) - _JOINT_MARGIN_RAD
        self._tower = model.body("right_tower").id
        self._bodies = [model.body(name).id for name in _LINKS]
        self._config = config
        angles = np.array(config.angles_rad)
        self._angles = angles
        spacing = config.finger_spacing_m / 2
        points = []
        for angle in angles:
            along = rotation_y(-angle / 2)[:, 0]
            finger = geometry.loop_centre("finger", angle)
            points.append(
                [geometry.loop_centre("thumb", angle), finger - spacing * along, finger + spacing * along]
            )
        self._points = np.array(points)
        count, width = len(angles), len(GRIP_JOINTS)
        self._preference = np.tile(np.array(config.preference), count)
        self._preferred = np.tile(np.array(config.preferred_rad), count)
        self._difference = config.smoothness * (
            np.eye(width * (count - 1), width * count, width) - np.eye(width * (count - 1), width * count)
        )

    def clip(self, joints: np.ndarray) -> np.ndarray:
        """Return joint angles [nodes, 10] inside their limits."""
        return np.clip(joints, self._low, self._high)

    def links(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return origins and axes [nodes, fingers, 3] of the distal links in the hand frame."""
        data, origins, axes = self._data, [], []
        for row in joints:
            data.qpos[:] = 0.0
            data.qpos[self._addresses] = row
            mujoco.mj_kinematics(self._model, data)
            hand = data.xmat[self._tower].reshape(3, 3)
            origins.append((data.xpos[self._bodies] - data.xpos[self._tower]) @ hand)
            axes.append(data.xmat[self._bodies].reshape(-1, 3, 3)[:, :, 2] @ hand)
        return np.array(origins), np.array(axes)

    def misses(
        self, frame: np.ndarray, origins: np.ndarray, axes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the misses (x, z) [nodes, fingers, 2] and the crossings' depths [nodes, fingers], in m."""
        tilts = frame[3] + frame[4] * self._angles
        rotations = np.array([rotation_y(-tilt) for tilt in tilts])
        points = frame[:3] + np.einsum("kij,kfj->kfi", rotations, self._points)
        # A link square to the normal would cross at infinity: bounded, so that any start will do.
        depths = (points[..., 1] - origins[..., 1]) / np.maximum(axes[..., 1], 0.3)
        crossings = origins + depths[..., None] * axes
        return (crossings - points)[..., [0, 2]], depths

    def linearize(self, frame: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all residuals [n] and their Jacobian [n, 5 + nodes·10], by forward differences."""
        count, width = joints.shape
        links = self.links(joints)
        base = self._grip_residuals(frame, *links)
        rows = base.shape[1]
        jacobian = np.zeros((count, rows, 5 + count * width))
        for index in range(5):
            moved = frame.copy()
            moved[index] += _STEP
            jacobian[:, :, index] = (self._grip_residuals(moved, *links) - base) / _STEP
        nodes = np.arange(count)
        for index in range(width):
            moved = joints.copy()
            moved[:, index] += _STEP
            slope = (self._grip_residuals(frame, *self.links(moved)) - base) / _STEP
            jacobian[nodes, :, 5 + nodes * width + index] = slope
        flat = joints.ravel()
        linear = np.zeros((count * width + len(self._difference), 5 + count * width))
        linear[: count * width, 5:] = np.diag(self._preference)
        linear[count * width :, 5:] = self._difference
        residual = np.concatenate(
            [base.ravel(), self._preference * (flat - self._preferred), self._difference @ flat]
        )
        return residual, np.concatenate([jacobian.reshape(count * rows, -1), linear])

    def _grip_residuals(self, frame: np.ndarray, origins: np.ndarray, axes: np.ndarray) -> np.ndarray:
        """Return the residuals [nodes, rows] that depend on the links."""
        misses, depths = self.misses(frame, origins, axes)
        count = len(misses)
        depth = (depths - np.array(self._config.depth_m)) / np.array(self._config.depth_scale_m)
        oblique = axes[..., [0, 2]] / 0.4
        steep = np.maximum(0.0, 0.8 - axes[..., 1]) / 0.1
        tilt = (np.full((count, 1), value / np.sqrt(count)) for value in (frame[3] / 0.3, frame[4] / 0.5))
        return np.concatenate(
            [misses.reshape(count, -1) / _CROSSING_SCALE_M, depth, oblique.reshape(count, -1), steep, *tilt],
            axis=1,
        )
