"""`serfn/PointObstacle-v0`: a point goes around an obstacle on either side. The diagnostic of a study.

It needs no physics engine and takes microseconds per step, and shows in seconds what the method is about:
demonstrations pass on both sides, so that their average hits the obstacle; a chunk of one second is executed
blindly, so that its later actions matter as much as its first; reward comes at the goal alone.

**Task.** A disc of radius `OBSTACLE_RADIUS_M` lies between start and goal. Reach the goal without touching it
or leaving the arena.

**Observation** [4] float32: position (x, y) in m, velocity (x, y) in m/s.

**Action** [2]: commanded velocity in m/s, each in [-1, 1]; the velocity follows with a lag. 10 Hz.

**Reward**: 1 on reaching the goal, which ends the episode as a success. **End**: collision or leaving the
arena (failure), or 8 s are over (truncation).

**Metrics** in `info["episode_metrics"]`: `side`, 1 (left, y > 0) or -1 (right) from where the obstacle is
passed, 0 before; `collided`; `seconds` to the goal, the time limit otherwise. **Success**: the goal is
reached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from serfn.core.errors import ConfigError
from serfn.core.seeding import generator
from serfn.tasks.random_plants import seed_of, unknown_plant

ENV_ID = "serfn/PointObstacle-v0"
CONTROL_HZ = 10
MAX_STEPS = 80
START_X_M, GOAL_X_M = -1.0, 1.0
START_SPREAD_M = 0.08
GOAL_RADIUS_M = 0.15
OBSTACLE_RADIUS_M = 0.3
ARENA_M = (1.3, 0.9)
"""The arena is the rectangle |x| ≤ 1.3 m, |y| ≤ 0.9 m."""

BESIDE_M = (-0.3, 0.25)
"""Where the demonstrator drives straight ahead, past the obstacle, along x."""

_RESPONSE = 0.5
_PIXELS_PER_M = 100


@dataclass(frozen=True)
class PointPlant:
    """What differs from the course on which demonstrations are recorded; the policy sees none of it.

    Attributes:
        gain: velocity reached per commanded velocity.
        drift_m_s: velocity added in y, as by wind.
        obstacle_y_m: where the obstacle's centre lies.

    Raises:
        ConfigError: the gain is not positive.
    """

    gain: float = 1.0
    drift_m_s: float = 0.0
    obstacle_y_m: float = 0.0

    def __post_init__(self) -> None:
        if not self.gain > 0:
            raise ConfigError(f"gain is {self.gain}; it must be above 0")


PLANTS: dict[str, PointPlant] = {
    "nominal": PointPlant(),
    "field": PointPlant(gain=0.95, drift_m_s=0.06, obstacle_y_m=0.06),
}


def random_plant(seed: int) -> PointPlant:
    """Return the plant of `seed`: gain .85 to 1.1, drift and obstacle up to 0.08 m/s and m to either side."""
    rng = generator(seed, "plant")
    drift, obstacle = rng.uniform(-0.08, 0.08, 2)
    return PointPlant(gain=rng.uniform(0.85, 1.1), drift_m_s=drift, obstacle_y_m=obstacle)


class PointObstacle(gymnasium.Env[np.ndarray, np.ndarray]):
    """The point and its course; see the module's documentation for the contract."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}

    def __init__(self, plant: str | PointPlant = "nominal", render_mode: str | None = None) -> None:
        """Make the environment.

        Args:
            plant: a name from `PLANTS`, `random:SEED` or a `PointPlant`.
            render_mode: None or `rgb_array`.

        Raises:
            ConfigError: an unknown plant or render mode.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f"unknown render_mode {render_mode!r}; use 'rgb_array' or None")
        self.plant = _named(plant) if isinstance(plant, str) else plant
        self.render_mode = render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start at rest, near the middle line; see Gymnasium."""
        super().reset(seed=seed)
        self._x = START_X_M
        self._y = float(self.np_random.uniform(-START_SPREAD_M, START_SPREAD_M))
        self._vx = self._vy = 0.0
        self._side = 0.0
        self._steps = 0
        self._trace = [(self._x, self._y)]
        return self._observation(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by a tenth of a second; see Gymnasium.

        Raises:
            ValueError: the action has the wrong shape or is not finite.
        """
        command = np.asarray(action, np.float64)
        if command.shape != (2,) or not np.isfinite(command).all():
            raise ValueError(f"action must be 2 finite velocities, got {action}")
        ax, ay = np.clip(command, -1.0, 1.0).tolist()
        plant = self.plant
        self._vx += _RESPONSE * (plant.gain * ax - self._vx)
        self._vy += _RESPONSE * (plant.gain * ay + plant.drift_m_s - self._vy)
        before = self._x
        self._x += self._vx / CONTROL_HZ
        self._y += self._vy / CONTROL_HZ
        self._steps += 1
        self._trace.append((self._x, self._y))
        if before < 0 <= self._x and self._side == 0:
            self._side = math.copysign(1.0, self._y - plant.obstacle_y_m)
        collided = (
            math.hypot(self._x, self._y - plant.obstacle_y_m) <= OBSTACLE_RADIUS_M
            or abs(self._x) > ARENA_M[0]
            or abs(self._y) > ARENA_M[1]
        )
        reached = not collided and math.hypot(self._x - GOAL_X_M, self._y) <= GOAL_RADIUS_M
        metrics = {
            "side": self._side,
            "collided": float(collided),
            "seconds": (self._steps if reached else MAX_STEPS) / CONTROL_HZ,
        }
        info = {"is_success": reached, "episode_metrics": metrics}
        return self._observation(), float(reached), collided or reached, False, info

    def render(self) -> np.ndarray | None:
        """Return the course with the path so far, [height, width, 3] uint8, or None without a render mode."""
        if self.render_mode is None:
            return None
        width, height = (round(2 * side * _PIXELS_PER_M) for side in ARENA_M)
        x = (np.arange(width) + 0.5) / _PIXELS_PER_M - ARENA_M[0]
        y = ARENA_M[1] - (np.arange(height)[:, None] + 0.5) / _PIXELS_PER_M
        image = np.full((height, width, 3), 245, np.uint8)
        image[np.hypot(x, y - self.plant.obstacle_y_m) <= OBSTACLE_RADIUS_M] = (90, 90, 90)
        image[np.hypot(x - GOAL_X_M, y) <= GOAL_RADIUS_M] = (150, 205, 150)
        for px, py in self._trace:
            image[np.hypot(x - px, y - py) <= 0.015] = (60, 110, 200)
        image[np.hypot(x - self._x, y - self._y) <= 0.03] = (20, 50, 140)
        return image

    def _observation(self) -> np.ndarray:
        return np.array((self._x, self._y, self._vx, self._vy), np.float32)


class PointDemonstrator:
    """Hesitates, steers past the obstacle at some distance, then to the goal; slow and unsteady.

    It keeps one side for the whole episode.
    """

    def __init__(
        self,
        side: float,
        clearance_m: float,
        speed_m_s: float,
        wobble_m_s: float,
        hesitation: int,
        rng: np.random.Generator,
    ) -> None:
        """Choose side, distance from the middle line, speed, wobble, and steps before it starts."""
        self.side, self.clearance_m = side, clearance_m
        self.speed_m_s, self.wobble_m_s = speed_m_s, wobble_m_s
        self._waiting = hesitation
        self._rng = rng
        self._wobble = np.zeros(2)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the commanded velocity [2] for an observation [4]."""
        position = observation[:2].astype(np.float64)
        if position[0] < BESIDE_M[0] - 0.05:
            waypoint = np.array((BESIDE_M[0], self.side * self.clearance_m))
        elif position[0] < BESIDE_M[1] - 0.05:
            waypoint = np.array((BESIDE_M[1], self.side * self.clearance_m))
        else:
            waypoint = np.array((GOAL_X_M, 0.0))
        direction = waypoint - position
        direction /= max(float(np.linalg.norm(direction)), 1e-6)
        self._wobble = 0.7 * self._wobble + self.wobble_m_s * self._rng.standard_normal(2)
        self._waiting -= 1
        speed = 0.0 if self._waiting >= 0 else self.speed_m_s
        return np.clip(speed * direction + self._wobble, -1.0, 1.0)


def make_demonstrator(rng: np.random.Generator) -> PointDemonstrator:
    """Draw the demonstrator of one episode: either side with equal probability, and a manner of driving."""
    side = 1.0 if rng.random() < 0.5 else -1.0
    return PointDemonstrator(
        side,
        clearance_m=rng.uniform(0.3, 0.5),
        speed_m_s=rng.uniform(0.4, 0.75),
        wobble_m_s=rng.uniform(0.02, 0.08),
        hesitation=int(rng.integers(0, 9)),
        rng=rng,
    )


def _named(name: str) -> PointPlant:
    seed = seed_of(name)
    if seed is not None:
        return random_plant(seed)
    if name not in PLANTS:
        raise unknown_plant(name, PLANTS)
    return PLANTS[name]
