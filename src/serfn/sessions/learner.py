"""The learner beside a robot: the online stage, fed by what actors recorded, with no environment of its own.

It runs in the process of the robot, in another process, or on another machine, and differs in one callback
only: how it waits for episodes. In all cases it publishes weights as snapshots and reads experience from the
stores. It starts from the checkpoint that the session's folder was set up with
and, after a kill, from its last one; never from random weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from serfn.core.config import load_config
from serfn.core.errors import ConfigError
from serfn.core.progress import SILENT, Progress
from serfn.data.episode import Episode
from serfn.reports.doctor import Rounds
from serfn.runs.demonstrations import RewardsMet
from serfn.runs.inputs import demonstrations_of_run
from serfn.runs.log import RunLog, StageLog
from serfn.sessions.experience import ExperienceFeed, StoredEpisode
from serfn.sessions.folder import RobotFolder
from serfn.sessions.snapshots import SnapshotStore
from serfn.training.acting import BestOfNActor
from serfn.training.build import make_replay
from serfn.training.config import TrainConfig
from serfn.training.session import TrainingSession
from serfn.training.stages.online import add_online_episodes
from serfn.training.stages.state import OnlineState, RunState

POLL_S = 0.2


class _InStores:
    """An `EpisodeLog` that keeps nothing: actors have committed every episode before the learner sees it."""

    def keep(self, index: int, episodes: Sequence[Episode]) -> None:
        """Do nothing."""

    def load(self, rounds: int, episodes: int) -> list[Episode]:
        """Return nothing; the learner fills the replay from the stores."""
        return []


class Learner:
    """The online stage of one robot session.

    Args:
        folder: Folder of the session, set up by `serfn.sessions.folder.create`.
        gather: Called with the number of episodes that are missing; returns when there may be more. The
            default waits for other processes; a robot in this process runs them.
        should_stop: Asked between updates and while waiting for episodes.
        progress: Watches.

    Raises:
        CheckpointError: The folder has no checkpoint to start from.
    """

    def __init__(
        self,
        folder: Path,
        *,
        gather: Callable[[int], None] = lambda missing: time.sleep(POLL_S),
        should_stop: Callable[[], bool] = lambda: False,
        progress: Progress = SILENT,
    ) -> None:
        self.folder = RobotFolder(folder)
        self.progress = progress
        self.snapshots = SnapshotStore(self.folder.policies)
        self._gather = gather
        self._should_stop = should_stop
        self._log = RunLog(self.folder.path)
        self._feed = ExperienceFeed(self.folder.experience)
        self._taken: list[tuple[str, int]] = []
        self._told_of_graphs = False
        self._doctor = Rounds(folder, progress.note)
        task = self.folder.task()
        if not self.folder.config.is_file():
            raise ConfigError(f"the session in '{folder}' only evaluates; set up another one that learns")
        config = load_config(TrainConfig, self.folder.config)
        assert config.demos is not None  # set by `robot_folder.session_config`
        self._stages = StageLog(self._log, lambda: self.state, task.control_hz, progress, "learner")
        demonstrations = demonstrations_of_run(config, config.demos, folder, task)[0].episodes
        self._rewards = RewardsMet(self.folder.path, demonstrations, config, "the session", progress.note)
        self.session = TrainingSession(
            config,
            task,
            demonstrations,
            self.folder.checkpoints,
            collect=self._collect,
            report=self._stages.report,
            started=self._started,
            note=progress.note,
            alarm=self._stages.alarm,
            should_stop=should_stop,
            episodes=_InStores(),
            extra_state=lambda: {
                "position": self._log.position(),
                "taken": [list(item) for item in self._taken],
            },
        )
        extra = self.session.resume()
        self._taken = [(str(name), int(number)) for name, number in extra.get("taken", [])]
        self._feed.skip(self._taken)
        self._feed.relabelled()
        self._rebuild_replay()
        self._log.truncate(extra["position"], self.state.updates)

    @property
    def state(self) -> RunState:
        """Where the learner stands."""
        return self.session.state

    def run(self) -> None:
        """Learn until the configured number of episodes, or until asked to stop.

        Raises:
            TrainingDivergedError: Updates stay non-finite.
        """
        self._stages.begin()
        complete = False
        try:
            self.session.run(["online"])
            complete = True
        except KeyboardInterrupt:
            if not self._should_stop():
                raise
        finally:
            self._stages.write_status(complete)
            self._log.close()

    def _collect(self, actor: BestOfNActor, episodes: int, first_episode: int) -> Sequence[Episode]:
        """Publish what shall act, and wait for episodes that actors have committed; at least `episodes`."""
        self.publish(actor)
        if self._feed.relabelled():
            self._rebuild_replay()
        found: list[StoredEpisode] = []
        while True:
            found += self._feed.new()
            if len(found) >= episodes:
                self._doctor.look()
                self._taken += [(self._feed.name(stored), stored.number) for stored in found]
                collected = [stored.episode for stored in found]
                self._rewards.look(collected)
                return collected
            if self._should_stop():
                # What was read but not learnt from is read again after a resume.
                raise KeyboardInterrupt
            self._stages.write_status(False)
            self._gather(episodes - len(found))

    def _rebuild_replay(self) -> None:
        """Fill the replay from the stores, whose labels may have been corrected since."""
        ctx = self.session.context
        if not self._taken or not isinstance(ctx.state.data, OnlineState):
            return
        ctx.online = make_replay(self.session.config, ctx.task, ctx.online.capacity_steps)
        add_online_episodes(ctx, self._feed.again(self._taken))

    def publish(self, actor: BestOfNActor) -> int:
        """Publish the weights of `actor` for the actors of the session, and return their version."""
        config = self.session.config
        note = actor.prepare()
        if note is not None and not self._told_of_graphs:
            self._told_of_graphs = True
            self.progress.note(note)
        version = self.snapshots.publish(actor, updates=self.state.updates, critic=config.critic)
        self.snapshots.prune(self.folder.versions_in_use())
        return version

    def _started(self, stage: str, updates: int) -> None:
        self._stages.started(stage, updates, done=self.state.step)
