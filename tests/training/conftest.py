"""A point in the plane that should be at the origin: small enough to run all four stages in seconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.core.protocols import ChunkActor
from serfn.core.results import EvaluationResult
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.critics.mlp import MLPCriticConfig
from serfn.data.episode import Episode
from serfn.flows import FlowConfig
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.policies.flow import FlowPolicyConfig
from serfn.training.acting import BestOfNActor
from serfn.training.config import EvaluationConfig, TrainConfig
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.session import TrainingSession
from serfn.training.stages.context import LoopConfig
from serfn.training.stages.critic_warmup import CriticWarmupConfig
from serfn.training.stages.imitation import ImitationConfig
from serfn.training.stages.offline import OfflineConfig
from serfn.training.stages.online import OnlineConfig

STEPS = 12
CHUNK = 4
TASK = TaskSpec(
    id="toy/Point-v0",
    observation=ObservationSpec(dim=2),
    action=ActionSpec(low=(-0.5, -0.5), high=(0.5, 0.5)),
    control_hz=10.0,
    max_episode_steps=STEPS,
)


def rollout(act: Any, seeds: Sequence[int]) -> list[Episode]:
    """Run one episode per seed, side by side; `act` maps observations `[n, 2]` to chunks `[n, chunk, 2]`."""
    position = np.stack([np.random.default_rng(seed).uniform(-1, 1, 2) for seed in seeds]).astype(np.float32)
    observations, actions, rewards = [position], [], []
    for step in range(STEPS):
        if step % CHUNK == 0:
            chunk = act(position)
        action = np.clip(chunk[:, step % CHUNK], -0.5, 0.5).astype(np.float32)
        position = (position + action).astype(np.float32)
        observations.append(position)
        actions.append(action)
        rewards.append(1 - np.linalg.norm(position, axis=1))
    starts = np.arange(STEPS) % CHUNK == 0
    return [
        Episode(
            observations=np.stack(observations)[:, index],
            actions=np.stack(actions)[:, index],
            rewards=np.stack(rewards)[:, index],
            terminated=False,
            truncated=True,
            seed=seed,
            chunk_starts=starts,
        )
        for index, seed in enumerate(seeds)
    ]


def demonstrations(count: int = 40) -> list[Episode]:
    """A slow and noisy controller: good enough to imitate, easy to better."""
    rng = np.random.default_rng(0)

    def act(position: np.ndarray) -> np.ndarray:
        chunk, now = [], position
        for _ in range(CHUNK):
            action = -0.25 * now + rng.normal(0, 0.1, now.shape)
            chunk.append(action)
            now = now + action
        return np.stack(chunk, 1)

    return rollout(act, range(10_000, 10_000 + count))


class Surroundings:
    """Evaluation, collection and records of a toy run."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, dict[str, float]]] = []
        self.scores: list[tuple[str, bool, float]] = []
        self.notes: list[str] = []
        self.stop_after: int | None = None
        self.session: TrainingSession | None = None

    def evaluate(self, actor: BestOfNActor, *, stage: str, final: bool) -> EvaluationResult:
        episodes = _act(actor, range(500, 532))
        returns = tuple(episode.return_ for episode in episodes)
        lengths = tuple(episode.length for episode in episodes)
        self.scores.append((stage, final, float(np.mean(returns))))
        return EvaluationResult(returns, (None,) * len(returns), lengths, returns, {}, TASK.control_hz)

    def collect(self, actor: BestOfNActor, episodes: int, first_episode: int) -> list[Episode]:
        return _act(actor, range(first_episode, first_episode + episodes))

    def report(self, means: dict[str, float]) -> None:
        assert self.session is not None
        self.rows.append((self.session.state.stage, self.session.state.step, means))

    def should_stop(self) -> bool:
        assert self.session is not None
        return self.stop_after is not None and self.session.state.updates >= self.stop_after

    def make_session(self, config: TrainConfig, folder: Path, **overrides: Any) -> TrainingSession:
        callbacks = {
            "evaluate": self.evaluate,
            "collect": self.collect,
            "report": self.report,
            "note": self.notes.append,
            "should_stop": self.should_stop,
        }
        self.session = TrainingSession(config, TASK, demonstrations(), folder, **{**callbacks, **overrides})
        return self.session


def make_config(**overrides: Any) -> TrainConfig:
    """A run of a few seconds; keyword arguments replace whole fields."""
    values: dict[str, Any] = {
        "chunk_size": CHUNK,
        "policy": FlowPolicyConfig(
            flow=FlowConfig(couplings=2, width=24), encoder=MLPEncoderConfig(width=24, depth=1)
        ),
        "critic": MLPCriticConfig(width=32, depth=2, v_min=-1.0, v_max=1.0),
        "imitation": ImitationConfig(steps=24, batch_size=32),
        "critic_warmup": CriticWarmupConfig(steps=16, batch_size=16),
        "offline": OfflineConfig(steps=24, batch_size=16),
        "online": OnlineConfig(
            episodes=12,
            episodes_per_round=4,
            updates_per_round=12,
            batch_size=16,
            evaluate_every=2,
            improvement=RegularizedConfig(target_kl=0.3),
        ),
        "loop": LoopConfig(report_every=4, checkpoint_every=12),
        "evaluation": EvaluationConfig(),
    }
    return TrainConfig(**{**values, **overrides})


def _act(actor: ChunkActor, seeds: Sequence[int]) -> list[Episode]:
    actor.reset(seeds[0])
    return rollout(actor.act, seeds)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power, so that none has to wait until data are on the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def surroundings() -> Surroundings:
    return Surroundings()


@pytest.fixture
def toy_config() -> Callable[..., TrainConfig]:
    return make_config


@pytest.fixture
def toy_task() -> TaskSpec:
    return TASK


@pytest.fixture
def toy_demonstrations() -> list[Episode]:
    return demonstrations()
