"""One command from demonstrations to a better policy: environments, the learner's session and the run folder.

Run folder::

    config.json            the configuration
    status.json            where the run stands
    evaluations.jsonl      one line per evaluation
    metrics.jsonl, .csv    one line per report of a stage; tensorboard/ holds the same
    gates.json             what was promoted, and why
    demonstrations.npz     demonstrations, if this run collected them
    checkpoints/           see `serfn.training.checkpoint`
    films/                 film strips of the policy after imitation and at the end
    policy/                the best policy as a bundle, see `serfn.policies.bundle`
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serfn.core.config import to_dict
from serfn.core.errors import ConfigError, DataError, SerfnError
from serfn.core.protocols import ChunkActor
from serfn.core.results import EvaluationResult
from serfn.core.seeding import torch_seed
from serfn.core.spec import TaskSpec
from serfn.data.episode import Episode
from serfn.data.formats.npz import load_npz
from serfn.evaluation.film import record_frames, save_film_strip
from serfn.evaluation.rollouts import evaluation_result, rollout
from serfn.policies.bundle import save_bundle
from serfn.runtime.collect import collect as collect_demonstrations
from serfn.runtime.collect import task_of_env
from serfn.runtime.evaluate import load_actor
from serfn.runtime.interrupt import deferred_interrupt
from serfn.runtime.progress import SILENT, Progress
from serfn.runtime.run_log import RunLog
from serfn.runtime.simulations import Simulations
from serfn.training.acting import BestOfNActor
from serfn.training.build import make_agent, make_prior, make_stages
from serfn.training.checkpoint import resolve, target, write_atomically
from serfn.training.config import TrainConfig
from serfn.training.gate import GateDecision
from serfn.training.session import TrainingSession
from serfn.training.stages.context import STAGES, RunState, StageName

_INTERIM_SEED_OFFSET = 500_000
_FILM_SEED_OFFSET = 900_000


@dataclass(frozen=True)
class RunResult:
    """Outcome of a training run.

    Attributes:
        folder: Run folder.
        finals: Closing evaluation of each evaluated stage, in order.
        gates: What was promoted, and why.
        best_checkpoint: Checkpoint folder of the best policy; None if nothing was evaluated.
    """

    folder: Path
    finals: dict[str, EvaluationResult]
    gates: tuple[GateDecision, ...]
    best_checkpoint: Path | None


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
        resume: Continue a run of the same configuration from its last checkpoint; a folder without one starts
            anew.
        stages: Names of the stages to run; None runs all four.
        films: Record film strips where the environment renders.
        progress: Watches.

    Raises:
        ConfigError: The folder holds a run and `resume` was not asked for, or an option is impossible.
        DataError: Demonstrations are missing or do not fit the environment.
        CheckpointError: The checkpoint cannot be resumed.
        KeyboardInterrupt: The user stopped the run; it can be resumed.
    """
    chosen: Sequence[StageName] = STAGES if stages is None else stages
    make_stages(config, chosen)
    folder = Path(run_dir)
    simulations = Simulations(
        config.env,
        config.plant,
        config.env_options,
        count=config.evaluation.simulations,
        threads=config.evaluation.threads,
    )
    try:
        task = simulations.task
        # Everything that bad input can break comes before the folder is touched.
        make_agent(config, task)
        given = None if config.demos is None else _load_demonstrations(config.demos, task)
        if given is None and task_of_env(config.env) is None:
            raise DataError(
                f"environment '{config.env}' has no demonstrator of ours; give demos, an NPZ file"
            )
        if given is not None:
            make_prior(config, task, given)
        resuming = _open_folder(folder, config, resume)
        demonstrations = given or _collect_or_load(config, folder, task, progress)
        run = _Run(config, folder, task, demonstrations, simulations, films=films, progress=progress)
        return run.execute(chosen, resuming)
    finally:
        simulations.close()


