"""The right ORCA hand as a MuJoCo specification: shipped kinematics and inertia, chosen contact geometry.

The hand's meshes, joints, inertias and motors come from the `orca_sim` package. Only the soft parts (the
"skin" of the links and of the palm) can touch things; the printed bones beneath them are left out of
collision. Collision is either one capsule per link fitted to its skin mesh (fast, the nominal simulation) or
the convex hulls of those meshes (slower, a different contact geometry). Lengths are in metres, angles in
radians, torques in newton metres.
"""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mujoco
import numpy as np
import orca_sim

Collision = Literal["capsules", "meshes"]

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
JOINTS = (
    "wrist",
    "thumb_mcp", "thumb_abd", "thumb_pip", "thumb_dip",
    "index_abd", "index_mcp", "index_pip",
    "middle_abd", "middle_mcp", "middle_pip",
    "ring_abd", "ring_mcp", "ring_pip",
    "pinky_abd", "pinky_mcp", "pinky_pip",
)  # fmt: skip
NUM_JOINTS = len(JOINTS)

PALM_DOWN_POSITION_M = (-0.0386, -0.1436, 0.2514)
PALM_DOWN_QUATERNION = (0.7071067811865476, -0.7071067811865475, 0.0, 0.0)

FINGER_CONTYPE, FINGER_CONAFFINITY = 2, 3
PALM_CONTYPE, PALM_CONAFFINITY = 0, 3
OBJECT_CONTYPE, OBJECT_CONAFFINITY = 1, 0
# What is fixed in the world, or hangs on it, touches the hand and those objects that take affinity 4.
FIXTURE_CONTYPE, FIXTURE_CONAFFINITY = 5, 0
STIFF_SOLIMP = (0.95, 0.99, 0.001)

_PREFIX = "right_"
TOWER = _PREFIX + "tower"
"""The body that carries the hand; everything else of the hand hangs below it."""

_SKIN = "_skin_mesh"
_FIT_DIRECTIONS, _FIT_ROUNDS, _TOWARDS_JOINT = 600, 30, -0.5
_BONE_FRICTION = 0.5  # of the skin's: printed plastic against soft silicone
_TIP_OFFSET_M = {"thumb": 0.027, "index": 0.04, "middle": 0.04, "ring": 0.04, "pinky": 0.04}


@dataclass(frozen=True)
class PhysicsConfig:
    """Integration and contact settings shared by the family.

    `timestep_s` of 2.5 ms is what stiff contacts need: at 10 ms they blow up, at 5 ms sometimes.
    """

    timestep_s: float = 0.0025
    friction: float = 1.0
    solimp: tuple[float, float, float] = STIFF_SOLIMP
    impratio: float = 3.0
    iterations: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.timestep_s <= 0.02:
            raise ValueError(f"timestep_s must be in (0, 0.02] s, got {self.timestep_s}")


def palm_down_hand(collision: Collision, physics: PhysicsConfig, *, visual: bool) -> mujoco.MjSpec:
    """Return the right hand mounted palm down above the floor, ready for a task to add its objects.

    The arguments are those of `load_hand`.
    """
    spec = load_hand(collision, physics, visual=visual)
    mount_hand(spec, PALM_DOWN_POSITION_M, PALM_DOWN_QUATERNION)
    return spec


def mount_hand(spec: mujoco.MjSpec, position_m: Sequence[float], quaternion: Sequence[float]) -> None:
    """Place the tower on which the hand sits: its position in m and its orientation (w, x, y, z)."""
    tower = spec.body(TOWER)
    tower.pos = position_m
    tower.quat = quaternion
    tower.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT


