"""The method from Python, in five lines.

::

    from serfn import Serfn

    learner = Serfn.from_demonstrations("demos.npz", env="gymnasium_robotics:AdroitHandDoor-v1")
    learner.train()
    print(learner.evaluate(episodes=50).mean_score)
    action_chunk = learner.act(observation)
    learner.save("policy")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serfn.core.config import changed
from serfn.core.errors import ConfigError, DataError
from serfn.core.progress import SILENT, Progress
from serfn.core.results import EvaluationResult
from serfn.policies.bundle import save_bundle
from serfn.runs.evaluate import evaluate, load_actor
from serfn.runs.presets import Budget, preset, preset_for_environment
from serfn.runs.recordings import plan_for_recordings
from serfn.runs.train import RunResult, train
from serfn.training.acting import BestOfNActor, sampling
from serfn.training.config import TrainConfig
from serfn.training.stages.state import StageName


class Serfn:
    """A learner with its run folder: train it, evaluate it, act with it, save it.

    Args:
        config: Configuration of the run.
        folder: Run folder.
    """

    def __init__(self, config: TrainConfig, folder: str | Path) -> None:
        self.config = config
        self.folder = Path(folder)
        self._actor: BestOfNActor | None = None
        self._prepared = False

    @classmethod
    def from_demonstrations(
        cls,
        demos: str | Path,
        *,
        env: str | None = None,
        budget: Budget = "demo",
        folder: str | Path = "runs/serfn",
        **options: Any,
    ) -> Serfn:
        """Return a learner for demonstrations, with a Gymnasium environment or without one.

        Args:
            demos: Demonstrations of any format, such as an NPZ file or the folder of serfn robot record.
            env: Gymnasium id; None learns from the recordings alone, and held-out ones judge.
            budget: How much work, see `serfn.runs.presets.preset_for_environment`.
            folder: Run folder.
            **options: Fields of `TrainConfig` that shall differ from the preset; a mapping changes single
                options of a nested one, such as `imitation={"steps": 500}`.

        Raises:
            DataError: The demonstrations cannot be read.
        """
        if env is None:
            rate = options.get("control_hz")
            settings = plan_for_recordings(Path(demos), budget, rate).config
        else:
            settings = preset_for_environment(env, budget, Path(demos))
        return cls(changed(settings, options), folder)

    @classmethod
    def from_task(cls, task: str, budget: Budget = "demo", *, folder: str | Path = "runs/serfn") -> Serfn:
        """Return a learner for one of our tasks; it collects the demonstrations itself."""
        return cls(preset(task, budget), folder)

    @classmethod
    def load(cls, folder: str | Path) -> Serfn:
        """Return the learner of an existing run; it can act, be evaluated, and be trained on.

        Raises:
            CheckpointError: The folder holds no checkpoint.
            ConfigError: The folder is a bundle: it has a policy, but no run.
        """
        actor, config = load_actor(folder)
        if config is None:
            raise ConfigError(
                f"'{folder}' is a policy bundle, not a run; read it with serfn.policies.load_bundle"
            )
        learner = cls(config, folder)
        learner._actor = actor
        return learner

    def train(self, *, stages: Sequence[StageName] | None = None, progress: Progress = SILENT) -> RunResult:
        """Run the stages of the method, or what remains of them if the run was interrupted."""
        result = train(self.config, self.folder, resume=True, stages=stages, progress=progress)
        self._actor = None
        return result

    def evaluate(self, episodes: int = 50, *, seed: int = 0, plant: str | None = None) -> EvaluationResult:
        """Run evaluation episodes of the best policy."""
        return evaluate(self.folder, episodes=episodes, seed=seed, plant=plant)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return chunks of actions in physical units.

        Args:
            observations: One observation `[obs]` or a batch `[batch, obs]`, raw.

        Returns:
            `[chunk, action]` or `[batch, chunk, action]`.

        Raises:
            DataError: An observation is not finite.
        """
        observations = np.asarray(observations, np.float32)
        if not np.isfinite(observations).all():
            place = tuple(int(index) for index in np.argwhere(~np.isfinite(observations))[0])
            raise DataError(
                f"observation entry {place[-1]} is {observations[place]}; a policy acts on finite numbers: "
                "leave the step out, or repeat the last observation"
            )
        if observations.ndim == 2:
            return self.actor.act(observations)
        if not self._prepared:
            # Whoever asks for one chunk will ask again; without a graph PyTorch decides.
            self.actor.prepare()
            self._prepared = True
        return self.actor.act(observations[None])[0]

    @property
    def actor(self) -> BestOfNActor:
        """The best policy, ready to act."""
        if self._actor is None:
            self._actor, _ = load_actor(self.folder)
            self._prepared = False
        return self._actor

    def save(self, path: str | Path) -> None:
        """Write the best policy as a bundle that needs no run folder."""
        actor = self.actor
        save_bundle(path, actor.policy, actor.task, sampling(actor.acting))
