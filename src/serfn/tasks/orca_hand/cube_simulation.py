"""The physics of palm-down cube rotation: a cube in the grasp of the ORCA hand, before any notion of reward.

One `CubeSimulation` is one hand with one cube. `observation_features` turns states into observations for one
simulation or for a whole batch of them, so that demonstrators trained on many simulations see exactly what a
policy sees.
"""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import mujoco
import numpy as np

from serfn.tasks.orca_hand.model import (
    FINGERS,
    JOINTS,
    NUM_JOINTS,
    OBJECT_CONAFFINITY,
    OBJECT_CONTYPE,
    Collision,
    PhysicsConfig,
    palm_down_hand,
    set_motor_gain,
    tip_site,
)
from serfn.tasks.orca_hand.plant import Plant
from serfn.tasks.orca_hand.rotation import quaternion_to_matrix, yaw_quaternion, yaw_twist
from serfn.tasks.orca_hand.simulation import NOMINAL_MOTOR_GAIN, HandSimulation

CUBE_SIZE_M = 0.045
CUBE_MASS_KG = 0.05
GRASP_CENTRE_M = np.array([0.0037, 0.0468, 0.1804])

# Five fingers on the cube's faces, and the same posture opened by about 15 mm, in rad, ordered as `JOINTS`.
# The static grasp holds the cube from any start within the default randomisation.
GRASP_RAD = np.array([
    -0.15,
    0.3116, -0.8545, 0.0054, 0.6308,
    -0.2139, 1.1591, 0.7615,
    -0.0074, 0.7752, 0.8977,
    0.1723, 0.8334, 0.6509,
    -0.1224, 1.6693, -0.2,
])  # fmt: skip
OPEN_RAD = np.array([
    -0.15,
    0.2041, -1.0821, 0.0292, 0.8304,
    -0.6358, 1.0633, 0.8048,
    -0.0066, 0.7704, 0.7508,
    0.124, 0.9511, 0.1267,
    0.114, 1.4953, -0.2,
])  # fmt: skip

_CLOSING_S, _SETTLING_S = 0.4, 0.3

