"""The scene of the scissors task: hand on a wrist, hinged scissors in a case, a tape between two posts.

Everything that moves the scissors is contact and gravity: no weld, no force and no actuator acts on them. The
tape is two chains of stiff pieces whose ends are welded in the middle; the weld is the tape's material, and
`cut_rule` says when it parts. Case and posts are placed through MuJoCo's mocap poses, so that a pose belongs
to the state of an episode and not to its model.
"""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mujoco
import numpy as np

from serfn.tasks.orca_hand.model import (
    FIXTURE_CONAFFINITY,
    FIXTURE_CONTYPE,
    OBJECT_CONTYPE,
    Collision,
    PhysicsConfig,
    load_hand,
)
from serfn.tasks.orca_hand.scissors.geometry import (
    CASE,
    HAND_AXES,
    SCISSORS,
    TAPE,
    WRIST_CENTRE_M,
    Half,
)
from serfn.tasks.orca_hand.wrist import add_wrist

PHYSICS = PhysicsConfig(timestep_s=0.002, friction=1.2, impratio=20.0)
"""Settings of the task.

4 ms is too coarse for thin blades and a light tape. At an `impratio` of 5 loosely held handles creep along
the fingers by centimetres during a transport; at 100 they slide as far as at 20, where it is creep no more.
"""

TAPE_NODES = ("tape_left", "tape_left_inner", "tape_middle", "tape_right_inner", "tape_right")
"""Sites along the tape, from one post to the other."""

_HANDLE = {
    "condim": 4,
    "friction": [1.0, 0.02, 0.0005],
    "contype": OBJECT_CONTYPE,
    "conaffinity": FIXTURE_CONTYPE & ~OBJECT_CONTYPE,
}
_BLADE = {**_HANDLE, "friction": [0.4, 0.005, 0.0001], "rgba": [0.75, 0.75, 0.78, 1.0]}
_FIXTURE = {"contype": FIXTURE_CONTYPE, "conaffinity": FIXTURE_CONAFFINITY}
_VISUAL = {"contype": 0, "conaffinity": 0, "mass": 0.0}
_COLOURS = {"thumb": [0.85, 0.2, 0.15, 1.0], "finger": [0.95, 0.55, 0.1, 1.0]}


@lru_cache(maxsize=8)
def compiled_scene(collision: Collision, physics: PhysicsConfig, *, visual: bool) -> mujoco.MjModel:
    """Return the compiled scene; the same arguments give the same object, which must not be changed.

    Args:
        collision: contact geometry of the hand's skin.
        physics: integration and contact settings.
        visual: with the hand's visual meshes, for rendering.
    """
    spec = load_hand(collision, physics, visual=visual, bones=True)
    # The tolerance is relative to the mean inertia, which the wrist dominates: at the family's value the
    # light scissors creep in the fingers.
    spec.option.tolerance = 1e-8
    add_wrist(spec, WRIST_CENTRE_M, HAND_AXES)
    _add_scissors(spec)
    _add_case(spec)
    _add_tape(spec)
    return spec.compile()


def _add_scissors(spec: mujoco.MjSpec) -> None:
    thumb = spec.worldbody.add_body(name="thumb_half", pos=[0.0, 0.0, 0.3])
    thumb.add_freejoint(name="scissors")
    finger = thumb.add_body(name="finger_half")
    finger.add_joint(
        name="scissors_hinge",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0.0, -1.0, 0.0],
        range=[0.0, SCISSORS.max_angle_rad],
        limited=True,
        margin=0.0,
        damping=SCISSORS.hinge_damping_nms,
        frictionloss=SCISSORS.hinge_friction_nm,
        armature=2e-5,
        solref_limit=[0.006, 1.0],
    )
    _add_half(thumb, "thumb", side=1.0)
    _add_half(finger, "finger", side=-1.0)


def _add_half(body: mujoco.MjsBody, half: Half, side: float) -> None:
    """Add blade, arm and loop; `side` is the sign of z on which the blade lies."""
    colour, loop = _COLOURS[half], SCISSORS.loop(half)
    width = SCISSORS.blade_width_m / 2
    plane = -side * SCISSORS.blade_offset_m
    _box(
        body,
        [-SCISSORS.blade_length_m / 2, plane, side * (width - SCISSORS.edge_m)],
        [SCISSORS.blade_length_m / 2, SCISSORS.blade_thickness_m / 2, width],
        name=f"{half}_blade",
        mass=SCISSORS.blade_mass_kg,
        **_BLADE,
    )
    inner_end = loop.centre - [loop.half_length_m, 0.0, -side * SCISSORS.arm_radius_m]
    _capsule(
        body,
        np.array([0.0, plane, 0.0]),
        inner_end,
        SCISSORS.arm_radius_m,
        name=f"{half}_arm",
        mass=SCISSORS.arm_mass_kg,
        rgba=colour,
        **_HANDLE,
    )
    corners = loop.corners()
    for index, (start, end) in enumerate(zip(corners, np.roll(corners, -1, axis=0), strict=True)):
        _capsule(
            body,
            start,
            end,
            loop.tube_radius_m,
            name=f"{half}_loop{index}",
            mass=loop.mass_kg / loop.segments,
            rgba=colour,
            **_HANDLE,
        )