class _Run:
    """Callbacks of one training session, and what they write."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        task: TaskSpec,
        demonstrations: Sequence[Episode],
        simulations: Simulations,
        *,
        films: bool,
        progress: Progress,
    ) -> None:
        self.config, self.folder, self.task = config, folder, task
        self.simulations, self.films, self.progress = simulations, films, progress
        self.log = RunLog(folder)
        self._shown = 0
        self._clock = time.monotonic()
        self._latest: EvaluationResult | None = None
        self.session = TrainingSession(
            config,
            task,
            demonstrations,
            folder / "checkpoints",
            evaluate=self._evaluate,
            collect=self._collect,
            report=self._report,
            started=self._started,
            finished=self._finished,
            note=progress.note,
            should_stop=lambda: self._stop(),
            extra_state=lambda: {"position": self.log.position()},
        )
        self._stop = lambda: False

    @property
    def state(self) -> RunState:
        return self.session.state

    def execute(self, stages: Sequence[StageName], resuming: bool) -> RunResult:
        if resuming:
            extra = self.session.resume()
            self.log.truncate(extra["position"], self.state.updates)
            self.progress.note(f"resumed in stage {self.state.stage} at update {self.state.step}")
        complete = False
        self._clock = time.monotonic()
        try:
            with deferred_interrupt() as stop:
                self._stop = stop
                self.session.run(stages)
            complete = True
        finally:
            self._write_status(complete)
            self.log.close()
        if self.films:
            self._film(f"{self.state.stage}_after", "after training", load_actor(self.folder)[0])
        self._save_policy()
        return RunResult(
            self.folder,
            _final_evaluations(self.folder / "evaluations.jsonl"),
            tuple(self.state.gates),
            target(self.session.store.root, "best"),
        )

    def _evaluate(self, actor: BestOfNActor, *, stage: StageName, final: bool) -> EvaluationResult:
        evaluation = self.config.evaluation
        count = evaluation.episodes if final else evaluation.interim_episodes
        first = evaluation.seed + (0 if final else _INTERIM_SEED_OFFSET)
        self.progress.note(f"{stage}: evaluating {count} episodes")
        result = evaluation_result(
            rollout(
                self.simulations.up_to(count),
                actor,
                seeds=range(first, first + count),
                threads=self.simulations.threads,
                policy_version=self.state.updates,
            ),
            self.task.control_hz,
        )
        self.log.evaluation(
            {
                "stage": stage,
                "final": final,
                "episodes": self.state.episodes,
                "robot_minutes": self._robot_minutes,
                "updates": self.state.updates,
                "acting": to_dict(actor.acting),
                "result": result.to_dict(),
            },
            self.state.updates,
        )
        self._latest = result
        self._count_seconds()
        self.progress.advanced(stage, 0, {"score": result.mean_score})
        if final and stage == "imitation" and self.films:
            self._film("imitation_before", "after imitation", actor)
            self._count_seconds()
        return result

    def _collect(self, actor: BestOfNActor, episodes: int, first_episode: int) -> list[Episode]:
        seeds = [
            torch_seed(self.config.seed, "episode", number) % 2**31
            for number in range(first_episode, first_episode + episodes)
        ]
        return rollout(
            self.simulations.up_to(episodes),
            actor,
            seeds=seeds,
            threads=self.simulations.threads,
            policy_version=self.state.updates,
        )

    def _report(self, means: dict[str, float]) -> None:
        state = self.state
        self._count_seconds()
        row = {
            "stage": state.stage,
            "step": state.step,
            "updates": state.updates,
            "seconds": round(sum(state.seconds.values()), 3),
            **means,
        }
        self.log.metrics(row, state.updates)
        self.progress.advanced(state.stage, state.step - self._shown, means)
        self._shown = state.step
        self.log.gates(state.gates)
        self._write_status(False)

    def _count_seconds(self) -> None:
        """Add the time since the last call to the stage at work."""
        now, seconds = time.monotonic(), self.state.seconds
        seconds[self.state.stage] = seconds.get(self.state.stage, 0.0) + now - self._clock
        self._clock = now

    def _started(self, stage: StageName, updates: int) -> None:
        self._shown, self._latest = 0, None
        self.progress.stage_started(stage, updates)

    def _finished(self, stage: StageName) -> None:
        self.progress.stage_finished(
            stage, {} if self._latest is None else {"score": self._latest.mean_score}
        )

    def _write_status(self, complete: bool) -> None:
        state = self.state
        self.log.gates(state.gates)
        self.log.status(
            {
                "stage": state.stage,
                "complete": complete,
                "seconds": {name: round(value, 3) for name, value in state.seconds.items()},
                "robot_minutes": self._robot_minutes,
                "episodes": state.episodes,
                "updates": state.updates,
            }
        )

    @property
    def _robot_minutes(self) -> float:
        return self.state.robot_steps / self.task.control_hz / 60

    def _film(self, name: str, caption: str, actor: ChunkActor) -> None:
        """Record a film strip; a machine that cannot render is told once and trains on."""
        folder = self.folder / "films"
        try:
            env = self.simulations.rendering()
        except SerfnError as error:
            self.progress.note(f"no film: {error}")
            return
        try:
            seed = self.config.evaluation.seed + _FILM_SEED_OFFSET
            frames = record_frames(env, actor, seed=seed)
            folder.mkdir(exist_ok=True)
            save_film_strip(frames, folder / f"{name}.png")
            captions = folder / "films.json"
            known = json.loads(captions.read_text(encoding="utf-8")) if captions.is_file() else {}
            write_atomically(captions, json.dumps({**known, f"{name}.png": caption}))
        except SerfnError as error:
            self.progress.note(f"no film: {error}")
        finally:
            env.close()

    def _save_policy(self) -> None:
        """Write the best policy, or the last one of a run without evaluations, as a bundle."""
        actor, _ = load_actor(self.folder)
        metadata = {"temperature": actor.acting.temperature, "updates": self.state.updates}
        save_bundle(self.folder / "policy", actor.policy, self.task, metadata)


def _open_folder(folder: Path, config: TrainConfig, resume: bool) -> bool:
    """Make the run folder, or return True if it holds a checkpoint to resume from."""
    resumable = target(folder / "checkpoints", "last") is not None
    if resume and resumable:
        resolve(folder / "checkpoints", "last")
        return True
    started = folder / "config.json"
    if started.exists() and not resume:
        raise ConfigError(f"'{folder}' already holds a run; resume it, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(started, json.dumps(to_dict(config), indent=1))
    except OSError as error:
        raise ConfigError(f"cannot write to run folder '{folder}': {error}; choose another folder") from error
    for name in ("metrics.jsonl", "metrics.csv", "evaluations.jsonl"):
        (folder / name).unlink(missing_ok=True)
    return False


def _load_demonstrations(path: Path, task: TaskSpec) -> list[Episode]:
    demonstrations = load_npz(path, task.action)
    if demonstrations.obs_dim != task.observation.dim:
        raise DataError(
            f"'{path}' has {demonstrations.obs_dim} observation dimensions, environment '{task.id}' has "
            f"{task.observation.dim}; record demonstrations in this environment"
        )
    return list(demonstrations.episodes)


def _collect_or_load(config: TrainConfig, folder: Path, task: TaskSpec, progress: Progress) -> list[Episode]:
    path = folder / "demonstrations.npz"
    if not path.is_file():
        entry = task_of_env(config.env)
        if entry is None:
            raise DataError(
                f"environment '{config.env}' has no demonstrator of ours; give demos, an NPZ file"
            )
        collect_demonstrations(
            entry.name,
            config.demo_episodes,
            path,
            seed=config.seed,
            plant=config.demo_plant,
            workers=config.evaluation.threads,
            progress=progress,
        )
    return _load_demonstrations(path, task)


def _final_evaluations(path: Path) -> dict[str, EvaluationResult]:
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["stage"]: EvaluationResult.from_dict(row["result"]) for row in rows if row["final"]}
