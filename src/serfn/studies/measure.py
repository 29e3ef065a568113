"""What a study measures besides evaluations: likelihood of unseen demonstrations, ways, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serfn.core.protocols import ChunkActor
from serfn.core.spec import TaskSpec
from serfn.data.datasets import load_demonstrations
from serfn.data.episode import Episode
from serfn.data.replay import ChunkReplay
from serfn.policies.base import ChunkPolicy, LikelihoodPolicy
from serfn.rollout.aborts import Aborts
from serfn.rollout.rollouts import rollout
from serfn.rollout.simulations import Simulations
from serfn.runs.evaluate import load_actor
from serfn.studies.config import ModeProbe
from serfn.training.build import make_agent
from serfn.training.checkpoint import resolve
from serfn.training.config import TrainConfig

_WINDOWS_PER_BATCH = 1024
_PATHS = 48
"""Paths that are kept for the picture."""


def measure(
    folder: Path, config: TrainConfig, *, held_out: Path | None, modes: ModeProbe | None
) -> dict[str, Any]:
    """Measure the policy that a run ended with.

    Args:
        folder: Run folder with a last checkpoint.
        config: Its configuration.
        held_out: NPZ file of demonstrations that it was not trained on; None leaves the likelihood out.
        modes: Where the task can be solved in several ways; None leaves them out.

    Returns:
        `policy`, the name of its class; `parameters` of policy and critic; `nll` in nats per action dimension
        (None for policies without a density); and `modes` (None without a probe).
    """
    actor, _ = load_actor(resolve(folder / "checkpoints", "last"))
    agent = make_agent(config, actor.task)
    nll = None
    if held_out is not None:
        episodes = load_demonstrations(held_out, actor.task.action).episodes
        nll = held_out_nll(actor.policy, episodes, actor.task)
    return {
        "policy": type(actor.policy).__name__,
        "parameters": {"policy": _count(agent.policy), "critic": _count(agent.critic)},
        "nll": nll,
        "modes": None if modes is None else probe_modes(actor, config, modes),
    }


@torch.no_grad()
def held_out_nll(policy: ChunkPolicy, demonstrations: Sequence[Episode], task: TaskSpec) -> float | None:
    r"""Mean of ``-log π(a | s) / D`` over all windows of demonstrations, D counting valid action dimensions.

    The density is that of normalised actions in (-1, 1), at temperature 1, for every policy alike, so that
    values compare between policies.

    Returns:
        Nats per action dimension, or None for a policy without a tractable density.
    """
    if not isinstance(policy, LikelihoodPolicy):
        return None
    steps = sum(episode.length for episode in demonstrations)
    replay = ChunkReplay(task.action, task.observation.dim, policy.chunk_size, steps)
    for episode in demonstrations:
        replay.add(episode)
    weight = next(policy.parameters())
    total, dimensions = 0.0, 0
    for start in range(0, len(replay), _WINDOWS_PER_BATCH):
        windows = replay.windows(np.arange(start, min(start + _WINDOWS_PER_BATCH, len(replay))))
        obs, actions = (
            torch.as_tensor(values, dtype=weight.dtype, device=weight.device)
            for values in (windows.obs, windows.actions)
        )
        valid = torch.as_tensor(windows.valid, device=weight.device)
        total -= policy.log_prob(obs, actions, valid).sum().item()
        dimensions += int(windows.valid.sum()) * task.action.dim
    return total / dimensions


def probe_modes(actor: ChunkActor, config: TrainConfig, probe: ModeProbe) -> dict[str, Any]:
    """Run episodes from one start and count which way they go.

    Returns:
        `episodes`, `ways` (successful episodes by way), `failed`, `other` (successes by none of the ways),
        and `paths`, `{"points": [[x, y], ...], "success": ...}` of some episodes in the probe's plane.
    """
    plant = config.plant if probe.plant is None else probe.plant
    assert config.env is not None  # a study's tasks have environments
    simulations = Simulations(config.env, plant, config.env_options, count=config.evaluation.simulations)
    try:
        episodes = rollout(
            simulations.up_to(probe.episodes),
            actor,
            seeds=[probe.seed] * probe.episodes,
            aborts=Aborts(),
        )
    finally:
        simulations.close()
    solved = [episode for episode in episodes if episode.success is not False]
    ways = {
        name: sum(episode.metrics.get(probe.metric) == value for episode in solved)
        for name, value in probe.values.items()
    }
    shown = [] if probe.plane is None else episodes[:_PATHS]
    return {
        "episodes": len(episodes),
        "ways": ways,
        "other": len(solved) - sum(ways.values()),
        "failed": len(episodes) - len(solved),
        "paths": [_path(episode, probe.plane) for episode in shown if probe.plane is not None],
    }


def _path(episode: Episode, plane: tuple[int, int]) -> dict[str, Any]:
    points = np.round(episode.observations[:, list(plane)].astype(float), 3)
    return {"points": points.tolist(), "success": episode.success is not False}


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
