"""Many cube simulations side by side with a shaped reward, for training a simulation teacher.

The teacher may use what a robot cannot: rewards from the true state, starts from visited states, thousands of
drops. It sees the same 95 numbers as a policy (without the direction) and commands a change of the joint
targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serfn.tasks.orca_hand.cube_simulation import (
    GRASP_CENTRE_M,
    GRASP_RAD,
    OBSERVATION_NAMES,
    CubeSimulation,
    CubeState,
    Randomization,
    Snapshot,
    observation_features,
)
from serfn.tasks.orca_hand.model import NUM_JOINTS, PhysicsConfig
from serfn.tasks.orca_hand.plant import PLANTS
from serfn.tasks.orca_hand.rotation import quaternion_to_matrix, wrap_angle
from serfn.tasks.orca_hand.simulation import CONTROL_HZ

ACTION_SCALE_RAD = 0.1
ACTION_LIMIT = 1.5
OBSERVATION_DIM = len(OBSERVATION_NAMES)
ACTION_DIM = NUM_JOINTS - 1
REST_OFFSET_M = np.array([0.004, -0.003, -0.003])
_DROP_BELOW_M, _DROP_ASIDE_M = 0.05, 0.06


@dataclass(frozen=True)
class TeacherStage:
    """One stage of the teacher's curriculum: physics and the weights of the shaped reward (per control step).

    The reward is `clip(yaw rate, ±speed_cap) + alive - tilt_weight·tilt - position_weight·offset - …`, and
    `-failure_penalty` when the cube leaves a tight region about the grasp.
    """

    name: str
    steps: int
    physics: PhysicsConfig
    speed_cap_rad_s: float = 1.5
    alive: float = 0.3
    failure_penalty: float = 20.0
    tilt_weight: float = 2.0
    position_weight: float = 12.0
    action_weight: float = 0.01
    posture_weight: float = 0.5
    tracking_weight: float = 0.02
    drift_weight: float = 0.3
    visited_starts: float = 0.0


class CubeTeacherEnv:
    """A batch of cube simulations on the nominal plant with automatic resets."""

    def __init__(
        self, stage: TeacherStage, direction: int, simulations: int, seed: int, episode_s: float = 20.0
    ) -> None:
        """Prepare the simulations and a cache of grasps.

        Args:
            stage: curriculum stage.
            direction: +1 counter-clockwise (seen from above), -1 clockwise.
            simulations: batch size.
            seed: seed of every draw.
            episode_s: episode length in seconds.
        """
        self.stage, self.direction, self.num_envs = stage, direction, simulations
        self._rng = np.random.default_rng(seed)
        self._max_steps = round(episode_s * CONTROL_HZ)
        self._sims = [CubeSimulation(PLANTS["nominal"], stage.physics) for _ in range(simulations)]
        self._grasps = self._collect_grasps(192)
        self._visited: list[Snapshot] = []
        self._candidates: list[Snapshot | None] = [None] * simulations
        self._age = np.zeros(simulations, dtype=int)
        self._steps = np.zeros(simulations, dtype=int)
        self._yaw = np.zeros(simulations)

    def reset(self) -> np.ndarray:
        """Start every simulation and return observations; ages are staggered so that ends are spread out."""
        for index in range(self.num_envs):
            self._reset_one(index)
        self._steps[:] = self._rng.integers(0, self._max_steps, self.num_envs)
        return observation_features(self._state())

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Advance one control period.

        Args:
            actions: changes of the joint targets [batch, 16] in units of `ACTION_SCALE_RAD`.

        Returns:
            observations after any reset [batch, 95], rewards, failed, timed out [batch], and the observations
            before the reset [batch, 95].
        """
        actions = np.clip(actions, -ACTION_LIMIT, ACTION_LIMIT)
        for sim, action in zip(self._sims, actions, strict=True):
            sim.step(teacher_targets(sim.targets, action))
        self._steps += 1
        state = self._state()
        rewards, failed = self._reward(state, actions)
        observations = np.clip(np.nan_to_num(observation_features(state)), -100, 100)
        timed_out = (self._steps >= self._max_steps) & ~failed
        self._remember_visited(failed)
        last = observations
        ended = np.flatnonzero(failed | timed_out)
        if len(ended):
            for index in ended:
                self._reset_one(int(index))
            observations = observation_features(self._state())
        return observations, rewards, failed, timed_out, last

    def _reward(self, state: CubeState, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stage = self.stage
        healthy = np.array([sim.finite for sim in self._sims])
        yaw = np.where(healthy, state.yaw, self._yaw)
        self.progress = wrap_angle(yaw - self._yaw) * self.direction
        self._yaw = yaw
        tilt = 1 - quaternion_to_matrix(state.quaternion)[:, 2, 2]
        drift = state.position - GRASP_CENTRE_M - REST_OFFSET_M
        fallen = state.position - GRASP_CENTRE_M
        self.dropped = (
            ~healthy | (fallen[:, 2] < -_DROP_BELOW_M) | (np.abs(fallen[:, :2]).max(1) > _DROP_ASIDE_M)
        )
        failed = self.dropped | (tilt > 0.36) | (np.abs(drift[:, :2]).max(1) > 0.03) | (drift[:, 2] < -0.03)
        reward = (
            np.clip(self.progress * CONTROL_HZ, -stage.speed_cap_rad_s, stage.speed_cap_rad_s)
            + stage.alive
            - stage.tilt_weight * tilt
            - stage.position_weight * np.maximum(np.linalg.norm(drift, axis=1) - 0.003, 0)
            - stage.action_weight * np.square(actions).mean(1)
            - stage.posture_weight * np.square(state.targets - GRASP_RAD).mean(1)
            - stage.tracking_weight * np.square(state.targets - state.joints).sum(1)
            - stage.drift_weight * np.clip(np.linalg.norm(state.velocity, axis=1), 0, 1)
        )
        return np.where(healthy, reward, 0.0) - stage.failure_penalty * failed, failed

    def _state(self) -> CubeState:
        states = [sim.state() for sim in self._sims]
        return CubeState(
            **{name: np.stack([getattr(s, name) for s in states]) for name in CubeState.__annotations__}
        )

    def _reset_one(self, index: int) -> None:
        sim, rng = self._sims[index], self._rng
        sim.randomize(Randomization(), rng)
        revisit = len(self._visited) > 200 and rng.random() < self.stage.visited_starts
        starts = self._visited if revisit else self._grasps
        sim.restore(starts[rng.integers(len(starts))])
        self._steps[index] = 0
        self._yaw[index] = sim.state().yaw
        self._candidates[index] = None
        self._age[index] = -int(rng.integers(10, 40))

    def _remember_visited(self, failed: np.ndarray) -> None:
        """Keep states that were survived by a second, to start later episodes from them."""
        if self.stage.visited_starts == 0:
            return
        self._age += 1
        for index in np.flatnonzero(self._age == 0):
            self._candidates[index] = self._sims[index].snapshot()
        for index in np.flatnonzero((self._age == CONTROL_HZ) & ~failed):
            candidate = self._candidates[index]
            if candidate is None:
                continue
            if len(self._visited) < 3000:
                self._visited.append(candidate)
            else:
                self._visited[self._rng.integers(3000)] = candidate
            self._age[index] = -int(self._rng.integers(5, 40))

    def _collect_grasps(self, count: int) -> list[Snapshot]:
        sim, rng, grasps = self._sims[0], self._rng, []
        while len(grasps) < count:
            targets = GRASP_RAD + 0.06 * rng.standard_normal(NUM_JOINTS)
            targets[0] = GRASP_RAD[0]
            offset = np.append(rng.uniform(-0.004, 0.004, 2), rng.uniform(-0.003, 0.003))
            sim.randomize(Randomization(), rng)
            sim.grasp(offset, rng.uniform(-np.pi / 4, np.pi / 4), targets)
            start = sim.snapshot()
            for _ in range(CONTROL_HZ // 2):
                sim.step(sim.targets)
            state = sim.state()
            upright = quaternion_to_matrix(state.quaternion)[2, 2] > np.cos(0.25)
            if (
                sim.finite
                and upright
                and np.abs(state.position - GRASP_CENTRE_M - REST_OFFSET_M).max() < 0.016
            ):
                grasps.append(start)
        return grasps


def teacher_targets(targets: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Return joint targets [17] after a teacher's action [16]; the wrist keeps its angle."""
    change = np.clip(action, -ACTION_LIMIT, ACTION_LIMIT) * ACTION_SCALE_RAD
    return np.concatenate([GRASP_RAD[:1], targets[1:] + change])


def curriculum(scale: float = 1.0) -> Sequence[TeacherStage]:
    """Return the stages: regrasping is found on soft contacts, then carried over to the task's stiff ones.

    While it is being found, falling is cheap. Started on stiff contacts, PPO learns to turn the cube as far
    as the fingers reach and never to regrasp.

    Args:
        scale: factor on the number of steps of every stage.
    """
    soft = PhysicsConfig(timestep_s=0.01, solimp=(0.9, 0.95, 0.001))
    firm = PhysicsConfig(timestep_s=0.005, solimp=(0.93, 0.97, 0.001))
    stiff = PhysicsConfig(timestep_s=0.005)
    return (
        TeacherStage("soft", round(1_000_000 * scale), soft, alive=0.15, failure_penalty=10.0),
        TeacherStage("firm", round(500_000 * scale), firm, visited_starts=0.3),
        TeacherStage(
            "stiff",
            round(1_500_000 * scale),
            stiff,
            tracking_weight=0.03,
            visited_starts=0.4,
        ),
    )