Snapshot = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Joint and object positions, their velocities, and the joint targets."""


@dataclass(frozen=True)
class CubeState:
    """What can be measured, for one simulation or a batch (leading axes `...`), SI units, world frame.

    Attributes:
        joints: joint positions [..., 17] in rad.
        joint_velocities: [..., 17] in rad/s.
        targets: last commanded joint targets [..., 17] in rad.
        position: cube centre [..., 3] in m.
        quaternion: cube orientation [..., 4].
        velocity: cube linear velocity [..., 3] in m/s.
        angular_velocity: cube angular velocity in the cube's frame [..., 3] in rad/s.
        tips: fingertip positions [..., 5, 3] in m.
    """

    joints: np.ndarray
    joint_velocities: np.ndarray
    targets: np.ndarray
    position: np.ndarray
    quaternion: np.ndarray
    velocity: np.ndarray
    angular_velocity: np.ndarray
    tips: np.ndarray

    @property
    def yaw(self) -> np.ndarray:
        """Cube rotation about the vertical [...] in radians."""
        return yaw_twist(self.quaternion)


OBSERVATION_NAMES = (
    *(f"joint_position.{name}" for name in JOINTS),
    *(f"joint_velocity.{name}" for name in JOINTS),
    *(f"joint_target.{name}" for name in JOINTS[1:]),
    *(f"tracking_error.{name}" for name in JOINTS),
    *(f"cube_offset.{axis}" for axis in "xyz"),
    "cube_tilt.x", "cube_tilt.y", "cube_yaw.cos4", "cube_yaw.sin4",
    *(f"cube_velocity.{axis}" for axis in "xyz"),
    *(f"cube_angular_velocity.{axis}" for axis in "xyz"),
    *(f"tip_from_cube.{finger}.{axis}" for finger in FINGERS for axis in "xyz"),
)  # fmt: skip


def observation_features(state: CubeState) -> np.ndarray:
    """Return observations [..., 95] float32, in the order of `OBSERVATION_NAMES`, SI units.

    The cube's yaw enters modulo 90° (its symmetry) and its angular velocity in the world frame.
    """
    rotation = quaternion_to_matrix(state.quaternion)
    heading = 4 * np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    spin = np.einsum("...ij,...j->...i", rotation, state.angular_velocity)
    tips = (state.tips - state.position[..., None, :]).reshape(*state.tips.shape[:-2], 3 * len(FINGERS))
    parts = (
        state.joints,
        state.joint_velocities,
        state.targets[..., 1:],
        state.targets - state.joints,
        state.position - GRASP_CENTRE_M,
        rotation[..., 0:2, 2],
        np.cos(heading)[..., None],
        np.sin(heading)[..., None],
        state.velocity,
        spin,
        tips,
    )
    return np.concatenate(parts, axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Randomization:
    """Ranges of the seeded randomisation of an episode's start and of the object.

    Attributes:
        position_m: half width of the cube's start offset in x and y.
        yaw_rad: half width of its start yaw.
        mass_kg: range of its mass.
        friction: range of the sliding friction.
        motor_gain: range of a common factor on the motor gain.
    """

    position_m: float = 0.004
    yaw_rad: float = 0.3
    mass_kg: tuple[float, float] = (0.03, 0.08)
    friction: tuple[float, float] = (0.8, 1.2)
    motor_gain: tuple[float, float] = (0.9, 1.1)


FIXED = Randomization(
    position_m=0.0,
    yaw_rad=0.0,
    mass_kg=(CUBE_MASS_KG, CUBE_MASS_KG),
    friction=(1.0, 1.0),
    motor_gain=(1.0, 1.0),
)


class CubeSimulation(HandSimulation):
    """One hand holding one cube."""

    def __init__(self, plant: Plant, physics: PhysicsConfig) -> None:
        """Compile (or reuse) the model for a plant and physics settings."""
        super().__init__(_compiled(plant.collision, physics, visual=False), plant, physics)
        self.targets = GRASP_RAD.copy()
        self._cube = self.model.body("cube").id
        self._inertia = self.model.body_inertia[self._cube].copy()
        self._tips = [self.model.site(tip_site(finger)).id for finger in FINGERS]

    def randomize(self, ranges: Randomization, rng: np.random.Generator) -> None:
        """Draw mass, friction and motor gain."""
        mass = self.plant.object_mass * rng.uniform(*ranges.mass_kg)
        self.model.body_mass[self._cube] = mass
        self.model.body_inertia[self._cube] = self._inertia * mass / CUBE_MASS_KG
        self.model.geom_friction[:, 0] = self.plant.friction * rng.uniform(*ranges.friction)
        set_motor_gain(
            self.model, NOMINAL_MOTOR_GAIN * self.plant.motor_gain * rng.uniform(*ranges.motor_gain)
        )

    def grasp(self, offset_m: np.ndarray, yaw_rad: float, targets: np.ndarray = GRASP_RAD) -> None:
        """Start an episode: the cube is held at its place while the fingers close on it, then let go.

        Args:
            offset_m: cube offset from the grasp centre [3].
            yaw_rad: cube yaw.
            targets: joint targets of the grasp [17], clipped to the joint limits.
        """
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        self.hold(targets)
        pose = np.concatenate([GRASP_CENTRE_M + offset_m, yaw_quaternion(yaw_rad)])
        data.qpos[:NUM_JOINTS] = OPEN_RAD
        for _ in range(round(_CLOSING_S / self.physics.timestep_s)):
            data.qpos[NUM_JOINTS:] = pose
            data.qvel[NUM_JOINTS:] = 0
            mujoco.mj_step(model, data)
        data.qpos[NUM_JOINTS:] = pose
        data.qvel[NUM_JOINTS:] = 0
        self.settle(_SETTLING_S)

    def snapshot(self) -> Snapshot:
        """Return (positions, velocities, targets), enough to `restore` this moment."""
        return self.data.qpos.copy(), self.data.qvel.copy(), self.targets.copy()

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of this or another simulation."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = snapshot[0], snapshot[1]
        self.hold(snapshot[2])
        mujoco.mj_forward(self.model, self.data)

    def state(self) -> CubeState:
        """Return the true state, as views where possible: valid until the next step."""
        qpos, qvel = self.data.qpos, self.data.qvel
        n = NUM_JOINTS
        return CubeState(
            joints=qpos[:n],
            joint_velocities=qvel[:n],
            targets=self.targets,
            position=qpos[n : n + 3],
            quaternion=qpos[n + 3 : n + 7],
            velocity=qvel[n : n + 3],
            angular_velocity=qvel[n + 3 : n + 6],
            tips=self.data.site_xpos[self._tips],
        )


def visual_model(plant: Plant, physics: PhysicsConfig) -> mujoco.MjModel:
    """Return the same scene with its visual meshes, for rendering."""
    return _compiled(plant.collision, physics, visual=True)


@lru_cache(maxsize=8)
def _compiled(collision: Collision, physics: PhysicsConfig, *, visual: bool) -> mujoco.MjModel:
    spec = palm_down_hand(collision, physics, visual=visual)
    body = spec.worldbody.add_body(name="cube", pos=GRASP_CENTRE_M)
    body.add_freejoint(name="cube")
    half = CUBE_SIZE_M / 2
    body.add_geom(
        name="cube",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[half] * 3,
        mass=CUBE_MASS_KG,
        friction=[physics.friction, 0.01, 0.0001],
        solimp=[*physics.solimp, 0.5, 2.0],
        condim=4,
        contype=OBJECT_CONTYPE,
        conaffinity=OBJECT_CONAFFINITY,
        rgba=[0.93, 0.55, 0.2, 1.0],
    )
    if visual:
        for axis, colour in enumerate(([0.15, 0.35, 0.8, 1], [0.2, 0.6, 0.35, 1])):
            offset, size = np.zeros(3), np.full(3, half * 0.6)
            offset[axis], size[axis] = half, 0.0006
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=offset,
                size=size,
                mass=0,
                contype=0,
                conaffinity=0,
                rgba=colour,
            )
    return spec.compile()
