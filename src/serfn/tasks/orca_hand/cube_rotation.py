"""`serfn/OrcaCubeRotation-v0`: turn a cube about the vertical, held palm down by the fingertips.

**Task.** The cube hangs in a five-finger grasp, nothing beneath it. Turn it, either way: the direction counts
from the moment when the cube has turned by `DIRECTION_LATCH_RAD` and is part of the observation from then on;
before that both ways are open and a demonstration set has two modes. Dropping the cube ends the episode.

**Observation** [96] float32, SI units: the 95 features of `cube_simulation.OBSERVATION_NAMES` and the latched
direction (-1 clockwise seen from above, 0 open, +1 counter-clockwise).

**Action** [16] joint targets in rad (all joints but the wrist), rate limited to 0.15 rad per step; 20 Hz.

**Reward**, what a lab could measure: `progress`, the yaw turned in the chosen direction during the step in
rad, clipped to ±0.1 rad (19 rev/min); `slip`, down to -0.05 rad per step (as much as 10 rev/min earn) as the
cube moves from 10 to 20 mm out of its place in the grasp, or tilts from 0.25 to 0.5 (sine of the angle);
`drop`, -10 rad once. **End**: the cube is 50 mm below or 60 mm aside of the grasp centre, the simulation
diverges, or 20 s are over (truncation).

**Metrics** in `info["episode_metrics"]`: `rev_per_min`, net turns in the chosen direction divided by the
*planned* length of the episode, so that time lost by a drop counts as standing still (it is also the
`score`); `turns`; `dropped`; `counter_clockwise`, whether that was the chosen direction. **Success**: at
least one net turn and not dropped.
"""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import mujoco
import numpy as np

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.cube_simulation import (
    FIXED,
    GRASP_CENTRE_M,
    OBSERVATION_NAMES,
    CubeSimulation,
    CubeState,
    Randomization,
    observation_features,
    visual_model,
)
from serfn.tasks.orca_hand.environment import HandEnvironment, Outcome
from serfn.tasks.orca_hand.model import PhysicsConfig
from serfn.tasks.orca_hand.plant import PUSH_FIELDS, Plant
from serfn.tasks.orca_hand.plant import plant as resolve_plant
from serfn.tasks.orca_hand.rotation import perturb_quaternion, quaternion_to_matrix, wrap_angle

Direction = Literal["either", "ccw", "cw"]

ENV_ID = "serfn/OrcaCubeRotation-v0"
EPISODE_S = 20.0
DIRECTION_LATCH_RAD = 0.3
PROGRESS_CLIP_RAD = 0.1
DROP_PENALTY_RAD = 10.0
SLIP_PENALTY_RAD = 0.05
SLIP_M, SLIP_TILT = (0.010, 0.020), (0.25, 0.50)
"""Where the penalty for a cube that has slipped begins and where it is full: offset, and sine of the tilt."""
HELD_OFFSET_M = np.array([0.0027, -0.0060, 0.0040])
"""Where the teachers hold the cube on average, from the grasp centre."""
DROP_BELOW_M, DROP_ASIDE_M = 0.05, 0.06
SUCCESS_TURNS = 1.0

_SIGNS: dict[str, float] = {"either": 0.0, "ccw": 1.0, "cw": -1.0}


