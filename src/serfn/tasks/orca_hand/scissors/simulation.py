"""The physics of the scissors task, before any notion of reward: state, randomisation, plants, cutting.

One `ScissorsSimulation` is one hand with one pair of scissors and one tape. Targets are ordered as
`state.MOTORS`: the six wrist joints (m, rad), then the hand's seventeen joints (rad).
"""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import mujoco
import numpy as np

from serfn.tasks.orca_hand.model import JOINTS, NUM_JOINTS, PhysicsConfig, link_body, set_motor_gain, tip_site
from serfn.tasks.orca_hand.plant import Plant, Pushes
from serfn.tasks.orca_hand.rotation import perturb_quaternion, quaternion_to_matrix, yaw_quaternion
from serfn.tasks.orca_hand.scissors.conditions import ScissorsRandomization
from serfn.tasks.orca_hand.scissors.cut_rule import UNLOADED, CutRule, EdgeLoads, tape_crossing
from serfn.tasks.orca_hand.scissors.geometry import (
    CASE,
    HAND_AXES,
    SCISSORS,
    TAPE,
    WRIST_CENTRE_M,
    Half,
    rotation_y,
    rotation_z,
)
from serfn.tasks.orca_hand.scissors.postures import grip_postures
from serfn.tasks.orca_hand.scissors.scene import TAPE_NODES, compiled_scene
from serfn.tasks.orca_hand.scissors.state import ScissorsState
from serfn.tasks.orca_hand.simulation import CONTROL_HZ, NOMINAL_MOTOR_GAIN, HandSimulation
from serfn.tasks.orca_hand.wrist import NUM_WRIST_JOINTS, WRIST_JOINTS

START_WRIST = np.array([0.15, -0.25, 0.42, 0.0, 0.0, 0.0])
"""Where the wrist starts (m, rad): beside and above the case."""

START_POSTURE_RAD = np.array([
    0.0,
    0.55, -0.75, -0.75, -0.6,
    -0.15, 1.25, 0.4,
    0.15, 1.2, 0.6,
    0.3, -0.3, 0.0,
    0.5, -0.3, 0.0,
])  # fmt: skip
"""Thumb, index and middle finger half bent, the others stretched out of the way, ordered as `JOINTS`."""

_SETTLING_S = 0.4
_NEAR_TAPE_M = 0.2
# A link is taken to pass through a loop if it crosses the loop's plane inside its opening, or just within the
# tube around it, where a finger pressed against the loop may be.
_PIERCED = 1.15

_THUMB, _FINGER, _SCISSORS, _CASE = 1, 2, 4, 8


