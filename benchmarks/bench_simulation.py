"""Measure the simulated tasks: physics steps, control steps and episodes per second, and where the time goes.

Episodes run under each task's own demonstrator, whose contacts are those that training sees. Figures are per
second of CPU time of one core, so that a busy machine spoils them little; those marked (wall) are not. Two
cores are two processes side by side. Rendering draws every control step, for the first seconds of an episode:
a software renderer takes minutes for a whole one.

    python benchmarks/bench_simulation.py --tasks cube scissors --episodes 4 --json simulation.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from rich.console import Console
from rich.table import Table

from serfn.tasks.registry import register_envs, task, tasks

Figures = dict[str, float]
_RENDERED_STEPS = 60


def run_episodes(name: str, plant: str, episodes: int, render: bool) -> Figures:
    """Run demonstrated episodes and return their CPU and wall times, steps and simulated time.

    With `render` every step is drawn, and the run ends after `_RENDERED_STEPS`.
    """
    env, act = make(name, plant, render)
    space: Any = env.action_space
    env.reset(seed=0)
    if render:
        env.render()
    simulated = steps = 0.0
    cpu, wall = time.process_time(), time.perf_counter()
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        decide = act(episode)
        over = False
        while not over:
            action = np.clip(decide(observation), space.low, space.high)
            observation, _, terminated, truncated, _ = env.step(action)
            steps += 1
            if render:
                env.render()
            over = terminated or truncated or (render and steps >= _RENDERED_STEPS)
        simulated += env.simulation.data.time
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    timestep = env.simulation.model.opt.timestep
    env.close()
    return {
        "physics_steps": simulated / timestep,
        "env_steps": steps,
        "simulated_s": steps / env.control_hz,
        "episodes": float(episodes),
        "cpu_s": cpu,
        "wall_s": wall,
    }


def make(
    name: str, plant: str, render: bool
) -> tuple[Any, Callable[[int], Callable[[np.ndarray], np.ndarray]]]:
    """Return an environment of a task, and what makes the policy of an episode: its demonstrator."""
    register_envs()
    entry = task(name)
    options = {"plant": plant, "render_mode": "rgb_array" if render else None}
    env: Any = gymnasium.make(entry.env_id, disable_env_checker=True, **options).unwrapped
    module, function = entry.demonstrator.split(":")
    make_demonstrator = getattr(import_module(module), function)
    return env, lambda episode: make_demonstrator(np.random.default_rng(episode)).act


def profile(name: str, plant: str, steps: int) -> Figures:
    """Return milliseconds of CPU time per control step that parts of it take."""
    env, act = make(name, plant, render=False)
    space: Any = env.action_space
    spent: Figures = {}

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent[part] = spent.get(part, 0.0) + time.process_time() - start

        return wrapper

    observation, _ = env.reset(seed=0)
    decide = timed("demonstrator", act(0))
    env.simulation.step = timed("physics and its supervision", env.simulation.step)
    env.observe = timed("observation", env.observe)
    env.reward_terms = timed("reward", env.reward_terms)
    whole = timed("control step", env.step)
    for _ in range(steps):
        action = np.clip(decide(observation), space.low, space.high)
        observation, _, terminated, truncated, _ = whole(action)
        if terminated or truncated:
            observation, _ = env.reset()
            decide = timed("demonstrator", act(1))
    parts = {part: 1e3 * seconds / steps for part, seconds in spent.items()}
    inner = sum(value for part, value in parts.items() if part not in ("control step", "demonstrator"))
    return {**parts, "everything else": parts["control step"] - inner}


def two_cores(name: str, plant: str, episodes: int, render: bool) -> float:
    """Return control steps per second of two processes side by side.

    Each has compiled its scene before its clock starts.
    """
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.starmap(run_episodes, [(name, plant, episodes, render)] * 2)
    return sum(result["env_steps"] / result["wall_s"] for result in results)


def measure(name: str, plant: str, episodes: int, render: bool) -> dict[str, Any]:
    """Return all figures of one task on one plant."""
    bare = run_episodes(name, plant, episodes, render=False)
    per_minute = 60 * episodes / bare["env_steps"]
    figures = {
        "physics steps/s": bare["physics_steps"] / bare["cpu_s"],
        "env steps/s": bare["env_steps"] / bare["cpu_s"],
        "× real time": bare["simulated_s"] / bare["cpu_s"],
        "episodes/min": per_minute * bare["env_steps"] / bare["cpu_s"],
    }
    speeds = {"2 cores (wall)": two_cores(name, plant, episodes, render=False)}
    if render:
        drawn = run_episodes(name, plant, 1, render=True)
        speeds["rendered (wall)"] = drawn["env_steps"] / drawn["wall_s"]
        speeds["rendered, 2 cores (wall)"] = two_cores(name, plant, 1, render=True)
    for how, speed in speeds.items():
        figures[f"env steps/s, {how}"] = speed
        figures[f"episodes/min, {how}"] = per_minute * speed
    return {"figures": figures, "profile, ms per control step": profile(name, plant, 200)}


def provenance() -> dict[str, Any]:
    """The machine, the libraries and the commit that the figures belong to."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    load = os.getloadavg()[0]
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": load,
        "mujoco": version("mujoco"),
        "orca_sim": version("orca_sim"),
        "commit": git.stdout.strip() or "unknown",
    }


def show(results: dict[str, dict[str, Any]], about: dict[str, Any], console: Console) -> None:
    """Print one table of speeds and one of the profile."""
    for part in ("figures", "profile, ms per control step"):
        table = Table(
            title=f"{part}; MuJoCo {about['mujoco']}, commit {about['commit']}, load {about['load']:.1f}"
        )
        table.add_column("")
        for column in results:
            table.add_column(column, justify="right")
        rows = dict.fromkeys(row for result in results.values() for row in result[part])
        for row in rows:
            cells = [
                f"{result[part][row]:.3g}" if row in result[part] else "–" for result in results.values()
            ]
            table.add_row(row, *cells)
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=tasks.names(), default=["cube", "scissors"])
    parser.add_argument("--plants", nargs="+", default=["nominal", "field"])
    parser.add_argument("--episodes", type=int, default=4, help="episodes per figure")
    parser.add_argument("--no-render", action="store_true", help="leave rendering out")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    console = Console()
    about, results = provenance(), {}
    for name in options.tasks:
        for plant in options.plants:
            results[f"{name}, {plant}"] = measure(name, plant, options.episodes, not options.no_render)
            console.print(f"measured {name} on {plant}")
    show(results, about, console)
    if options.json:
        text = json.dumps({**about, "results": results}, indent=2, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