class OrcaCubeRotation(HandEnvironment):
    """In-hand cube rotation, palm down; see the module's documentation for the contract."""

    failure_reward = -DROP_PENALTY_RAD

    def __init__(
        self,
        plant: str | Plant = "nominal",
        direction: Direction = "either",
        randomize: bool | Randomization = True,
        episode_s: float = EPISODE_S,
        render_mode: str | None = None,
        physics: PhysicsConfig | None = None,
    ) -> None:
        """Make the environment.

        Args:
            plant: the machine that executes: a name from `plant.PLANTS`, `random:SEED` or a `Plant`.
            direction: `either`, or one way that is latched from the start.
            randomize: draw start, mass, friction and motor gain per episode, or the ranges themselves.
            episode_s: episode length in seconds.
            render_mode: None or `rgb_array`.
            physics: integration and contact settings.

        Raises:
            ConfigError: an unknown plant, direction or render mode.
        """
        if direction not in _SIGNS:
            raise ConfigError(f"unknown direction {direction!r}; choose one of {', '.join(_SIGNS)}")
        self.plant = resolve_plant(plant, without=("hinge_friction", *PUSH_FIELDS))
        self._physics = physics or PhysicsConfig()
        self._ranges = (
            randomize if isinstance(randomize, Randomization) else Randomization() if randomize else FIXED
        )
        self._given_direction = _SIGNS[direction]
        simulation = CubeSimulation(self.plant, self._physics)
        super().__init__(simulation, (*OBSERVATION_NAMES, "direction"), episode_s, render_mode)
        self.cube = simulation

    def place(self, rng: np.random.Generator) -> None:
        """Draw the episode's conditions and close the hand on the cube."""
        ranges = self._ranges
        self.cube.randomize(ranges, rng)
        offset = np.append(rng.uniform(-ranges.position_m, ranges.position_m, 2), 0.0)
        self.cube.grasp(offset, rng.uniform(-ranges.yaw_rad, ranges.yaw_rad))
        self.direction = self._given_direction
        self._yaw = float(self.cube.state().yaw)
        self._turned_rad = 0.0
        self._progress_rad = 0.0
        self._dropped = False

    def observe(self, rng: np.random.Generator) -> np.ndarray:
        """Return the observation [96] as the plant's sensors give it."""
        features = observation_features(self._sense(rng))
        return np.append(features, np.float32(self.direction))

    def reward_terms(self) -> dict[str, float]:
        """Advance the yaw and return `progress`, `slip` and `drop` in radians."""
        state = self.cube.state()
        yaw = float(state.yaw)
        self._turned_rad += float(wrap_angle(np.asarray(yaw - self._yaw)))
        self._yaw = yaw
        if self.direction == 0 and abs(self._turned_rad) >= DIRECTION_LATCH_RAD:
            self.direction = float(np.sign(self._turned_rad))
        before, self._progress_rad = self._progress_rad, self.progress_rad
        fallen = state.position - GRASP_CENTRE_M
        self._dropped = bool(fallen[2] < -DROP_BELOW_M or np.abs(fallen[:2]).max() > DROP_ASIDE_M)
        return {
            "progress": float(np.clip(self._progress_rad - before, -PROGRESS_CLIP_RAD, PROGRESS_CLIP_RAD)),
            "slip": -SLIP_PENALTY_RAD * slipped(fallen, state.quaternion),
            "drop": -DROP_PENALTY_RAD * self._dropped,
        }

    @property
    def progress_rad(self) -> float:
        """Net rotation in the chosen direction; before the direction is chosen, net rotation either way."""
        return abs(self._turned_rad) if self.direction == 0 else self.direction * self._turned_rad

    def outcome(self) -> Outcome:
        """Return whether the cube was dropped, and the metrics of the module's documentation."""
        turns = self._progress_rad / (2 * np.pi)
        rev_per_min = turns / (self.max_steps / self.control_hz / 60)
        metrics = {
            "score": rev_per_min,
            "rev_per_min": rev_per_min,
            "turns": turns,
            "dropped": float(self._dropped or not self.cube.finite),
            "counter_clockwise": float(self.direction > 0),
        }
        return Outcome(self._dropped, turns >= SUCCESS_TURNS and not self._dropped, metrics)

    def visual_model(self) -> mujoco.MjModel:
        """Return the scene with the hand's visual meshes."""
        return visual_model(self.plant, self._physics)

    def _sense(self, rng: np.random.Generator) -> CubeState:
        state, plant = self.cube.state(), self.plant
        if plant.joint_noise_rad == plant.object_position_noise_m == plant.object_velocity_noise == 0:
            return state
        draw = rng.standard_normal
        return replace(
            state,
            joints=state.joints + plant.joint_noise_rad * draw(state.joints.shape),
            joint_velocities=state.joint_velocities
            + plant.joint_velocity_noise_rad_s * draw(state.joint_velocities.shape),
            position=state.position + plant.object_position_noise_m * draw(3),
            quaternion=perturb_quaternion(state.quaternion, plant.object_rotation_noise_rad * draw(3)),
            velocity=state.velocity + plant.object_velocity_noise * draw(3),
            angular_velocity=state.angular_velocity + 10 * plant.object_velocity_noise * draw(3),
        )


def slipped(offset_m: np.ndarray, quaternion: np.ndarray) -> float:
    """Return how far a cube has slipped in the hand, 0 to 1.

    Such a cube seldom comes back. A reward for turning alone, which it no longer earns, says nothing about
    the way there or out of it.

    Args:
        offset_m: Position [3] from the grasp centre.
        quaternion: Orientation [4].
    """
    aside = float(np.linalg.norm(offset_m - HELD_OFFSET_M))
    tilt = float(np.linalg.norm(quaternion_to_matrix(quaternion)[:2, 2]))
    return max(float(np.interp(aside, SLIP_M, (0, 1))), float(np.interp(tilt, SLIP_TILT, (0, 1))))