def _add_case(spec: mujoco.MjSpec) -> None:
    body = spec.worldbody.add_body(name="case", pos=CASE.position_m, mocap=True)
    width, thickness, depth = (extent / 2 for extent in CASE.slot_m)
    wall = CASE.wall_m / 2
    look: dict[str, Any] = {"rgba": [0.2, 0.35, 0.6, 1.0], "friction": [0.4, 0.005, 0.0001], **_FIXTURE}
    for name, sign in (("a", 1.0), ("b", -1.0)):
        side = [wall, thickness + 2 * wall, depth]
        _box(body, [sign * (width + wall), 0.0, -depth], side, name=f"case_side_{name}", **look)
        front = [width, wall, depth]
        _box(body, [0.0, sign * (thickness + wall), -depth], front, name=f"case_front_{name}", **look)
    _box(body, [0.0, 0.0, -2 * depth - 0.004], [0.05, 0.04, 0.004], name="case_bottom", **look)
    _box(body, [0.0, 0.0, -2 * depth - 0.058], [0.03, 0.03, 0.05], rgba=[0.3, 0.3, 0.3, 1.0], **_VISUAL)


def _add_tape(spec: mujoco.MjSpec) -> None:
    base = spec.worldbody.add_body(name="tape", pos=TAPE.position_m, mocap=True)
    length = TAPE.segment_length_m
    inner: dict[str, mujoco.MjsBody] = {}
    for side, sign in (("left", -1.0), ("right", 1.0)):
        post = sign * (TAPE.half_span_m + TAPE.post_radius_m)
        _capsule(
            base,
            np.array([0.0, post, 0.02]),
            np.array([0.0, post, -0.06]),
            TAPE.post_radius_m,
            name=f"tape_post_{side}",
            rgba=[0.3, 0.3, 0.3, 1.0],
            friction=[0.5, 0.005, 0.0001],
            **_FIXTURE,
        )
        parent, start = base, sign * TAPE.half_span_m
        for index in range(TAPE.segments):
            piece = parent.add_body(name=f"tape_{side}{index}", pos=[0.0, start, 0.0])
            piece.add_site(name=f"tape_{side}" + ("_inner" if index else ""), size=[0.001] * 3, group=4)
            for axis in ("x", "z"):
                # Light links with little damping diverged now and then; this much is invisible in the motion.
                piece.add_joint(
                    name=f"tape_{side}{index}_{axis}",
                    type=mujoco.mjtJoint.mjJNT_HINGE,
                    axis=[float(axis == "x"), 0.0, float(axis == "z")],
                    limited=False,
                    stiffness=0.03,
                    damping=0.001,
                    frictionloss=0.0,
                    armature=2e-5,
                )
            _box(
                piece,
                [0.0, -sign * length / 2, 0.0],
                [TAPE.width_m / 2, length / 2, TAPE.thickness_m / 2],
                name=f"tape_{side}{index}",
                mass=TAPE.segment_mass_kg,
                rgba=[0.95, 0.9, 0.4, 1.0],
                friction=[0.6, 0.005, 0.0001],
                solref=[0.006, 1.0],
                **_FIXTURE,
            )
            parent, start = piece, -sign * length
        inner[side] = parent
    inner["left"].add_site(name="tape_middle", pos=[0.0, length, 0.0], size=[0.001] * 3, group=4)
    weld = spec.add_equality(
        name="tape_material",
        type=mujoco.mjtEq.mjEQ_WELD,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        name1=inner["left"].name,
        name2=inner["right"].name,
        active=True,
        solref=[0.004, 1.0],
    )
    weld.data[10] = 1.0  # weight of rotations against translations


def _box(body: mujoco.MjsBody, centre: list[float], half: list[float], **options: Any) -> None:
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=centre, size=half, **options)


def _capsule(body: mujoco.MjsBody, start: np.ndarray, end: np.ndarray, radius: float, **options: Any) -> None:
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[*start, *end], size=[radius, 0.0, 0.0], **options
    )
