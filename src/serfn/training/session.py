"""One training run in memory and on disk, for any surroundings.

`TrainingSession` knows no environment. The runtime gives it callbacks; a test gives it a toy; a robot its
own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serfn.core.agreement import compare, settle
from serfn.core.config import to_dict
from serfn.core.errors import CheckpointError
from serfn.core.seeding import generator
from serfn.core.sides import Side
from serfn.core.spec import TaskSpec
from serfn.data.episode import Episode
from serfn.training.build import (
    fit_statistics,
    make_agent,
    make_demonstration_replay,
    make_replay,
    make_stages,
)
from serfn.training.checkpoint import CheckpointStore
from serfn.training.config import TrainConfig
from serfn.training.episode_log import EpisodeLog, RoundFiles
from serfn.training.holdout import Holdout
from serfn.training.rewards import learning_rewards
from serfn.training.stages.base import run_stages
from serfn.training.stages.context import Collect, Evaluate, Hooks, StageContext
from serfn.training.stages.online import add_online_episodes
from serfn.training.stages.state import STAGES, OnlineState, RunState, StageName


class TrainingSession:
    """A run that can be started, interrupted and resumed with the same numbers.

    Args:
        config: Configuration; a checkpoint of another one is refused.
        task: What is being learnt.
        demonstrations: Demonstrations with the rewards of the task.
        folder: Folder of the checkpoints.
        evaluate: Evaluation callback; None skips evaluations and gates.
        collect: Collection callback; only the online stage needs it.
        report: Takes the mean metrics since the last report.
        started: Takes the name of a stage and its number of updates when it begins or is resumed.
        finished: Takes the name of a stage when it is over.
        note: Takes one sentence for the user.
        alarm: Takes one sentence about something suspicious.
        should_stop: Asked between updates; True ends the run after a checkpoint.
        extra_state: Values of the surroundings to keep in each checkpoint, such as positions in log files.
        held_out: Demonstrations that nothing is learnt from, to judge policies by where nobody evaluates.
        episodes: Keeps online episodes; None keeps them beside the checkpoints.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: TaskSpec,
        demonstrations: Sequence[Episode],
        folder: Path,
        *,
        evaluate: Evaluate | None = None,
        collect: Collect | None = None,
        report: Callable[[dict[str, float]], None] = lambda means: None,
        started: Callable[[StageName, int], None] = lambda name, updates: None,
        finished: Callable[[StageName], None] = lambda name: None,
        note: Callable[[str], None] = lambda text: None,
        alarm: Callable[[str], None] = lambda text: None,
        should_stop: Callable[[], bool] = lambda: False,
        extra_state: Callable[[], dict[str, Any]] = dict,
        held_out: Sequence[Episode] = (),
        episodes: EpisodeLog | None = None,
    ) -> None:
        self.config = config
        self.store = CheckpointStore(folder, to_dict(config), hints=("demos",))
        self._episodes = RoundFiles(folder / "episodes") if episodes is None else episodes
        self._extra_state = extra_state
        agent = make_agent(config, task)
        windows = make_demonstration_replay(config, task, demonstrations)
        fit_statistics(agent, windows, demonstrations)
        self.context = StageContext(
            agent=agent,
            demonstrations=windows,
            online=make_replay(config, task, config.replay_steps),
            rng=generator(config.seed, "replay"),
            task=task,
            loop=config.loop,
            state=RunState(),
            hooks=Hooks(
                report=report,
                save=self._save,
                started=started,
                finished=finished,
                note=note,
                alarm=alarm,
                should_stop=should_stop,
                keep_episodes=self._episodes.keep,
            ),
            evaluate=evaluate,
            collect=collect,
            enforce_gates=config.enforce_gates,
            to_learning=lambda episode: learning_rewards(episode, config.rewards, config.agent.discount),
        )
        if held_out:
            self.context.holdout = Holdout(
                agent,
                [self.context.to_learning(episode) for episode in held_out],
                lambda steps: make_replay(config, task, steps),
                config.agent.discount,
                config.seed,
            )

    @property
    def state(self) -> RunState:
        """Where the run stands."""
        return self.context.state

    def run(self, stages: Sequence[StageName] = STAGES) -> None:
        """Run the stages of these names, from where the run stands; see `run_stages` for what it raises."""
        run_stages(make_stages(self.config, stages), self.context)

    def resume(self) -> dict[str, Any]:
        """Continue from the last checkpoint; return the `extra_state` stored with it.

        Raises:
            CheckpointError: There is none, it is damaged, it belongs to another configuration or task, or
                online episodes are missing.
        """
        ctx = self.context
        tree = self.store.load("last", device=ctx.agent.device)
        stored = TaskSpec.from_dict(tree["task"])
        if stored.id != ctx.task.id:
            raise CheckpointError(
                f"the checkpoint in '{self.store.root}' is for another task ('{stored.id}', not "
                f"'{ctx.task.id}'); resume with the environment of the run"
            )
        checkpoint = Side.of_task(f"the checkpoint in '{self.store.root}'", stored)
        settle(compare(checkpoint, Side.of_task("its environment", ctx.task), "resume"), CheckpointError)
        ctx.agent.load_state_dict(tree["agent"])
        ctx.rng.bit_generator.state = tree["rng"]
        ctx.best_policy = tree["best_policy"]
        ctx.safe_state = copy.deepcopy(ctx.agent.learning_state())
        ctx.state = RunState.from_state_dict(tree["state"])
        if isinstance(ctx.state.data, OnlineState):
            add_online_episodes(ctx, self._episodes.load(ctx.state.data.rounds, ctx.state.episodes))
        return tree["extra"]

    def _save(self, best: bool) -> None:
        ctx = self.context
        tree = {
            "agent": ctx.agent.state_dict(),
            "rng": ctx.rng.bit_generator.state,
            "best_policy": ctx.best_policy,
            "state": ctx.state.state_dict(),
            "task": ctx.task.to_dict(),
            "extra": self._extra_state(),
        }
        self.store.save(ctx.state.updates, tree, best=best)
