"""`serfn/OrcaValve-v0`: turn a valve that stands under the palm-down hand; the example of a new task.

**Task.** A cross-shaped knob on a vertical axis stands between the fingertips; its friction holds it where it
is left. Turn it by half a turn, counter-clockwise seen from above. `docs/new-task.md` goes through this file.

**Observation** [41] float32: joint positions [17] (rad), tracking errors [17] (rad: the last commanded less
the measured joints), the knob's angle as cosine and sine of four times it (the knob's symmetry), its rate
(rad/s), how far it has been turned (rad), and its offset from the nominal place [3] (m).

**Action** [16]: joint targets in rad (all joints but the wrist), rate limited to 0.15 rad per step; 20 Hz.

**Reward**: `progress`, the angle turned in the step in rad; `done`, +1 on success. **End**: half a turn
(success), 20 s (truncation), or divergence.

**Metrics**: `score` and `turns`, the net turns. **Success**: half a turn.
"""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from functools import lru_cache

import mujoco
import numpy as np

from serfn.tasks.orca_hand.cube_simulation import GRASP_CENTRE_M, GRASP_RAD, OPEN_RAD
from serfn.tasks.orca_hand.environment import HandEnvironment, Outcome
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
from serfn.tasks.orca_hand.plant import PUSH_FIELDS, Plant
from serfn.tasks.orca_hand.plant import plant as resolve_plant
from serfn.tasks.orca_hand.simulation import CONTROL_HZ, NOMINAL_MOTOR_GAIN, HandSimulation

EPISODE_S = 20.0
GOAL_RAD = np.pi
PLACE_M = 0.003
HINGE_FRICTION_NM = 0.01

PLANTS = {
    "nominal": Plant(),
    "field": Plant(
        motor_gain=0.8, friction=0.8, hinge_friction=1.5, backlash_rad=0.02, joint_noise_rad=0.005
    ),
}
IGNORED_PLANT_FIELDS = (
    "object_mass", "joint_velocity_noise_rad_s",
    "object_position_noise_m", "object_rotation_noise_rad", "object_velocity_noise", *PUSH_FIELDS,
)  # fmt: skip

OBSERVATION_NAMES = (
    *(f"joint_position.{name}" for name in JOINTS),
    *(f"tracking_error.{name}" for name in JOINTS),
    "knob.cos4", "knob.sin4", "knob.rate", "knob.turned",
    *(f"knob_offset.{axis}" for axis in "xyz"),
)  # fmt: skip


class OrcaValve(HandEnvironment):
    """Turning a valve, palm down; see the module's documentation for the contract."""

    def __init__(
        self, plant: str | Plant = "nominal", episode_s: float = EPISODE_S, render_mode: str | None = None
    ) -> None:
        """Make the environment: `plant` is a name from `PLANTS`, `random:SEED` or a `Plant`.

        Raises:
            ConfigError: an unknown plant or render mode, or a plant that sets a field without meaning here.
        """
        self.plant = resolve_plant(plant, PLANTS, without=IGNORED_PLANT_FIELDS)
        self._physics = PhysicsConfig()
        scene = _scene(self.plant.collision, self._physics, visual=False)
        self.valve = HandSimulation(scene, self.plant, self._physics)
        super().__init__(self.valve, OBSERVATION_NAMES, episode_s, render_mode)

    def place(self, rng: np.random.Generator) -> None:
        """Draw place, angle, friction and hinge of the knob; the fingers close on it."""
        model, data = self.valve.model, self.valve.data
        mujoco.mj_resetData(model, data)
        model.geom_friction[:, 0] = self.plant.friction * rng.uniform(0.8, 1.2)
        model.dof_frictionloss[-1] = HINGE_FRICTION_NM * self.plant.hinge_friction * rng.uniform(0.7, 1.3)
        set_motor_gain(model, NOMINAL_MOTOR_GAIN * self.plant.motor_gain)
        self._offset = np.append(rng.uniform(-PLACE_M, PLACE_M, 2), 0.0)
        data.mocap_pos[0] = GRASP_CENTRE_M + self._offset
        data.qpos[:NUM_JOINTS] = OPEN_RAD
        data.qpos[-1] = rng.uniform(-0.3, 0.3)
        self.valve.hold(GRASP_RAD)
        self.valve.settle(0.5)
        self._start = self._angle = float(data.qpos[-1])

    @property
    def turned_rad(self) -> float:
        """How far the knob has been turned counter-clockwise."""
        return float(self.valve.data.qpos[-1] - self._start)

    def observe(self, rng: np.random.Generator) -> np.ndarray:
        """Return the observation [41] as the plant's joint sensors give it."""
        data = self.valve.data
        joints = data.qpos[:NUM_JOINTS] + self.plant.joint_noise_rad * rng.standard_normal(NUM_JOINTS)
        angle = 4 * data.qpos[-1]
        knob = (np.cos(angle), np.sin(angle), data.qvel[-1], self.turned_rad)
        return np.concatenate([joints, self.valve.targets - joints, knob, self._offset]).astype(np.float32)

    def reward_terms(self) -> dict[str, float]:
        """Return `progress` in rad and `done`."""
        before, self._angle = self._angle, float(self.valve.data.qpos[-1])
        return {"progress": self._angle - before, "done": float(self.turned_rad >= GOAL_RAD)}

    def outcome(self) -> Outcome:
        """Return whether the knob has made half a turn."""
        turns = (self._angle - self._start) / (2 * np.pi)
        done = self._angle - self._start >= GOAL_RAD
        return Outcome(done, done, {"score": turns, "turns": turns})

    def visual_model(self) -> mujoco.MjModel:
        """Return the scene with the hand's visual meshes."""
        return _scene(self.plant.collision, self._physics, visual=True)


