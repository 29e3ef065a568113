"""Evaluating a run, a checkpoint or a policy bundle on fresh episodes."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from serfn.core.agreement import compare, settle
from serfn.core.config import from_dict
from serfn.core.errors import CheckpointError, ConfigError
from serfn.core.progress import SILENT, Progress
from serfn.core.results import EvaluationResult
from serfn.core.sides import Side
from serfn.core.spec import TaskSpec
from serfn.critics.base import ChunkCritic
from serfn.policies.bundle import CONFIG_FILE as BUNDLE_CONFIG
from serfn.policies.bundle import load_bundle
from serfn.rollout.aborts import Aborts
from serfn.rollout.rollouts import evaluation_result, rollout
from serfn.rollout.simulations import Simulations
from serfn.training.acting import ActingConfig, BestOfNActor
from serfn.training.build import make_agent, make_stages
from serfn.training.checkpoint import read_config, read_tree, target
from serfn.training.config import TrainConfig

PART = "evaluation"
"""Name under which an evaluation reports its progress."""


def evaluate(
    path: str | Path,
    *,
    episodes: int = 50,
    seed: int = 0,
    plant: str | None = None,
    env: str | None = None,
    control_hz: float | None = None,
    candidates: int | None = None,
    temperature: float | None = None,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Run evaluation episodes of a trained policy.

    Args:
        path: Run folder (its best checkpoint, or the last where nothing was evaluated), checkpoint folder, or
            bundle.
        episodes: Number of episodes.
        seed: Seed of the first episode; the others count up.
        plant: Variant of the task; None is the one of training.
        env: Gymnasium id; None is the environment of training.
        control_hz: Control steps per second of the environment; None is what it says, or as in training.
        candidates: Chunks to choose from; None as in training. A bundle has no critic and acts with 1.
        temperature: Temperature of sampling; None as in training.
        progress: Watches.

    Raises:
        CheckpointError: There is no policy at `path`.
        ConfigError: A number is out of range, several candidates are asked of a policy without a critic, or
            policy and environment do not agree.
        AbortedEpisodesError: The environment aborts too many episodes, or all of them.
    """
    if control_hz is not None and not 0 < control_hz < float("inf"):
        raise ConfigError(f"control_hz is {control_hz}; it must be a positive number of steps per second")
    if episodes < 1 or seed < 0:
        raise ConfigError(f"episodes is {episodes} and seed is {seed}; use at least 1 and at least 0")
    actor, config = load_actor(path, candidates=candidates, temperature=temperature)
    if env is None and config is not None and config.env is None:
        raise ConfigError(
            f"'{path}' was trained on recordings alone: there is no environment to evaluate it in; name "
            f"one with --env, or run it on the robot: serfn robot run --policy {path} --learn none"
        )
    same_env = config is not None and env in (None, config.env)
    simulations = Simulations(
        env or (actor.task.id if config is None or config.env is None else config.env),
        config.plant if config is not None and same_env and plant is None else plant,
        config.env_options if config is not None and same_env else {},
        count=min(8 if config is None else config.evaluation.simulations, episodes),
        threads=worker_threads(),
        control_hz=config.control_hz
        if config is not None and same_env and control_hz is None
        else control_hz,
    )
    progress.stage_started(PART, episodes)
    aborts = Aborts(lambda aborted: progress.note(f"seed {aborted.seed} aborted: {aborted.reason}"))
    try:
        side = simulations.side
        for finding in settle(compare(Side.of_task("the policy", actor.task), side, "evaluate")):
            progress.note(finding.text)
        if note := prepare_for(actor, episodes, simulations):
            progress.note(note)
        recorded = rollout(
            simulations.up_to(episodes),
            actor,
            seeds=range(seed, seed + episodes),
            threads=simulations.threads,
            on_episode=lambda episode: progress.advanced(PART, 1, {"return": episode.return_}),
            aborts=aborts,
        )
    finally:
        for failure in simulations.close():
            progress.note(failure)
    if not recorded:
        raise aborts.error()
    result = evaluation_result(recorded, side.control_hz or actor.task.control_hz, asked=episodes)
    progress.stage_finished(PART, {"score": result.mean_score})
    return result


def prepare_for(actor: BestOfNActor, episodes: int, simulations: Simulations) -> str | None:
    """Prepare an actor for a rollout that is long enough to gain by it; return why it could not be."""
    together = len(simulations.up_to(episodes))
    chunks = math.ceil(simulations.task.max_episode_steps / actor.n_action_steps)
    return actor.prepare_for(math.ceil(episodes / together) * chunks, together)


def worker_threads() -> int:
    """Return how many environments are stepped at the same time: two, but no more than torch may use."""
    return min(2, torch.get_num_threads())


def load_actor(
    path: str | Path,
    *,
    candidates: int | None = None,
    temperature: float | None = None,
    n_action_steps: int | None = None,
) -> tuple[BestOfNActor, TrainConfig | None]:
    """Load what acts from a run folder, a checkpoint folder or a bundle, and the configuration of its run.

    Args:
        path: Where it is.
        candidates: Chunks to choose from; None as in training (1 for a bundle, which has no critic).
        temperature: Temperature of sampling; None as in training.
        n_action_steps: Steps executed of each chunk; None as in training.

    Raises:
        CheckpointError: There is none of the three at `path`.
        ConfigError: Several candidates without a critic, or more steps than chunks have.
    """
    path = Path(path)
    folder = checkpoint_folder(path)
    if folder is None:
        bundle = load_bundle(path)
        stored = ActingConfig(
            candidates=1,
            temperature=float(bundle.metadata.get("temperature", ActingConfig().temperature)),
            n_action_steps=bundle.metadata.get("n_action_steps"),
        )
        acting = stored.changed(candidates, temperature, n_action_steps)
        return BestOfNActor(bundle.policy, None, bundle.spec, acting), None
    try:
        config = from_dict(TrainConfig, read_config(folder))
    except ConfigError as error:
        raise CheckpointError(
            f"'{folder}' was written by another version of serfn ({error}); use that version, or train anew"
        ) from error
    tree = read_tree(folder)
    task = TaskSpec.from_dict(tree["task"])
    agent = make_agent(config, task)
    try:
        agent.load_state_dict(tree["agent"])
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in '{folder}' do not fit its configuration; restore 'config.json' from a copy"
        ) from error
    trained = {stage.name: stage.acting for stage in make_stages(config)}[tree["state"]["stage"]]
    found = tree["state"]["data"].get("candidates")
    acting = (
        (trained or config.imitation.acting).changed(found).changed(candidates, temperature, n_action_steps)
    )
    critic: ChunkCritic | None = agent.critic if acting.candidates > 1 else None
    return BestOfNActor(agent.policy, critic, task, acting), config


def checkpoint_folder(path: Path) -> Path | None:
    """Return the checkpoint folder that `path` means, or None if it must be a bundle.

    Raises:
        CheckpointError: It is neither.
    """
    if not path.is_dir():
        raise CheckpointError(
            f"'{path}' is no folder; give a run folder, a checkpoint folder or a policy bundle"
        )
    if (path / "state.json").is_file():
        return path
    for root in (path / "checkpoints", path):
        for pointer in ("best", "last"):
            folder = target(root, pointer)
            if folder is not None:
                return folder
    if not (path / BUNDLE_CONFIG).is_file():
        raise CheckpointError(
            f"'{path}' holds neither a run with a checkpoint nor a policy bundle; give the folder of "
            "serfn train --out, or of a saved policy"
        )
    return None