def load_hand(
    collision: Collision, physics: PhysicsConfig, *, visual: bool, bones: bool = False
) -> mujoco.MjSpec:
    """Return the right hand where `orca_sim` puts it, ready to be mounted and for a task to add its objects.

    Args:
        collision: contact geometry of the skin, `capsules` or `meshes`.
        physics: integration and contact settings.
        visual: keep the visual meshes (for rendering); physics is identical without them, and faster.
        bones: let the printed phalanges touch objects and fixtures too (never the hand itself): needed where
            something thin can slip between the skins of two links.
    """
    spec = mujoco.MjSpec.from_file(str(Path(orca_sim.__file__).parent / "scene_right.xml"))
    _set_options(spec, physics)
    vertices = _link_vertices()
    for geom in list(spec.geoms):
        if geom.name == "floor":
            geom.contype = geom.conaffinity = 0
        elif geom.meshname.startswith(_PREFIX + "collision"):
            if geom.meshname.endswith(_SKIN):
                _make_skin(geom, collision, physics, vertices[geom.meshname])
            elif bones and _is_phalanx(geom.meshname):
                _make_bone(geom, collision, physics, vertices[geom.meshname])
            else:
                spec.delete(geom)
        elif not visual:
            spec.delete(geom)
    if not visual:
        used = {geom.meshname for geom in spec.geoms}
        for mesh in [mesh for mesh in spec.meshes if mesh.name not in used]:
            spec.delete(mesh)
    for finger in FINGERS[1:]:
        spec.add_exclude(bodyname1=_PREFIX + "palm", bodyname2=f"{_PREFIX}{finger}_pp")
    spec.add_exclude(bodyname1=_PREFIX + "palm", bodyname2=_PREFIX + "thumb_ip")
    for finger in FINGERS:
        link = _PREFIX + ("thumb_dp" if finger == "thumb" else f"{finger}_ip")
        spec.body(link).add_site(
            name=tip_site(finger), pos=[0, 0, _TIP_OFFSET_M[finger]], size=[0.002] * 3, group=4
        )
    return spec


def tip_site(finger: str) -> str:
    """Return the name of the site at a finger's tip."""
    return f"tip_{finger}"


def link_body(link: str) -> str:
    """Return the name of a link's body, such as `palm`, `thumb_dp` or `index_ip`."""
    return _PREFIX + link


def set_motor_gain(model: mujoco.MjModel, gain: float | np.ndarray) -> None:
    """Set the position gain (Nm/rad) of the hand's motors; the damping that ships with the hand stays."""
    model.actuator_gainprm[:NUM_JOINTS, 0] = gain
    model.actuator_biasprm[:NUM_JOINTS, 1] = -np.asarray(gain)


def _set_options(spec: mujoco.MjSpec, physics: PhysicsConfig) -> None:
    option = spec.option
    option.timestep = physics.timestep_s
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = physics.impratio
    option.iterations = physics.iterations
    # The line search keeps MuJoCo's 50 iterations. With 15 it failed now and then where several links touch
    # the object, and a solver that stops there throws a cube out of the hand at several m/s.
    option.tolerance = 1e-6
    # A diverging simulation must be seen and ended as a failure, not be reset behind our back.
    option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET


def _link_vertices() -> dict[str, np.ndarray]:
    """Vertices [n, 3] of every collision mesh in the frame of its link."""
    model = mujoco.MjSpec.from_file(str(Path(orca_sim.__file__).parent / "scene_right.xml")).compile()
    vertices = {}
    for geom in range(model.ngeom):
        mesh = model.geom_dataid[geom]
        if mesh < 0 or not model.mesh(mesh).name.startswith(_PREFIX + "collision"):
            continue
        start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
        local = model.mesh_vert[start : start + count] @ rotation.reshape(3, 3).T
        vertices[model.mesh(mesh).name] = local + model.geom_pos[geom]
    return vertices


def _make_skin(
    geom: mujoco.MjsGeom, collision: Collision, physics: PhysicsConfig, vertices: np.ndarray
) -> None:
    is_palm = "palm" in geom.meshname
    link = geom.meshname.removeprefix(_PREFIX + "collision_").removesuffix(_SKIN)
    geom.contype, geom.conaffinity = (
        (PALM_CONTYPE, PALM_CONAFFINITY) if is_palm else (FINGER_CONTYPE, FINGER_CONAFFINITY)
    )
    geom.condim = 4
    geom.friction = [physics.friction, 0.01, 0.0001]
    geom.solimp[:3] = physics.solimp
    geom.group = 3
    geom.name = f"skin_{link}"
    if collision == "meshes":
        return
    geom.meshname = ""
    geom.material = ""
    low, high = vertices.min(0), vertices.max(0)
    if is_palm:
        geom.type = mujoco.mjtGeom.mjGEOM_BOX
        geom.pos, geom.size = (low + high) / 2, (high - low) / 2
        return
    _make_capsule(geom, vertices)


