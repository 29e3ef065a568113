"""The folder of a session on a robot, and how it is set up from a trained policy.

::

    config.json        the learner's configuration
    robot.json         the session's configuration
    task.json          dimensions, bounds and rate
    format.json        version of this layout
    experience/        one durable store per robot
    probes.safetensors held-out demonstrated chunks for the promotion gate
    policies/          numbered snapshots; 1 is the policy that the session began with
    checkpoints/       the learner's; the first one is the policy that the session began with
    robots/            one folder per robot:
      serving.json       which snapshot acts, which were promoted and which refused
      promotions.jsonl   what the gate said, one line per version
      interaction.json   minutes, episodes, resets and interventions used
      sent.json          how far its experience was sent to a learner elsewhere
    metrics.jsonl, status.json, alarms.jsonl, …   the learner's, as in a training run
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from serfn.core.config import load_config, to_dict
from serfn.core.errors import CheckpointError, ConfigError
from serfn.core.files import whole_file, write_atomically
from serfn.core.format_version import FILE, Format
from serfn.core.seeding import generator
from serfn.core.spec import TaskSpec
from serfn.data.chunk_batch import ChunkBatch
from serfn.data.episode import Episode
from serfn.data.replay import ChunkReplay
from serfn.runs.evaluate import checkpoint_folder, load_actor
from serfn.runs.inputs import demonstrations_of_run, write_inputs
from serfn.sessions.config import RobotRunConfig
from serfn.sessions.snapshots import SnapshotStore
from serfn.training.checkpoint import read_tree
from serfn.training.config import TrainConfig
from serfn.training.session import TrainingSession
from serfn.training.stages.online import OnlineConfig
from serfn.training.stages.state import RunState

SESSION = Format(
    name="serfn-robot-session",
    kind="session on a robot",
    version=2,
    oldest=2,
    remedy="its options have other names since: finish it with the serfn that wrote it, or begin a new one; "
    "the stores in its folder 'experience' are read as they are ('serfn data convert')",
    error=ConfigError,
)
_PROBES = 128
_NEVER = 1_000_000
"""Episodes after which the online stage would end by itself; a session ends by its budget."""


class RobotFolder:
    """Names of the files of one session.

    Args:
        path: Folder of the session.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.robot = self.path / "robot.json"
        self.experience = self.path / "experience"
        self.probes = self.path / "probes.safetensors"
        self.policies = self.path / "policies"
        self.checkpoints = self.path / "checkpoints"
        self._robots = self.path / "robots"
        self.task_file = self.path / "task.json"
        self.format_file = self.path / FILE

    def task(self) -> TaskSpec:
        """Return the task of the session.

        Raises:
            ConfigError: The folder holds no session.
        """
        if not self.task_file.is_file():
            raise ConfigError(f"'{self.path}' holds no session on a robot; start one with 'serfn robot run'")
        SESSION.check_folder(self.path)
        return load_config(TaskSpec, self.task_file)

    def robot_config(self) -> RobotRunConfig:
        """Return the configuration of the session.

        Raises:
            ConfigError: It is of a version that cannot be gone on with, or damaged.
        """
        SESSION.check_folder(self.path)
        return load_config(RobotRunConfig, self.robot)

    def extend(self, *, episodes: int | None = None, minutes: float | None = None) -> None:
        """Give the session another budget of episodes or minutes; None leaves it.

        Raises:
            ConfigError: A limit is not positive.
        """
        given = {"episodes": episodes, "minutes": minutes}
        changes = {name: value for name, value in given.items() if value is not None}
        if not changes:
            return
        config = self.robot_config()
        budget = dataclasses.replace(config.budget, **changes)
        write_atomically(
            self.robot, json.dumps(to_dict(dataclasses.replace(config, budget=budget)), indent=1)
        )

    def store(self, name: str) -> Path:
        """Return the folder of the experience of one robot.

        Raises:
            ConfigError: The name cannot be that of a folder.
        """
        _check_name(name)
        return self.experience / name

    def serving(self, name: str) -> Path:
        """Return the file of what acts on one robot, was promoted and refused."""
        return self._robot_file(name, "serving.json")

    def promotions(self, name: str) -> Path:
        """Return the log of what the gate of one robot said."""
        return self._robot_file(name, "promotions.jsonl")

    def cursor(self, name: str) -> Path:
        """Return the file of how far one robot's experience was sent to a learner elsewhere."""
        return self._robot_file(name, "sent.json")

    def interaction(self, name: str) -> Path:
        """Return the file of what one robot used of the budget."""
        return self._robot_file(name, "interaction.json")

    def read_probes(self) -> ChunkBatch:
        """Return the demonstrated chunks that the promotion gate compares policies on.

        Raises:
            CheckpointError: The file is missing or damaged.
        """
        try:
            arrays = load_file(self.probes)
            # Sessions that were set up before decisions were told apart lack them.
            return ChunkBatch(**{"planned": arrays["valid"], **arrays})
        except (OSError, SafetensorError, TypeError, KeyError) as error:
            raise CheckpointError(f"'{self.probes}' is damaged: {error}; set the session up anew") from error

    def versions_in_use(self) -> frozenset[int]:
        """Return the snapshots that must not be deleted: the first, and all that a robot may return to.

        Raises:
            CheckpointError: The history of a robot is damaged.
        """
        used = {1}
        for path in self._robots.glob("*/serving.json"):
            try:
                used.update(map(int, json.loads(path.read_text(encoding="utf-8"))["promoted"]))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"'{path}' is damaged: {error}; delete it") from error
        return frozenset(used)

    def write_task(self, task: TaskSpec) -> None:
        """Store the task of the session; from then on the folder holds one."""
        SESSION.write(self.path)
        write_atomically(self.task_file, json.dumps(task.to_dict(), indent=1))

    def _robot_file(self, name: str, file: str) -> Path:
        _check_name(name)
        folder = self._robots / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / file

    @property
    def exists(self) -> bool:
        """Whether a session was set up here."""
        return self.task_file.is_file()


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or not all(letter.isalnum() or letter in "-_." for letter in name):
        raise ConfigError(f"'{name}' is no name for a robot; use letters, digits, '-' and '_'")


