"""One command from demonstrations to a better policy: environments, the learner's session and the run folder.

Run folder::

    config.json            the configuration; format.json is the version of this layout
    inputs.json            fingerprint of the demonstrations, and where they lay
    status.json            where the run stands
    evaluations.jsonl      one line per evaluation
    metrics.jsonl, .csv    one line per report of a stage; tensorboard/ holds the same
    gates.json             what was promoted, and why
    alarms.jsonl           what looked suspicious; missing if nothing did
    aborted.jsonl          episodes that the environment's own code cut short; missing if it cut none
    findings.json          what of demonstrations and environment does not agree; missing if all does
    demonstrations.npz     demonstrations, if this run collected them
    experience/            online episodes as they were executed, see `serfn.data.store.store`
    checkpoints/           see `serfn.training.checkpoint`
    films/                 film strips of the policy after imitation and at the end
    policy/                the best policy as a bundle, see `serfn.policies.bundle`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from serfn.core.errors import CheckpointError, ConfigError, DataError
from serfn.core.progress import SILENT, Progress
from serfn.core.sides import Finding
from serfn.core.spec import TaskSpec
from serfn.core.words import number
from serfn.data.datasets import load_demonstrations
from serfn.data.demonstrations import Demonstrations, check_coverage
from serfn.data.extremes import extremes
from serfn.data.store.store import EpisodeStore, is_store
from serfn.rollout.collect import collect as collect_demonstrations
from serfn.rollout.environments import try_out
from serfn.rollout.simulations import Simulations
from serfn.runs.demonstrations import compare_with_task, read_demonstrations, write_findings
from serfn.runs.evaluate import worker_threads
from serfn.runs.folder import CONFIG_FILE, RUN, write_config
from serfn.runs.inputs import demonstrations_of_run, places, read_inputs, write_inputs
from serfn.runs.log import ABORTED
from serfn.runs.online_data import EXPERIENCE
from serfn.runs.recordings import describe, task_of_recordings
from serfn.runs.run import Run, RunResult
from serfn.tasks.registry import task_of_env, tasks
from serfn.training.build import make_agent, make_demonstration_replay, make_stages
from serfn.training.checkpoint import resolve, target
from serfn.training.config import TrainConfig
from serfn.training.stages.state import STAGES, StageName

_MOST_CLIPPED = 0.02
"""Share of demonstrated steps whose clipped reward needs no mention."""

_ROUND_OFF = 1e-6

RECORDED: tuple[StageName, ...] = ("imitation", "critic_warmup", "offline")
"""Stages that need no environment."""


def train(
    config: TrainConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    stages: Sequence[StageName] | None = None,
    films: bool = True,
    progress: Progress = SILENT,
) -> RunResult:
    """Run the stages of the method and keep everything in a run folder.

    Args:
        config: Configuration.
        run_dir: Run folder.
        resume: Continue a run of the same configuration from its last checkpoint. Where nothing was learnt
            yet, the run starts; where a checkpoint should be and is not, it is refused.
        stages: Names of the stages to run; None runs all four.
        films: Record film strips where the environment renders.
        progress: Watches.

    Raises:
        ConfigError: The folder holds a run and `resume` was not asked for, or an option is impossible.
        DataError: Demonstrations are missing or do not fit the environment.
        CheckpointError: The checkpoint cannot be resumed.
        AbortedEpisodesError: The environment aborted too many episodes; the run can be resumed.
        KeyboardInterrupt: The user stopped the run; it can be resumed.
    """
    chosen: Sequence[StageName] = STAGES if stages is None else stages
    chosen = tuple(stage.name for stage in make_stages(config, chosen))
    folder = Path(run_dir)
    if config.env is None:
        return _train_on_recordings(config, folder, resume, chosen if stages else RECORDED, progress)
    simulations = Simulations(
        config.env,
        config.plant,
        config.env_options,
        count=config.evaluation.simulations,
        threads=worker_threads(),
        control_hz=config.control_hz,
    )
    try:
        task, side = simulations.task, simulations.side
        # Everything that bad input can break comes before the folder is touched.
        try_out(simulations.up_to(1)[0])
        make_agent(config, task)
        given = None
        if config.demos is not None:
            given, place = _given(config, config.demos, folder, task, resume, side.control_hz is not None)
            config = dataclasses.replace(config, demos=place)
        if given is None and task_of_env(config.env) is None:
            raise DataError(
                f"environment '{config.env}' has no demonstrator of ours; give demos, such as an NPZ file"
            )
        findings: tuple[Finding, ...] = ()
        if given is not None:
            if side.control_hz is None and given.control_hz is not None:
                simulations.control_hz = given.control_hz
                task = simulations.task
                progress.note(
                    f"control rate: '{config.env}' says none; {given.control_hz:g} steps per second, as in "
                    "its demonstrations"
                )
            findings = compare_with_task(config, given, simulations.side)
            if given.left_out is not None:
                findings = (*findings, Finding("bad episodes", f"demonstrations: {given.left_out}"))
            make_demonstration_replay(config, task, given.episodes)
        begun = (folder / CONFIG_FILE).exists()
        _check_first_stage(chosen, folder)
        resuming = _open_folder(folder, config, resume)
        if begun and not resuming:
            progress.note(f"'{folder}' was stopped before its first checkpoint: it starts from the beginning")
        # What a run of before learnt from is known from its checkpoint only, which was not read yet.
        if given is not None and config.demos is not None and (not resuming or read_inputs(folder)):
            write_inputs(folder, config.demos, given.episodes)
        write_findings(folder, findings)
        for finding in findings:
            progress.note(finding.text)
        demonstrations = given or _collect_or_load(config, folder, task, progress)
        for note in _notes(demonstrations, config):
            progress.note(f"demonstrations: {note}")
        run = Run(config, folder, task, demonstrations.episodes, simulations, films=films, progress=progress)
        return run.execute(chosen, resuming)
    finally:
        for failure in simulations.close():
            progress.note(failure)


def _train_on_recordings(
    config: TrainConfig, folder: Path, resume: bool, stages: Sequence[StageName], progress: Progress
) -> RunResult:
    """Train without an environment: held-out recordings judge what is learnt."""
    if config.demos is None:
        raise ConfigError("there is neither an environment nor demos; give one of them")
    if "online" in stages:
        raise ConfigError(
            "the online stage needs an environment; run it on the robot: serfn robot run --policy RUN"
        )
    place = config.demos if not resume else next(iter(places(config.demos, folder)), config.demos)
    found = load_demonstrations(place, skip_bad=config.skip_bad)
    task = task_of_recordings(found, place, config.control_hz)
    given, place = _given(config, place, folder, task, resume, True)
    config = dataclasses.replace(config, demos=place)
    make_agent(config, task)
    make_demonstration_replay(config, task, given.episodes)
    _check_first_stage(stages, folder)
    resuming = _open_folder(folder, config, resume)
    if not resuming or read_inputs(folder):
        write_inputs(folder, place, given.episodes)
    for note in (describe(task, given), *_notes(given, config)):
        progress.note(f"demonstrations: {note}")
    run = Run(config, folder, task, given.episodes, None, films=False, progress=progress)
    return run.execute(stages, resuming)


def _given(
    config: TrainConfig, path: Path, folder: Path, task: TaskSpec, resume: bool, rate_known: bool
) -> tuple[Demonstrations, Path]:
    """Return the demonstrations that a run was given, and their place."""
    if resume:
        return demonstrations_of_run(config, path, folder, task, rate_known=rate_known)
    return read_demonstrations(config, path, task, rate_known=rate_known), path


def _check_first_stage(stages: Sequence[StageName], folder: Path) -> None:
    """Raise unless the first stage has what it goes on from."""
    if stages[0] != STAGES[0] and target(folder / "checkpoints", "last") is None:
        raise ConfigError(
            f"stage {stages[0]} goes on from what imitation has learnt, and '{folder}' has no "
            "checkpoint; begin with imitation, or resume a run that has it"
        )


def _open_folder(folder: Path, config: TrainConfig, resume: bool) -> bool:
    """Make the run folder, or return True if it holds a checkpoint to resume from."""
    checkpoints = folder / "checkpoints"
    if resume and (folder / CONFIG_FILE).exists():
        RUN.check_folder(folder)
    if resume and target(checkpoints, "last") is not None:
        resolve(checkpoints, "last")
        return True
    started = folder / CONFIG_FILE
    if started.exists() and not resume:
        raise ConfigError(f"'{folder}' already holds a run; resume it, or choose another folder")
    if resume:
        _refuse_to_lose_progress(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_config(folder, config)
    except OSError as error:
        raise ConfigError(f"cannot write to run folder '{folder}': {error}; choose another folder") from error
    for name in ("metrics.jsonl", "metrics.csv", "evaluations.jsonl", "alarms.jsonl", ABORTED):
        (folder / name).unlink(missing_ok=True)
    return False


def _refuse_to_lose_progress(folder: Path) -> None:
    """Raise if a run without a checkpoint has got anywhere: starting it anew would hide what is missing."""
    traces = [folder / name for name in ("metrics.jsonl", "evaluations.jsonl")]
    found = [path.name for path in traces if path.exists() and path.stat().st_size]
    found += [path.name for path in (folder / "checkpoints").glob("[0-9]*")]
    if is_store(folder / EXPERIENCE) and len(EpisodeStore(folder / EXPERIENCE)):
        found.append(EXPERIENCE)
    if found:
        raise CheckpointError(
            f"'{folder}' has no checkpoint to resume from, but traces of progress ({', '.join(found)}); "
            "restore 'checkpoints/last.json' and the folder that it names, or start in a new folder"
        )


def _notes(demonstrations: Demonstrations, config: TrainConfig) -> list[str]:
    """Return what the user should know about the demonstrations before training on them."""
    notes = [*demonstrations.notes, *extremes(demonstrations.episodes)]
    coverage = check_coverage(demonstrations, config.chunk_size)
    entry = task_of_env(config.env)
    chosen = entry is not None and entry.preset is not None
    if not (chosen and config.demos is None):
        # How the demonstrator of a task moves was chosen with the task.
        notes += coverage.notes
    if chosen:
        # A preset has chosen the scale; what it clips is meant to be clipped.
        return notes
    rewards = np.abs(np.concatenate([episode.rewards for episode in demonstrations.episodes]))
    clipped = float((config.rewards.scale * rewards > 1 + _ROUND_OFF).mean())
    if clipped > _MOST_CLIPPED:
        notes.append(
            f"rewards reach {number(float(rewards.max()))}, and {clipped:.0%} of the steps are clipped to ±1 "
            f"after scaling; rewards.scale={number(1 / float(rewards.max()))} would keep all of them"
        )
    return notes


def _collect_or_load(config: TrainConfig, folder: Path, task: TaskSpec, progress: Progress) -> Demonstrations:
    path = folder / "demonstrations.npz"
    if not path.is_file():
        entry = task_of_env(config.env)
        if entry is None:
            raise DataError(
                f"environment '{config.env}' has no demonstrator of ours; give demos, such as an NPZ file"
            )
        collect_demonstrations(
            tasks.name_of(entry),
            config.demo_episodes,
            path,
            seed=config.seed,
            plant=config.demo_plant,
            workers=worker_threads(),
            progress=progress,
        )
    return load_demonstrations(path, task.action, obs_dim=task.observation.dim)
