"""What the physics of every task of the family shares: a plant that follows joint targets at 20 Hz."""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

import copy
from collections.abc import Sequence

import mujoco
import numpy as np

from serfn.tasks.orca_hand.model import NUM_JOINTS, PhysicsConfig
from serfn.tasks.orca_hand.plant import Plant, Transmission

CONTROL_HZ = 20
NOMINAL_MOTOR_GAIN = 2.0
"""Position gain in Nm/rad with which the hand ships."""

_DIVERGED = 100.0
"""Speed in m/s or rad/s; in demonstrated episodes of cube and scissors everything stays below 20."""


class HandSimulation:
    """One hand with whatever a task's scene holds.

    Attributes:
        plant: the machine that executes.
        model: the compiled scene; the arrays that a task changes per episode are its own.
        data: the state.
        low, high: bounds of the targets [motors].
        targets: last commanded targets [motors].
    """

    def __init__(
        self,
        scene: mujoco.MjModel,
        plant: Plant,
        physics: PhysicsConfig,
        motors: Sequence[int] = range(NUM_JOINTS),
        play: float | np.ndarray = 1.0,
    ) -> None:
        """Prepare a simulation of a scene, which itself stays unchanged.

        Args:
            scene: compiled scene with the hand's motors first.
            plant: the machine that executes.
            physics: the settings with which the scene was made.
            motors: actuators in the order of the targets.
            play: 1 for joints with backlash, 0 for those without.
        """
        self.plant, self.physics = plant, physics
        self.model = copy.copy(scene)
        self.data = mujoco.MjData(self.model)
        self.motors = np.array(motors)
        self.low, self.high = (bound.copy() for bound in self.model.actuator_ctrlrange[self.motors].T)
        self.targets = np.clip(np.zeros(len(self.motors)), self.low, self.high)
        self._transmission = Transmission(plant, 1 / CONTROL_HZ, physics.timestep_s, play)

    def hold(self, targets: np.ndarray) -> None:
        """Let the motors hold targets [motors] from now on, without delay or play."""
        self.targets = np.clip(targets, self.low, self.high)
        self.data.ctrl[self.motors] = self.targets
        self._transmission.reset(self.targets)

    def step(self, targets: np.ndarray) -> None:
        """Advance one control period (50 ms): the motors follow targets [motors] through the transmission."""
        self.targets = np.clip(targets, self.low, self.high)
        for effective, steps in self._transmission.schedule(self.targets):
            self.data.ctrl[self.motors] = effective
            self.advance(steps)

    def advance(self, steps: int) -> None:
        """Advance by simulation steps under the present motor targets."""
        mujoco.mj_step(self.model, self.data, steps)

    def settle(self, seconds: float) -> None:
        """Advance by a time, as when an episode is prepared."""
        mujoco.mj_step(self.model, self.data, round(seconds / self.physics.timestep_s))

    @property
    def finite(self) -> bool:
        """Whether the simulation is healthy: no NaN, and no speed that only a failing solver can give."""
        return bool(np.isfinite(self.data.qpos).all() and np.abs(self.data.qvel).max() < _DIVERGED)
