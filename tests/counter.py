"""A small environment and actor with known behaviour."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces


class Counter(gymnasium.Env):
    """Counts steps; the reward is the first action; the seed decides after how many steps it terminates."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        *,
        render_mode: str | None = None,
        space: spaces.Space | None = None,
        action_space: spaces.Space | None = None,
        nan_at: int | None = None,
        nan_where: str = "reward",
        endless: bool = False,
    ) -> None:
        self.render_mode = render_mode
        self.observation_space = space or spaces.Dict(
            {"b": spaces.Box(-1, 1, (2,), np.float64), "a": spaces.Box(0, 100, (1,), np.float64)}
        )
        self.action_space = action_space or spaces.Box(
            np.array([-1.0, 0.0]), np.array([1, 0.1]), dtype=np.float64
        )
        self.nan_at, self.nan_where, self.endless = nan_at, nan_where, endless
        self.count = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        self.length = 3 + (seed or 0) % 5
        self.noise = self.np_random.uniform(-1, 1, 2)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.count += 1
        over = self.count == self.length and not self.endless
        observation, reward = self._observation(), float(action[0])
        if self.count == self.nan_at:
            if self.nan_where == "reward":
                reward = float("nan")
            else:
                observation["b"] = observation["b"] * np.nan
        info = {
            "is_success": self.length % 2 == 0,
            "episode_metrics": {"score": self.count, "late": float(over)},
        }
        return observation, reward, over, False, info

    def render(self) -> np.ndarray:
        return np.full((24, 32, 3), 10 * self.count, np.uint8)

    def _observation(self) -> Any:
        return {"b": self.noise, "a": np.array([float(self.count)])}


class RandomActor:
    """Random chunks within the counter's bounds; remembers the batches that it saw."""

    def __init__(self, chunk_size: int = 4) -> None:
        self.chunk_size = self.n_action_steps = chunk_size
        self.batches: list[np.ndarray] = []
        self.resets: list[int] = []

    def reset(self, seed: int) -> None:
        self.resets.append(seed)
        self.rng = np.random.default_rng(seed)

    def act(self, observations: np.ndarray) -> np.ndarray:
        self.batches.append(observations)
        low, high = np.array([-1.0, 0.0]), np.array([1.0, 0.1])
        return self.rng.uniform(low, high, (len(observations), self.chunk_size, 2)).astype(np.float32)


@pytest.fixture(autouse=True)
def registered_environments() -> None:
    if "test/Counter-v0" not in gymnasium.registry:
        gymnasium.register("test/Counter-v0", f"{__name__}:Counter", max_episode_steps=20)
        gymnasium.register("test/Timeless-v0", f"{__name__}:Counter")


@pytest.fixture
def random_actor() -> RandomActor:
    return RandomActor()
