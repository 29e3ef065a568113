"""Control steps of the simulated tasks, and rollouts of a policy in eight environments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.bench.timing import Group, Setting, alternate
from serfn.core.registry import attribute
from serfn.rollout.environments import make_env, task_spec
from serfn.rollout.rollouts import rollout
from serfn.rollout.simulations import Simulations
from serfn.runs.presets import preset
from serfn.tasks.orca_hand.cube_simulation import GRASP_RAD
from serfn.tasks.registry import env_of_task, task
from serfn.training.acting import BestOfNActor
from serfn.training.build import make_agent

ENVIRONMENTS = 8


def control_steps(setting: Setting) -> dict[str, Group]:
    """Return what one control step costs under each task's own demonstrator, whose contacts training sees."""
    names = ("cube",) if setting.quick else ("cube", "scissors", "valve")
    steps = 2 if setting.quick else 20
    calls = {
        f"{name}, {plant}": _demonstration(name, plant, steps)
        for name in names
        for plant in ("nominal", "field")
    }
    return {"one control step, demonstrator": alternate(calls, setting.rounds(20), per_call=steps)}


def rollouts(setting: Setting) -> dict[str, Group]:
    """Return what a control step costs in a rollout of the cube task, by threads and by what decides."""
    config = preset("cube", "demo")
    steps = 4 if setting.quick else 80
    simulations = Simulations(
        env_of_task("cube"), config.plant, {**config.env_options, "episode_s": steps / 20}, count=ENVIRONMENTS
    )
    spec = simulations.task
    agent = make_agent(config, spec)
    agent.policy.requires_grad_(False)
    agent.critic.requires_grad_(False)
    eager, graph = (
        _Holding(BestOfNActor(agent.policy, agent.critic, spec, config.online.acting)) for _ in range(2)
    )
    envs = simulations.up_to(ENVIRONMENTS)
    ways = {"PyTorch": eager}
    if graph.actor.prepare(ENVIRONMENTS) is None:
        ways["graph"] = graph
    calls: dict[str, Callable[[], object]] = {
        f"{name}, {threads} thread{'s' * (threads > 1)}": lambda actor=actor, threads=threads: rollout(
            envs, actor, seeds=range(ENVIRONMENTS), threads=threads
        )
        for name, actor in ways.items()
        for threads in (1, 2)
    }
    name = f"one control step of a rollout, cube, {ENVIRONMENTS} environments, with resets"
    group = alternate(calls, setting.rounds(6), per_call=ENVIRONMENTS * steps, warm_up=1)
    simulations.close()
    return {name: group}


class _Holding:
    """Decides as the actor does, and holds the cube with little of what it says: no episode ends early."""

    def __init__(self, actor: BestOfNActor) -> None:
        self.actor = actor
        self.chunk_size, self.n_action_steps = actor.chunk_size, actor.n_action_steps

    def reset(self, seed: int) -> None:
        self.actor.reset(seed)

    def act(self, observations: np.ndarray) -> np.ndarray:
        chunks = self.actor.act(observations)
        return (0.97 * GRASP_RAD[-chunks.shape[-1] :] + 0.03 * chunks).astype(np.float32)


def _demonstration(name: str, plant: str, steps: int) -> Callable[[], object]:
    entry = task(name)
    env = make_env(env_of_task(name), plant=plant)
    bounds = task_spec(env).action
    make = attribute(entry.demonstrator, f"the demonstrator of {entry.env_id}")
    episodes = iter(range(10**9))
    state: dict[str, np.ndarray] = {}

    def begin() -> None:
        number = next(episodes)
        state["observation"], _ = env.reset(seed=number)
        demonstrators.append(make(np.random.default_rng(number)))

    demonstrators: list = []
    begin()

    def run() -> None:
        for _ in range(steps):
            action = np.clip(demonstrators[-1].act(state["observation"]), bounds.low, bounds.high)
            state["observation"], _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                begin()

    return run