def create(path: str | Path, policy: str | Path, config: RobotRunConfig) -> RobotFolder:
    """Set a session up: snapshot 1, probes and, unless it only evaluates, the learner's first checkpoint.

    Args:
        path: New folder.
        policy: Run folder, checkpoint or bundle to begin with; learning needs a run, whose critic and
            demonstrations it goes on with.
        config: Configuration.

    Raises:
        ConfigError: The folder holds a session already, or the policy cannot be fine-tuned.
        CheckpointError: There is no policy at `policy`.
    """
    folder = RobotFolder(path)
    if folder.exists:
        raise ConfigError(f"'{path}' already holds a session; resume it, or choose another folder")
    if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        raise ConfigError(f"'{path}' is not empty and holds no session; choose another folder")
    actor, trained = load_actor(
        policy,
        candidates=config.candidates,
        temperature=config.temperature,
        n_action_steps=config.n_action_steps,
    )
    learns = config.learning.place != "none"
    if trained is None and learns:
        raise ConfigError(
            f"'{policy}' is a policy without critic or demonstrations; give the folder of its training run, "
            "or evaluate without learning"
        )
    folder.path.mkdir(parents=True, exist_ok=True)
    settings = None if trained is None else session_config(trained, Path(policy), config)
    write_atomically(folder.robot, json.dumps(to_dict(config), indent=1))
    if settings is not None:
        write_atomically(folder.config, json.dumps(to_dict(settings), indent=1))
        if learns:
            _first_checkpoint(folder, settings, actor.task, Path(policy))
    actor.prepare()
    SnapshotStore(folder.policies).publish(
        actor,
        updates=0,
        critic=None if settings is None else settings.critic,
    )
    folder.write_task(actor.task)
    return folder


def session_config(trained: TrainConfig, policy: Path, config: RobotRunConfig) -> TrainConfig:
    """Return the learner's configuration: that of the training run, with the rhythm of the session."""
    learning = config.learning
    collecting = trained.online.collecting or trained.online.acting
    acting = collecting.changed(config.candidates, config.temperature, config.n_action_steps)
    online: OnlineConfig = dataclasses.replace(
        trained.online,
        collecting=None,
        episodes=_NEVER,
        robot_minutes=None,
        episodes_per_round=learning.episodes_per_round,
        updates_per_round=learning.episodes_per_round * learning.updates_per_episode,
        policy_delay_rounds=learning.policy_delay_rounds,
        critic_chooses="always",
        evaluate_every=0,
        acting=acting,
    )
    demos = trained.demos or policy / "demonstrations.npz"
    return dataclasses.replace(trained, online=online, demos=Path(demos).resolve())


def _first_checkpoint(folder: RobotFolder, config: TrainConfig, task: TaskSpec, policy: Path) -> None:
    """Write the checkpoint that the learner starts from: all weights of the training run, no experience."""
    source = checkpoint_folder(policy)
    assert source is not None  # a bundle was refused before
    assert config.demos is not None  # set by `session_config`
    found, place = demonstrations_of_run(config, config.demos, policy, task)
    demonstrations = found.episodes
    write_inputs(folder.path, place, demonstrations)
    session = TrainingSession(
        config,
        task,
        demonstrations,
        folder.checkpoints,
        extra_state=lambda: {"position": {}, "taken": []},
    )
    session.context.agent.load_state_dict(read_tree(source)["agent"])
    session.context.state = RunState(stage="online")
    session.context.hooks.save(False)
    probes = probe_windows(config, task, demonstrations, config.seed)
    arrays = {name: value for name, value in vars(probes).items() if value is not None}
    with whole_file(folder.probes) as temporary:
        temporary.write_bytes(save(arrays))


def probe_windows(config: TrainConfig, task: TaskSpec, episodes: Sequence[Episode], seed: int) -> ChunkBatch:
    """Draw windows of executed chunks for the promotion gate."""
    steps = sum(episode.length for episode in episodes)
    replay = ChunkReplay(task.action, task.observation.dim, config.chunk_size, steps)
    for episode in episodes:
        replay.add(episode)
    starts = generator(seed, "probes").permutation(len(replay))[:_PROBES]
    return replay.windows(np.sort(starts))