class ScissorsSimulation(HandSimulation):
    """One hand on a wrist, one pair of scissors in its case, one tape."""

    def __init__(self, plant: Plant, physics: PhysicsConfig) -> None:
        """Compile (or reuse) the model for a plant and physics settings."""
        scene = compiled_scene(plant.collision, physics, visual=False)
        wrist = [scene.actuator(name).id for name in WRIST_JOINTS]
        play = np.concatenate([np.zeros(NUM_WRIST_JOINTS), np.ones(NUM_JOINTS)])
        super().__init__(scene, plant, physics, [*wrist, *range(NUM_JOINTS)], play)
        self.cut_rule = CutRule()
        self._nominal, model = scene, self.model
        slides = np.arange(len(self.targets)) < 3
        closing = np.concatenate([np.zeros(NUM_WRIST_JOINTS), grip_postures().closing()])
        self._pushes = Pushes(plant, CONTROL_HZ, slides, closing)
        self._joints = np.array(
            [model.joint(name).qposadr[0] for name in (*WRIST_JOINTS, *map(link_body, JOINTS))]
        )
        self._pose = model.joint("scissors").qposadr[0]
        hinge = model.joint("scissors_hinge")
        self._hinge, self._hinge_speed = hinge.qposadr[0], hinge.dofadr[0]
        self._halves = {"thumb": model.body("thumb_half").id, "finger": model.body("finger_half").id}
        self._tower = model.body(link_body("tower")).id
        self._case, self._tape = (model.body(name).mocapid[0] for name in ("case", "tape"))
        self._nodes = [model.site(name).id for name in TAPE_NODES]
        self._weld = model.equality("tape_material").id
        self._blades = {half: model.geom(f"{half}_blade").id for half in self._halves}
        self._is_tape, self._kind = self._geom_kinds()
        self._chains = {finger: self._chain(finger) for finger in ("thumb", "index", "middle")}

    def randomize(self, ranges: ScissorsRandomization, rng: np.random.Generator) -> None:
        """Draw mass, friction, hinge friction and motor gain."""
        plant, model, nominal = self.plant, self.model, self._nominal
        mass, friction, hinge, gain = (
            1 + width * rng.uniform(-1, 1)
            for width in (ranges.mass, ranges.friction, ranges.hinge_friction, ranges.motor_gain)
        )
        halves = list(self._halves.values())
        model.body_mass[halves] = nominal.body_mass[halves] * plant.object_mass * mass
        model.body_inertia[halves] = nominal.body_inertia[halves] * plant.object_mass * mass
        model.geom_friction[:, 0] = nominal.geom_friction[:, 0] * plant.friction * friction
        for attribute in ("dof_frictionloss", "dof_damping"):
            value = getattr(nominal, attribute)[self._hinge_speed]
            getattr(model, attribute)[self._hinge_speed] = value * plant.hinge_friction * hinge
        set_motor_gain(model, NOMINAL_MOTOR_GAIN * plant.motor_gain * gain)

    def place(self, ranges: ScissorsRandomization, rng: np.random.Generator) -> None:
        """Start an episode: draw the poses of case, tape and hand, and let the scissors settle."""
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        self.cut_rule.reset()
        case = np.array(CASE.position_m) + ranges.case_m * np.append(rng.uniform(-1, 1, 2), 0.0)
        case_rotation = rotation_z(ranges.case_yaw_rad * rng.uniform(-1, 1)) @ rotation_y(
            ranges.case_tilt_rad * rng.uniform(-1, 1)
        )
        tape = np.array(TAPE.position_m) + np.array(ranges.tape_m) * rng.uniform(-1, 1, 3)
        self._tape_yaw = float(ranges.tape_yaw_rad * rng.uniform(-1, 1))
        self._tape_pitch = float(TAPE.pitch_rad + ranges.tape_pitch_rad * rng.uniform(-1, 1))
        # The strip's width lies along the blades of scissors that meet it squarely.
        tape_rotation = rotation_z(self._tape_yaw) @ rotation_y(self._tape_pitch - np.pi / 2)
        for index, position, rotation in (
            (self._case, case, case_rotation),
            (self._tape, tape, tape_rotation),
        ):
            data.mocap_pos[index], data.mocap_quat[index] = position, _quaternion(rotation)
        data.qpos[self._pose : self._pose + 3] = case + CASE.rest_height_m * case_rotation[:, 2]
        data.qpos[self._pose + 3 : self._pose + 7] = _quaternion(case_rotation @ HAND_AXES)
        widths = np.repeat([ranges.hand_m, ranges.hand_rad], 3)
        wrist = START_WRIST + widths * rng.uniform(-1, 1, NUM_WRIST_JOINTS)
        self.hold(np.concatenate([wrist, START_POSTURE_RAD]))
        data.qpos[self._joints] = self.targets
        self.settle(_SETTLING_S)
        self._pushes.reset(rng)

    def hold(self, targets: np.ndarray) -> None:
        """Let the motors hold targets [motors] from now on, without delay, play or push."""
        super().hold(targets)
        self._followed = self.targets

    def step(self, targets: np.ndarray) -> None:
        """Advance one control period; a push offsets what the motors follow, not what was commanded."""
        commanded = np.clip(targets, self.low, self.high)
        super().step(commanded + self._pushes.next())
        self._followed, self.targets = self.targets, commanded

    def advance(self, steps: int) -> None:
        """Advance by simulation steps under the present motor targets, watching the tape when it is near."""
        model, data = self.model, self.data
        apart = data.site_xpos[self._nodes[2]] - data.xpos[self._halves["thumb"]]
        if apart @ apart > _NEAR_TAPE_M**2:  # no target rate brings the blades here within a control period
            self.cut_rule.update(None, 0.0)
            mujoco.mj_step(model, data, steps)
            return
        for _ in range(steps):
            mujoco.mj_step(model, data)
            if data.warning[mujoco.mjtWarning.mjWARN_BADQACC].number:
                return  # diverged: everything touches everything now, which takes a hundred times longer
            pivot, rotation = self._scissors_pose()
            nodes = (data.site_xpos[self._nodes] - pivot) @ rotation
            crossing = tape_crossing(nodes)
            loads = self._edge_loads(pivot, rotation)
            if self.cut_rule.update(crossing, float(data.qpos[self._hinge]), loads):
                data.eq_active[self._weld] = 0

    def state(self) -> ScissorsState:
        """Return the true state."""
        data = self.data
        positions = data.qpos[self._joints]
        pivot, rotation = self._scissors_pose()
        hand = data.xmat[self._tower].reshape(3, 3).copy()
        case = np.zeros(9)
        mujoco.mju_quat2Mat(case, data.mocap_quat[self._case])
        pairs = np.bitwise_or.reduce(self._kind[data.contact.geom[: data.ncon]], axis=1)
        return ScissorsState(
            wrist=positions[:NUM_WRIST_JOINTS],
            joints=positions[NUM_WRIST_JOINTS:],
            tracking_errors=self._followed[NUM_WRIST_JOINTS:] - positions[NUM_WRIST_JOINTS:],
            hand_position=data.xpos[self._tower] + hand @ WRIST_CENTRE_M,
            hand_rotation=hand,
            scissors_position=pivot,
            scissors_rotation=rotation,
            angle=float(data.qpos[self._hinge]),
            angle_rate=float(data.qvel[self._hinge_speed]),
            tape_position=data.mocap_pos[self._tape].copy(),
            tape_yaw=self._tape_yaw,
            tape_pitch=self._tape_pitch,
            tape_middle=data.site_xpos[self._nodes[2]].copy(),
            case_position=data.mocap_pos[self._case].copy(),
            case_axis=case[2::3],
            pierced=(self._pierces("thumb"), self._pierces("index"), self._pierces("middle")),
            touching=(
                bool((pairs == _THUMB | _SCISSORS).any()),
                bool((pairs == _FINGER | _SCISSORS).any()),
                bool((pairs == _CASE | _SCISSORS).any()),
            ),
        )

    def sensed(self, rng: np.random.Generator) -> ScissorsState:
        """Return the state as the plant's sensors give it; flags of contact stay true."""
        state, plant = self.state(), self.plant
        noises = (plant.joint_noise_rad, plant.object_position_noise_m, plant.object_rotation_noise_rad)
        if not any((*noises, plant.object_velocity_noise)):
            return state
        joint, position, turn = noises
        draw = rng.standard_normal
        turned = quaternion_to_matrix(perturb_quaternion(yaw_quaternion(0.0), turn * draw(3)))
        joints = state.joints + joint * draw(NUM_JOINTS)
        return replace(
            state,
            joints=joints,
            tracking_errors=state.tracking_errors + state.joints - joints,
            scissors_position=state.scissors_position + position * draw(3),
            scissors_rotation=turned @ state.scissors_rotation,
            angle=state.angle + turn * draw(),
            angle_rate=state.angle_rate + 10 * plant.object_velocity_noise * draw(),
            tape_middle=state.tape_middle + position * draw(3),
        )

    def _scissors_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the pivot [3] and the scissors frame [3, 3]: the bisector of the halves."""
        half, data = self._halves["thumb"], self.data
        rotation = data.xmat[half].reshape(3, 3) @ rotation_y(-data.qpos[self._hinge] / 2)
        return data.xpos[half].copy(), rotation

    def _edge_loads(self, pivot: np.ndarray, rotation: np.ndarray) -> EdgeLoads:
        """Sum what each blade exerts on the tape along its cutting direction."""
        data = self.data
        geoms = data.contact.geom[: data.ncon]
        touching = np.nonzero(self._is_tape[geoms].any(axis=1))[0]
        if not len(touching):
            return UNLOADED
        loads = {"thumb": 0.0, "finger": 0.0}
        wrench = np.zeros(6)
        for index in touching:
            for half, sign in (("thumb", -1.0), ("finger", 1.0)):
                blade = self._blades[half]
                if blade not in geoms[index]:
                    continue
                mujoco.mj_contactForce(self.model, data, index, wrench)
                # The wrench acts on the second geom, in a frame whose rows are world vectors.
                force = wrench[:3] @ data.contact.frame[index].reshape(3, 3)
                on_tape = -force if geoms[index][1] == blade else force
                along = (data.contact.pos[index] - pivot) @ rotation[:, 0]
                if -SCISSORS.blade_length_m < along < 0:
                    loads[half] += sign * float(on_tape @ rotation[:, 2])
        return EdgeLoads(loads["thumb"], loads["finger"])

    def _pierces(self, finger: str) -> bool:
        """Whether the chain of a finger's links crosses the plane of its loop, inwards, inside the loop."""
        half: Half = "thumb" if finger == "thumb" else "finger"
        loop, body = SCISSORS.loop(half), self._halves[half]
        bodies, tip = self._chains[finger]
        points = np.vstack([self.data.xpos[bodies], self.data.site_xpos[tip]])
        local = (points - self.data.xpos[body]) @ self.data.xmat[body].reshape(3, 3) - loop.centre
        for start, end in pairwise(local):
            if start[1] < 0 <= end[1]:
                x, _, z = start + start[1] / (start[1] - end[1]) * (end - start)
                if (x / loop.half_length_m) ** 2 + (z / loop.half_width_m) ** 2 < _PIERCED:
                    return True
        return False

    def _chain(self, finger: str) -> tuple[list[int], int]:
        links = ("mp", "ip", "dp") if finger == "thumb" else ("pp", "ip")
        bodies = [self.model.body(link_body(f"{finger}_{link}")).id for link in links]
        return bodies, self.model.site(tip_site(finger)).id

    def _geom_kinds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return per geom whether it is tape [ngeom] bool, and what kind of thing it is [ngeom] bits."""
        model = self.model
        is_tape, kind = np.zeros(model.ngeom, bool), np.zeros(model.ngeom, np.int64)
        halves = tuple(self._halves.values())
        for geom in range(model.ngeom):
            body, name = model.geom_bodyid[geom], model.geom(geom).name
            body_name = model.body(body).name
            is_tape[geom] = name.startswith("tape_") and "post" not in name
            if body in halves:
                kind[geom] = _SCISSORS
            elif body_name == "case":
                kind[geom] = _CASE
            elif body_name.startswith(link_body("thumb")):
                kind[geom] = _THUMB
            elif name.startswith(("skin_", "bone_")) and not name.endswith("palm"):
                kind[geom] = _FINGER
        return is_tape, kind


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).ravel())
    return quaternion
