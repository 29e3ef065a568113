"""Record demonstrations for the Adroit hand without a human: a planner that looks ahead in the simulator.

    python examples/adroit_demonstrations.py --env AdroitHandPen-v1 --episodes 20 --out pen.npz

The demonstrator is a sampling planner (iterated cross-entropy over smooth action sequences). It may look into
the future by running the simulator from the present state, which no policy can do; what it finds is recorded
as demonstrations. Its only guide is the reward of the environment.

The file follows `python -m pydoc serfn.data.formats.npz`. Nothing here needs serfn, so that your own recorder
may look alike.
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco has no stubs)

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gymnasium
import mujoco
import numpy as np

PACKAGE = "gymnasium_robotics"

_MOST_ATTEMPTS = 5
"""Attempts per episode that is asked for, on average."""


@dataclass(frozen=True)
class PlannerConfig:
    """How far and how wide the planner looks.

    Attributes:
        horizon: Control steps of a plan.
        knot_steps: Control steps between two independent samples; actions are linear in between.
        samples: Plans tried per iteration.
        elites: Best plans whose mean is the next plan.
        iterations: Iterations per decision.
        spread: Standard deviation of the samples around the plan, in units of the action.
        execute: Control steps executed before planning again.
    """

    horizon: int = 32
    knot_steps: int = 6
    samples: int = 64
    elites: int = 6
    iterations: int = 2
    spread: float = 0.5
    execute: int = 4


class Planner:
    """Improves one plan of `[horizon, action]` actions as time goes on.

    Args:
        env_id: Environment to plan in; the planner has its own copy.
        config: How far and how wide to look.
        seed: Seed of the episode: equal seeds give equal goals in both copies, and fix the samples.
    """

    def __init__(self, env_id: str, config: PlannerConfig, seed: int) -> None:
        self._config = config
        env = gymnasium.make(f"{PACKAGE}:{env_id}")
        env.reset(seed=seed)
        self._env: Any = env.unwrapped
        self._rng = np.random.default_rng(seed)
        self._plan = np.zeros((config.horizon, self._env.action_space.shape[0]))

    def decide(self, state: np.ndarray) -> np.ndarray:
        """Return the next `[execute, action]` actions from the full state of the simulation."""
        config = self._config
        for _ in range(config.iterations):
            plans = np.clip(self._plan + self._smooth_noise(), -1, 1)
            plans[0] = self._plan
            returns = np.array([self._return(state, plan) for plan in plans])
            self._plan = plans[np.argsort(returns)[-config.elites :]].mean(axis=0)
        decided, rest = np.split(self._plan, [config.execute])
        # The plan moves on in time; its end is repeated.
        self._plan = np.concatenate([rest, np.repeat(rest[-1:], config.execute, axis=0)])
        return decided

    def _smooth_noise(self) -> np.ndarray:
        """Draw `[samples, horizon, action]`, linear between knots."""
        config = self._config
        knots = np.arange(0, config.horizon + config.knot_steps, config.knot_steps)
        values = self._rng.normal(0, config.spread, (config.samples, len(knots), self._plan.shape[1]))
        steps = np.arange(config.horizon)
        before = steps // config.knot_steps
        part = ((steps - knots[before]) / config.knot_steps)[:, None]
        return (1 - part) * values[:, before] + part * values[:, before + 1]

    def _return(self, state: np.ndarray, plan: np.ndarray) -> float:
        set_state(self._env, state)
        return sum(float(self._env.step(action)[1]) for action in plan)


def get_state(env: Any) -> np.ndarray:
    """Return everything that decides the simulation's future, besides the goal."""
    state = np.empty(mujoco.mj_stateSize(env.model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(env.model, env.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    return state


def set_state(env: Any, state: np.ndarray) -> None:
    """Inverse of `get_state`."""
    mujoco.mj_setState(env.model, env.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)


def record(env: gymnasium.Env, env_id: str, config: PlannerConfig, seed: int) -> dict[str, np.ndarray]:
    """Record one episode as arrays of its steps, and how it ended."""
    planner = Planner(env_id, config, seed)
    observation, _ = env.reset(seed=seed)
    observations, actions, rewards = [observation], [], []
    while True:
        for planned in planner.decide(get_state(env.unwrapped)):
            action = planned.astype(np.float32)
            observation, reward, terminated, truncated, info = env.step(action)
            observations.append(observation)
            actions.append(action)
            rewards.append(float(reward))
            if terminated or truncated:
                return {
                    "observations": np.array(observations[:-1], np.float32),
                    "terminal_observations": np.array(observations[-1:], np.float32),
                    "actions": np.array(actions),
                    "rewards": np.array(rewards, np.float32),
                    "terminated": np.array([terminated]),
                    "truncated": np.array([truncated and not terminated]),
                    "success": np.array([bool(info["success"])]),
                }


def save(path: Path, episodes: Sequence[dict[str, np.ndarray]], space: gymnasium.spaces.Box) -> None:
    """Write the episodes one after the other, as flat arrays."""
    arrays = {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}
    arrays["episode_ends"] = np.cumsum([len(episode["actions"]) for episode in episodes])
    arrays |= {"action_low": space.low, "action_high": space.high}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def main() -> None:
    """Record the episodes; the file grows with each of them."""
    parser = argparse.ArgumentParser(description="Record demonstrations of an Adroit environment.")
    parser.add_argument("--env", default="AdroitHandPen-v1", help="Adroit environment of gymnasium-robotics")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode; the others count up")
    parser.add_argument("--steps", type=int, default=100, help="time limit of an episode in control steps")
    parser.add_argument("--keep-failures", action="store_true", help="keep episodes without success too")
    parser.add_argument("--out", type=Path, default=Path("adroit.npz"))
    options = parser.parse_args()

    env = gymnasium.make(f"{PACKAGE}:{options.env}", max_episode_steps=options.steps)
    kept: list[dict[str, np.ndarray]] = []
    for seed in range(options.seed, options.seed + _MOST_ATTEMPTS * options.episodes):
        episode = record(env, options.env, PlannerConfig(), seed)
        success = bool(episode["success"][0])
        if success or options.keep_failures:
            kept.append(episode)
            save(options.out, kept, cast(gymnasium.spaces.Box, env.action_space))
        print(
            f"seed {seed}: return {episode['rewards'].sum():.0f}, {'success' if success else 'no success'}; "
            f"{len(kept)}/{options.episodes} kept",
            flush=True,
        )
        if len(kept) == options.episodes:
            break
    print(f"wrote {options.out}" if kept else "no episode succeeded; nothing written")


if __name__ == "__main__":
    main()