def _is_phalanx(mesh: str) -> bool:
    """Whether a bone is one that skin covers, or of the thumb's base, which stops what slides along it."""
    return _lies_along_its_link(mesh) or _link(mesh) in ("thumb_mp", "thumb_pp")


def _lies_along_its_link(mesh: str) -> bool:
    """Whether a bone is one of those that lie along the z axis of their link, as a capsule can."""
    finger, _, part = _link(mesh).partition("_")
    return finger in FINGERS and part in (("ip", "dp") if finger == "thumb" else ("pp", "ip"))


def _link(mesh: str) -> str:
    return mesh.removeprefix(_PREFIX + "collision_").removesuffix("_mesh")


def _make_bone(
    geom: mujoco.MjsGeom, collision: Collision, physics: PhysicsConfig, vertices: np.ndarray
) -> None:
    geom.contype, geom.conaffinity = 0, OBJECT_CONTYPE
    geom.condim = 4
    geom.friction = [_BONE_FRICTION * physics.friction, 0.01, 0.0001]
    geom.solimp[:3] = physics.solimp
    geom.group = 3
    geom.name = "bone_" + _link(geom.meshname)
    if collision == "capsules" and _lies_along_its_link(geom.meshname):
        geom.meshname = ""
        geom.material = ""
        _make_capsule(geom, vertices)


def _make_capsule(geom: mujoco.MjsGeom, vertices: np.ndarray) -> None:
    """Turn a geom into the capsule that fits the vertices [n, 3] of its link."""
    start, end, radius = _fit_capsule(vertices)
    geom.type = mujoco.mjtGeom.mjGEOM_CAPSULE
    geom.pos, geom.quat = [0, 0, 0], [1, 0, 0, 0]
    geom.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT
    geom.fromto = [*start, *end]
    geom.size = [radius, 0, 0]


def _fit_capsule(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the capsule (ends [3], [3] and radius, m) whose surface is closest to a link's convex hull.

    Least squares between the two support functions, ``max(d·start, d·end) + radius`` and ``max_v d·v``, over
    directions d spread evenly over the sphere. The link lies along z; directions towards its joint, where the
    skin touches nothing, hardly count. Given which end supports which direction the problem is linear; a few
    rounds settle that choice.
    """
    directions = _fibonacci_sphere(_FIT_DIRECTIONS)
    support = (vertices @ directions.T).max(0)
    weights = np.where(directions[:, 2] < _TOWARDS_JOINT, 0.1, 1.0)
    low, high = vertices.min(0), vertices.max(0)
    radius = float((high - low)[:2].mean() / 2)
    start, end = (low + high) / 2, (low + high) / 2
    start[2], end[2] = low[2] + radius / 2, high[2] - radius
    for _ in range(_FIT_ROUNDS):
        at_end = (directions @ (end - start) > 0)[:, None]
        design = np.hstack([directions * ~at_end, directions * at_end, np.ones((len(directions), 1))])
        solution = np.linalg.lstsq(design * weights[:, None], support * weights, rcond=None)[0]
        start, end, radius = solution[:3], solution[3:6], float(solution[6])
    return start, end, radius


def _fibonacci_sphere(count: int) -> np.ndarray:
    """Return directions [count, 3] spread evenly over the sphere (Gonzalez, 2010, section 3)."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    longitude = np.pi * (1 + 5**0.5) * index
    return np.column_stack([np.sqrt(1 - z**2) * np.cos(longitude), np.sqrt(1 - z**2) * np.sin(longitude), z])
