"""A small Gymnasium environment and runs of a few seconds in it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from serfn.critics.mlp import MLPCriticConfig
from serfn.data.episode import Episode, EpisodeBuilder
from serfn.data.formats.npz import save_npz
from serfn.flows import FlowConfig
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.policies.flow import FlowPolicyConfig
from serfn.training.config import EvaluationConfig, TrainConfig
from serfn.training.stages.context import LoopConfig
from serfn.training.stages.critic_warmup import CriticWarmupConfig
from serfn.training.stages.imitation import ImitationConfig
from serfn.training.stages.offline import OfflineConfig
from serfn.training.stages.online import OnlineConfig

ENV_ID = "toy/Reach-v0"


class Reach(gymnasium.Env):
    """A point in the plane that should be at the origin; it renders as a grey square."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-0.5, 0.5, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.position = (self.position + action).astype(np.float32)
        distance = float(np.linalg.norm(self.position))
        info = {"is_success": distance < 0.2, "episode_metrics": {"distance": distance, "score": -distance}}
        return self.position.copy(), 1 - distance, False, False, info

    def render(self) -> np.ndarray:
        return np.full((32, 32, 3), 128, np.uint8)


@pytest.fixture(autouse=True)
def toy_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    gymnasium.register(ENV_ID, Reach, max_episode_steps=8)  # pyright: ignore[reportArgumentType]
    # A shell's background jobs ignore Ctrl-C; the tests must not depend on who started them.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
    del gymnasium.registry[ENV_ID]


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    path = tmp_path / "demos.npz"
    save_npz(path, [_demonstration(seed) for seed in range(6)])
    return path


@pytest.fixture
def make_config(demos: Path) -> Callable[..., TrainConfig]:
    def build(**overrides: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "env": ENV_ID,
            "demos": demos,
            "chunk_size": 4,
            "policy": FlowPolicyConfig(
                flow=FlowConfig(couplings=2, width=16), encoder=MLPEncoderConfig(width=16, depth=1)
            ),
            "critic": MLPCriticConfig(width=16, depth=2, v_min=-1.0, v_max=1.0),
            "imitation": ImitationConfig(steps=8, batch_size=16),
            "critic_warmup": CriticWarmupConfig(steps=4, batch_size=8),
            "offline": OfflineConfig(steps=6, batch_size=8),
            "online": OnlineConfig(
                episodes=6, episodes_per_round=3, updates_per_round=6, batch_size=8, evaluate_every=1
            ),
            "loop": LoopConfig(report_every=2, checkpoint_every=4),
            "evaluation": EvaluationConfig(episodes=5, interim_episodes=3, simulations=3),
        }
        return TrainConfig(**{**values, **overrides})

    return build


def _demonstration(seed: int) -> Episode:
    env, rng = Reach(), np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    builder = EpisodeBuilder(2, 2, seed=seed)
    for _ in range(8):
        action = np.clip(-0.4 * observation + rng.normal(0, 0.05, 2), -0.5, 0.5).astype(np.float32)
        following, reward, *_ = env.step(action)
        builder.append(observation, action, reward, chunk_start=True)
        observation = following
    return builder.finish(observation, terminated=False, truncated=True)
