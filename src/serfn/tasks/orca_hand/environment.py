"""What every task of the ORCA-hand family shares as a Gymnasium environment.

A task supplies a simulation, features, reward terms and an outcome; this base class supplies the life cycle,
the action contract, rendering and the bookkeeping in `info`. Actions are absolute joint targets in radians,
rate limited.
"""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.rendering import OffscreenRenderer

MAX_TARGET_CHANGE_RAD = 0.15
_RENDER_SIZE = (480, 480)


class Simulation(Protocol):
    """The physics that a task runs: model and data of MuJoCo, and one control period per step."""

    data: mujoco.MjData
    targets: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def step(self, targets: np.ndarray) -> None:
        """Advance one control period while the motors follow `targets`."""
        ...

    @property
    def finite(self) -> bool:
        """Whether the simulation is still healthy."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a task says after a step: whether the episode is over, is a success so far, and its metrics."""

    terminated: bool
    success: bool
    metrics: dict[str, float]


class HandEnvironment(gymnasium.Env[np.ndarray, np.ndarray], ABC):
    """Base class of the family's Gymnasium environments.

    Action: absolute targets of the moving joints [action] in rad, inside the joint limits; each target moves
    by at most `max_target_change` per control step (50 ms). Joints before `first_joint` keep their angle.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "success_rule": "final",
    }
    first_joint: int = 1
    max_target_change: float | np.ndarray = MAX_TARGET_CHANGE_RAD
    camera: ClassVar[dict[str, Any]] = {
        "lookat": (0.0, 0.04, 0.2),
        "distance": 0.3,
        "azimuth": 215,
        "elevation": -12,
    }

    def __init__(
        self,
        simulation: Simulation,
        observation_names: tuple[str, ...],
        episode_s: float,
        render_mode: str | None,
    ) -> None:
        """Set up spaces for a simulation.

        Raises:
            ConfigError: unknown render mode or an episode shorter than one control step.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f"unknown render_mode {render_mode!r}; use 'rgb_array' or None")
        self.control_hz = self.metadata["render_fps"]
        if not episode_s * self.control_hz >= 1:
            raise ConfigError(f"episode_s must be at least {1 / self.control_hz} s, got {episode_s}")
        self.render_mode = render_mode
        self.simulation = simulation
        self.observation_names = observation_names
        self.max_steps = round(episode_s * self.control_hz)
        low, high = simulation.low[self.first_joint :], simulation.high[self.first_joint :]
        self.action_space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self._action_shape = low.shape
        self.observation_space = spaces.Box(-np.inf, np.inf, (len(observation_names),), np.float32)
        self._renderer: OffscreenRenderer | None = None

    @abstractmethod
    def place(self, rng: np.random.Generator) -> None:
        """Randomise the scene and put it in its initial state."""

    @abstractmethod
    def observe(self, rng: np.random.Generator) -> np.ndarray:
        """Return the observation [obs], with the plant's sensor noise."""

    @abstractmethod
    def reward_terms(self) -> dict[str, float]:
        """Return the named terms of the last step's reward; their sum is the reward."""

    @abstractmethod
    def outcome(self) -> Outcome:
        """Return whether the episode is over, its success and its metrics so far."""

    @abstractmethod
    def visual_model(self) -> mujoco.MjModel:
        """Return the scene with visual geometry; its state layout equals the simulation's."""

    def details(self) -> dict[str, Any]:
        """Return what a task adds to `info` after a reset and after every step."""
        return {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; see Gymnasium."""
        super().reset(seed=seed)
        self.steps = 0
        self.place(self.np_random)
        return self.observe(self.np_random), {"is_success": False, **self.details()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one control step; see Gymnasium.

        Raises:
            ValueError: the action has the wrong shape or is not finite.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != self._action_shape or not np.isfinite(action).all():
            raise ValueError(f"action must be {self._action_shape[0]} finite joint targets, got {action}")
        sim = self.simulation
        targets = sim.targets.copy()
        limit = self.max_target_change
        targets[self.first_joint :] += np.clip(action - targets[self.first_joint :], -limit, limit)
        sim.step(targets)
        self.steps += 1
        if not sim.finite:
            return self._diverged()
        terms = self.reward_terms()
        outcome = self.outcome()
        truncated = not outcome.terminated and self.steps >= self.max_steps
        info = {
            "is_success": outcome.success,
            "reward_terms": terms,
            "episode_metrics": outcome.metrics,
            "simulation_diverged": False,
            **self.details(),
        }
        return self.observe(self.np_random), float(sum(terms.values())), outcome.terminated, truncated, info

    def _diverged(self) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """End the episode as a failure when the simulation has diverged; the observation is zero."""
        info = {
            "is_success": False,
            "reward_terms": {},
            "episode_metrics": {**self.outcome().metrics, "simulation_diverged": 1.0},
            "simulation_diverged": True,
            **self.details(),
        }
        return np.zeros(len(self.observation_names), np.float32), self.failure_reward, True, False, info

    failure_reward: float = 0.0

    def render(self) -> np.ndarray | None:
        """Return an RGB frame [height, width, 3] uint8, or None without a render mode."""
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = OffscreenRenderer(self.visual_model(), *_RENDER_SIZE, self.camera)
        return self._renderer.render(self.simulation.data)

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
