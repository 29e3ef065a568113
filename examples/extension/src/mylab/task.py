"""A task: two joints that follow their commands with a lag are to be brought to zero."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np

from mylab.policy import LaplaceConfig
from serfn.critics.mlp import MLPCriticConfig
from serfn.runs.presets import Budget, cube
from serfn.tasks.registry import Task
from serfn.training.config import TrainConfig
from serfn.training.rewards import RewardConfig
from serfn.training.stages.imitation import ImitationConfig

SPEED = {"nominal": 0.5, "field": 0.35}
"""Fraction of the way to the command that a joint goes in one step, by plant."""


class ReachEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observation: two positions in rad. Action: their targets. Reward: minus the distance to zero."""

    metadata = {"render_modes": [], "render_fps": 50}  # noqa: RUF012

    def __init__(self, plant: str = "nominal", render_mode: str | None = None) -> None:
        self.speed = SPEED[plant]
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw the joints' positions."""
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.position.copy(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move one control step."""
        self.position = (self.position + self.speed * (action - self.position)).astype(np.float32)
        distance = float(np.linalg.norm(self.position))
        info = {"is_success": distance < 0.1, "episode_metrics": {"score": -distance}}
        return self.position.copy(), -distance, False, False, info


class Demonstrator:
    """Commands zero, with a bias of its own in every episode."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._bias = rng.normal(0, 0.1, 2)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return targets [2] in rad."""
        return self._bias - 0.3 * observation


def preset(env: str, budget: Budget) -> TrainConfig:
    """Return the configuration: the cube's amounts of work, with small networks and this package's policy."""
    config = cube(env, budget)
    return dataclasses.replace(
        config,
        rewards=RewardConfig(scale=0.5),
        policy=LaplaceConfig(),
        critic=MLPCriticConfig(width=32, depth=2, v_min=-1.0, v_max=1.0),
        imitation=dataclasses.replace(config.imitation, learning_rate=ImitationConfig().learning_rate),
    )


REACH = Task(
    env_id="mylab/Reach-v0",
    entry_point="mylab.task:ReachEnv",
    max_episode_steps=20,
    demonstrator="mylab.task:Demonstrator",
    summary="bring two joints to zero (the example of a package)",
    plants=("nominal", "field"),
    preset="mylab.task:preset",
    simulated=True,
)
