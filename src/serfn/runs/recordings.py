"""What recordings say of their task, where there is no environment to say it; and what suits them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from serfn.core.errors import ConfigError
from serfn.core.spec import ObservationSpec, TaskSpec
from serfn.core.words import number
from serfn.data.datasets import load_demonstrations
from serfn.data.demonstrations import Demonstrations
from serfn.runs.derive import Plan, derive
from serfn.runs.facts import facts
from serfn.runs.presets import Budget


def task_of_recordings(found: Demonstrations, path: Path, control_hz: float | None = None) -> TaskSpec:
    """Return the task that demonstrations are of.

    Args:
        found: The demonstrations.
        path: Where they lie, whose name becomes that of the task.
        control_hz: Control steps per second; None is what they say.

    Raises:
        ConfigError: Nothing tells the rate.
    """
    rate = control_hz or found.control_hz
    if rate is None:
        raise ConfigError(
            f"'{path}' does not say how many steps a second has; give the rate with --set control_hz=RATE"
        )
    dim = found.obs_dim
    names = found.observation_names if len(found.observation_names) == dim else ()
    action = found.action_spec
    if not action.names and len(found.action_names) == action.dim:
        action = dataclasses.replace(action, names=found.action_names)
    return TaskSpec(
        id=path.stem or "recordings",
        observation=ObservationSpec(dim, names),
        action=action,
        control_hz=rate,
        max_episode_steps=max(episode.length for episode in found.episodes),
    )


def describe(task: TaskSpec, found: Demonstrations) -> str:
    """Return in one line what is taken from the recordings, to be read before anything is learnt."""
    low, high = min(task.action.low), max(task.action.high)
    solved = [episode.success for episode in found.episodes]
    told = "nobody says which succeed" if None in solved else f"{sum(map(bool, solved))} succeed"
    return (
        f"no environment; {len(solved)} episodes at {task.control_hz:g} steps per second, {told}; "
        f"{task.observation.dim} observations, {task.action.dim} actions in [{number(low)}, {number(high)}], "
        f"at most {task.max_episode_steps} steps"
    )


def plan_for_recordings(demos: Path, budget: Budget, control_hz: float | None = None) -> Plan:
    """Return a configuration for demonstrations without an environment, derived from them, with reasons.

    Raises:
        DataError: The demonstrations cannot be read.
        ConfigError: They do not say their rate, and it was not given.
    """
    found = load_demonstrations(demos, skip_bad=True)
    task = task_of_recordings(found, demos, control_hz)
    derived = derive(facts(dataclasses.replace(found, control_hz=task.control_hz)), budget)
    config = dataclasses.replace(derived.config, env=None, demos=demos, control_hz=control_hz)
    return Plan(config, derived.reasons)
