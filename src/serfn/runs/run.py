"""A training run at work: the learner's session, its environments, and what it writes into the run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serfn.core.config import to_dict
from serfn.core.errors import CheckpointError, SerfnError
from serfn.core.progress import Progress
from serfn.core.protocols import ChunkActor
from serfn.core.results import EvaluationResult
from serfn.core.seeding import torch_seed
from serfn.core.spec import TaskSpec
from serfn.data.episode import Episode
from serfn.policies.bundle import save_bundle
from serfn.reports.doctor import Rounds
from serfn.rollout.aborts import AbortedEpisode, Aborts
from serfn.rollout.rollouts import evaluation_result, rollout
from serfn.rollout.simulations import Simulations
from serfn.runs.demonstrations import RewardsMet
from serfn.runs.evaluate import load_actor, prepare_for
from serfn.runs.films import add_films
from serfn.runs.inputs import fingerprint
from serfn.runs.interrupt import deferred_interrupt
from serfn.runs.log import RunLog, StageLog
from serfn.runs.online_data import EXPERIENCE, OnlineData
from serfn.runs.work_time import WorkTime
from serfn.training.acting import BestOfNActor, sampling
from serfn.training.checkpoint import target
from serfn.training.config import TrainConfig
from serfn.training.gate import GateDecision
from serfn.training.holdout import split
from serfn.training.session import TrainingSession
from serfn.training.stages.state import RunState, StageName

_INTERIM_SEED_OFFSET = 500_000
_FILM_SEED_OFFSET = 900_000


@dataclass(frozen=True)
class RunResult:
    """Outcome of a training run.

    Attributes:
        folder: Run folder.
        finals: Final evaluation of each evaluated stage, in order.
        gates: What was promoted, and why.
        best_checkpoint: Checkpoint folder of the best policy; None if nothing was evaluated.
    """

    folder: Path
    finals: dict[str, EvaluationResult]
    gates: tuple[GateDecision, ...]
    best_checkpoint: Path | None


class Run:
    """One training session in its environments, and the callbacks that keep it on disk.

    Args:
        config: Configuration.
        folder: Run folder; it exists.
        task: What is being learnt.
        demonstrations: Demonstrations with the rewards of the task.
        simulations: Environments of collection and evaluation; None where there are none, and held-out
            demonstrations judge the policies.
        films: Record film strips where the environment renders.
        progress: Watches.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        task: TaskSpec,
        demonstrations: Sequence[Episode],
        simulations: Simulations | None,
        *,
        films: bool,
        progress: Progress,
    ) -> None:
        self.config, self.folder, self.task = config, folder, task
        self._simulations, self.progress = simulations, progress
        self.films = films and simulations is not None
        self.log = RunLog(folder)
        self.experience = OnlineData(folder / EXPERIENCE, task, self._episode_seed)
        self._demonstrations = fingerprint(demonstrations)
        self.aborts = Aborts(self._aborted)
        self._online = False
        self.time = WorkTime()
        self.stages = StageLog(
            self.log,
            lambda: self.state,
            task.control_hz,
            progress,
            extra=lambda: {"time": self.time.summary()},
        )
        # Demonstrations that a run collects itself have the rewards of its task.
        given = config.demos is not None
        self._rewards = (
            RewardsMet(folder, demonstrations, config, "the environment", progress.note) if given else None
        )
        self._latest: EvaluationResult | None = None
        self._told_of_graphs = False
        self._doctor = Rounds(folder, progress.note)
        learnt, held_out = list(range(len(demonstrations))), list[int]()
        if simulations is None:
            learnt, held_out = split(len(demonstrations), config.seed)
        self.session = TrainingSession(
            config,
            task,
            [demonstrations[index] for index in learnt],
            folder / "checkpoints",
            evaluate=None if simulations is None else self._evaluate,
            collect=None if simulations is None else self._collect,
            held_out=[demonstrations[index] for index in held_out],
            report=self._report,
            started=self._started,
            finished=self._finished,
            note=progress.note,
            alarm=self.stages.alarm,
            should_stop=lambda: self._stop(),
            extra_state=lambda: {
                "position": self.log.position(),
                "demonstrations": self._demonstrations,
                "time": self.time.seconds,
                "held_out": held_out,
            },
            episodes=self.experience,
        )
        self._stop = lambda: False

    @property
    def simulations(self) -> Simulations:
        """Environments of collection and evaluation, which are called only where there are any."""
        assert self._simulations is not None
        return self._simulations

    @property
    def state(self) -> RunState:
        """Where the run stands."""
        return self.session.state

    def execute(self, stages: Sequence[StageName], resuming: bool) -> RunResult:
        """Run the stages, from the last checkpoint if `resuming`, and write films and the best policy."""
        with self.experience:
            for note in (*self.log.notes, *self.experience.notes):
                self.progress.note(note)
            return self._execute(stages, resuming)

    def _execute(self, stages: Sequence[StageName], resuming: bool) -> RunResult:
        spent: dict[str, float] = {}
        if resuming:
            self.experience.aborted = self.log.aborted_online()
            extra = self.session.resume()
            spent = extra.get("time", spent)
            if extra.get("demonstrations", self._demonstrations) != self._demonstrations:
                raise CheckpointError(
                    f"the demonstrations have changed since the checkpoint in '{self.folder}'; resume with "
                    "the ones of the run, or choose a new run folder"
                )
            self.log.truncate(extra["position"], self.state.updates)
            self.experience.aborted = self.log.aborted_online()
            self.stages.evaluation_minutes = sum(
                EvaluationResult.from_dict(row["result"]).minutes for row in _evaluation_rows(self.folder)
            )
            self.progress.note(f"resumed in stage {self.state.stage} at update {self.state.step}")
        complete = False
        self.stages.begin()
        self.time.begin(spent)
        try:
            with deferred_interrupt() as stop:
                self._stop = stop
                self.session.run(stages)
            complete = True
        finally:
            self.stages.write_status(complete)
            self.log.close()
        if self.films:
            self._film(f"{self.state.stage}_after", "after training", load_actor(self.folder)[0])
        self._save_policy()
        return RunResult(
            self.folder,
            _final_evaluations(self.folder),
            tuple(self.state.gates),
            target(self.session.store.root, "best"),
        )

    def _evaluate(self, actor: BestOfNActor, *, stage: StageName, final: bool) -> EvaluationResult:
        evaluation = self.config.evaluation
        count = evaluation.episodes if final else evaluation.interim_episodes
        first = evaluation.seed + (0 if final else _INTERIM_SEED_OFFSET)
        self.progress.note(f"{stage}: evaluating {count} episodes")
        with self.time.spent_on("evaluation/simulation"):
            recorded = rollout(
                self.simulations.up_to(count),
                self._prepared(actor, count, "evaluation/acting"),
                seeds=range(first, first + count),
                threads=self.simulations.threads,
                policy_version=self.state.updates,
                aborts=self.aborts,
            )
        if not recorded:
            raise self.aborts.error()
        if self._rewards is not None:
            self._rewards.look(recorded)
        result = evaluation_result(recorded, self.task.control_hz, asked=count)
        self.log.evaluation(
            {
                "stage": stage,
                "final": final,
                "episodes": self.state.episodes,
                "robot_minutes": self.stages.robot_minutes,
                "updates": self.state.updates,
                "acting": to_dict(actor.acting),
                "result": result.to_dict(),
            },
            self.state.updates,
        )
        self._latest = result
        self.stages.evaluation_minutes += result.minutes
        self.stages.count_seconds()
        self.progress.advanced(stage, 0, {"score": result.mean_score})
        if final and stage == "imitation" and self.films:
            with self.time.spent_on("films"):
                self._film("imitation_before", "after imitation", actor)
            self.stages.count_seconds()
        return result

    def _episode_seed(self, number: int) -> int:
        """Return the seed of online episode `number` of this run."""
        return torch_seed(self.config.seed, "episode", number) % 2**31

    def _collect(self, actor: BestOfNActor, episodes: int, first_episode: int) -> list[Episode]:
        envs = self.simulations.up_to(episodes)

        def run(seeds: Sequence[int]) -> list[Episode]:
            return rollout(
                envs,
                self._prepared(actor, episodes, "acting"),
                seeds=seeds,
                threads=self.simulations.threads,
                policy_version=self.state.updates,
                record=self.experience.record,
                aborts=self.aborts,
            )

        self._online = True
        try:
            with self.time.spent_on("simulation"):
                collected = self.experience.collect(first_episode, episodes, run)
        finally:
            self._online = False
        if self._rewards is not None:
            self._rewards.look(collected)
        self._doctor.look()
        return collected

    def _aborted(self, aborted: AbortedEpisode) -> None:
        """Write down and tell that the environment cut an episode short."""
        self.log.aborted({"stage": self.state.stage, "online": self._online, **asdict(aborted)})
        if self._online:
            self.experience.aborted.add(aborted.seed)
        self.progress.note(f"{self.state.stage}: seed {aborted.seed} aborted: {aborted.reason}")

    def _prepared(self, actor: BestOfNActor, episodes: int, part: str) -> ChunkActor:
        """Return the actor as fast as it gets for so many episodes, timed; say once what keeps it slow."""
        with self.time.spent_on(part):
            note = prepare_for(actor, episodes, self.simulations)
        if note is not None and not self._told_of_graphs:
            self._told_of_graphs = True
            self.progress.note(note)
        return self.time.acting(actor, part)

    def _report(self, means: dict[str, float]) -> None:
        with self.time.spent_on("records"):
            self.stages.report(means)

    def _started(self, stage: StageName, updates: int) -> None:
        self._latest = None
        self.stages.started(stage, updates, done=self.state.step)

    def _finished(self, stage: StageName) -> None:
        self.progress.stage_finished(
            stage, {} if self._latest is None else {"score": self._latest.mean_score}
        )

    def _film(self, name: str, caption: str, actor: ChunkActor) -> None:
        """Record film strips; where that is impossible the user is told, once, and the run goes on."""
        seed = self.config.evaluation.seed + _FILM_SEED_OFFSET
        try:
            add_films(self.folder / "films", name, caption, self.simulations, actor, seed=seed)
        except SerfnError as error:
            self.films = False
            self.progress.note(f"no film: {error}")

    def _save_policy(self) -> None:
        """Write the best policy, or the last one of a run without evaluations, as a bundle."""
        actor, _ = load_actor(self.folder)
        metadata = {**sampling(actor.acting), "updates": self.state.updates}
        save_bundle(self.folder / "policy", actor.policy, self.task, metadata)


def _final_evaluations(folder: Path) -> dict[str, EvaluationResult]:
    rows = _evaluation_rows(folder)
    return {row["stage"]: EvaluationResult.from_dict(row["result"]) for row in rows if row["final"]}


def _evaluation_rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "evaluations.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]