@lru_cache(maxsize=8)
def _scene(collision: Collision, physics: PhysicsConfig, *, visual: bool) -> mujoco.MjModel:
    spec = palm_down_hand(collision, physics, visual=visual)
    stand = spec.worldbody.add_body(name="stand", pos=tuple(GRASP_CENTRE_M), mocap=True)
    knob = stand.add_body(name="knob")
    knob.add_joint(
        name="knob",
        axis=[0, 0, 1],
        limited=False,
        damping=1e-3,
        frictionloss=HINGE_FRICTION_NM,
        armature=1e-4,
    )
    for half in ([0.024, 0.009, 0.02], [0.009, 0.024, 0.02]):
        knob.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=half,
            mass=0.02,
            condim=4,
            friction=[physics.friction, 0.01, 0.0001],
            solimp=[*physics.solimp, 0.5, 2.0],
            contype=OBJECT_CONTYPE,
            conaffinity=OBJECT_CONAFFINITY,
            rgba=[0.8, 0.2, 0.15, 1.0],
        )
    stand.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.006, 0.08, 0], pos=[0, 0, -0.1], contype=0, conaffinity=0
    )
    return spec.compile()


class ValveDemonstrator:
    """A gait without feedback: close, sweep the fingertips around the axis, open, return."""

    def __init__(self, period_s: float, reach_m: float) -> None:
        """Solve the sweep: joint changes [17] that move the tips along the tangent by up to `reach_m`."""
        self._period, self._time, self._sweep = round(period_s * CONTROL_HZ), 0, np.zeros(NUM_JOINTS)
        model = _scene("capsules", PhysicsConfig(), visual=False)
        data = mujoco.MjData(model)
        data.qpos[:NUM_JOINTS] = GRASP_RAD
        mujoco.mj_forward(model, data)
        for finger in FINGERS:
            site = model.site(tip_site(finger)).id
            jacobian = np.zeros((3, model.nv))
            mujoco.mj_jacSite(model, data, jacobian, None, site)
            own = [index for index, name in enumerate(JOINTS) if name.startswith(finger)]
            x, y, _ = data.site_xpos[site] - GRASP_CENTRE_M
            tangent = np.array([-y, x, 0.0]) / np.hypot(x, y)
            normal = jacobian[:, own].T @ jacobian[:, own] + 1e-5 * np.eye(len(own))
            self._sweep[own] = reach_m * np.linalg.solve(normal, jacobian[:, own].T @ tangent)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return joint targets [16] in rad; the gait depends on time alone."""
        phase = (self._time / self._period) % 1
        self._time += 1
        nodes = (0.0, 0.2, 0.5, 0.65, 1.0)
        grip = np.interp(phase, nodes, (-0.6, 1.1, 1.1, -0.6, -0.6))
        sweep = np.interp(phase, nodes, (-1.0, -1.0, 1.0, 1.0, -1.0))
        return (OPEN_RAD + grip * (GRASP_RAD - OPEN_RAD) + sweep * self._sweep)[1:]


def make_demonstrator(rng: np.random.Generator) -> ValveDemonstrator:
    """Draw the gait's period and reach."""
    return ValveDemonstrator(period_s=rng.uniform(1.1, 1.4), reach_m=rng.uniform(0.018, 0.024))
