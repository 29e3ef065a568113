"""Kill a training run, again and again, and see that it ends as if nothing had happened.

A small run of all four stages is killed by SIGKILL at random moments and resumed until it is through; then
its metrics, evaluations, weights and episodes are compared with those of a run that nobody disturbed.

    python benchmarks/crash_training.py --kills 100
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from forking import start_child

from serfn.critics.mlp import MLPCriticConfig
from serfn.data.episode import Episode, EpisodeBuilder
from serfn.data.formats.npz import save_npz
from serfn.data.store.check import check_store
from serfn.data.store.store import EpisodeStore
from serfn.flows import FlowConfig
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.policies.flow import FlowPolicyConfig
from serfn.runs.train import train
from serfn.training.checkpoint import read_tree, resolve
from serfn.training.config import EvaluationConfig, TrainConfig
from serfn.training.stages.context import LoopConfig
from serfn.training.stages.critic_warmup import CriticWarmupConfig
from serfn.training.stages.imitation import ImitationConfig
from serfn.training.stages.offline import OfflineConfig
from serfn.training.stages.online import OnlineConfig

ENV_ID = "toy/CrashReach-v0"


class Reach(gymnasium.Env):
    """A point in the plane that should be at the origin."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-0.5, 0.5, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Put the point somewhere."""
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the point."""
        self.position = (self.position + action).astype(np.float32)
        distance = float(np.linalg.norm(self.position))
        return self.position.copy(), 1 - distance, False, False, {"is_success": distance < 0.2}


def demonstration(seed: int) -> Episode:
    env, rng = Reach(), np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    builder = EpisodeBuilder(2, 2, seed=seed)
    for _ in range(8):
        action = np.clip(-0.4 * observation + rng.normal(0, 0.05, 2), -0.5, 0.5).astype(np.float32)
        following, reward, *_ = env.step(action)
        builder.append(observation, action, reward, chunk_start=True)
        observation = following
    return builder.finish(observation, terminated=False, truncated=True)


def make_config(demos: Path) -> TrainConfig:
    return TrainConfig(
        env=ENV_ID,
        demos=demos,
        chunk_size=4,
        policy=FlowPolicyConfig(
            flow=FlowConfig(couplings=2, width=16), encoder=MLPEncoderConfig(width=16, depth=1)
        ),
        critic=MLPCriticConfig(width=16, depth=2, v_min=-1.0, v_max=1.0),
        imitation=ImitationConfig(steps=40, batch_size=16),
        critic_warmup=CriticWarmupConfig(steps=24, batch_size=8),
        offline=OfflineConfig(steps=24, batch_size=8),
        online=OnlineConfig(
            episodes=24, episodes_per_round=3, updates_per_round=8, batch_size=8, evaluate_every=2
        ),
        loop=LoopConfig(report_every=2, checkpoint_every=4),
        evaluation=EvaluationConfig(episodes=4, interim_episodes=3, simulations=2),
    )


def run(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill `kills` times and compare; AssertionError says what differs. Returns kills by stage."""
    gymnasium.register(ENV_ID, Reach, max_episode_steps=8)  # pyright: ignore[reportArgumentType]
    save_npz(folder / "demos.npz", [demonstration(number) for number in range(6)])
    config = make_config(folder / "demos.npz")
    rng = np.random.default_rng(seed)
    started = time.monotonic()
    child = start_child(lambda: train(config, folder / "whole", resume=True, films=False))
    assert os.waitpid(child, 0)[1] == 0, "the undisturbed run failed"
    whole_s = time.monotonic() - started
    hit: dict[str, int] = {}
    attempt = done = 0
    while done < kills:
        path = folder / f"run_{attempt}"
        child = start_child(lambda path=path: train(config, path, resume=True, films=False))
        time.sleep(rng.uniform(0.1, 0.9) * whole_s)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if status == signal.SIGKILL:
            stage = _stage(path)
            hit[stage] = hit.get(stage, 0) + 1
            done += 1
        else:
            assert status == 0, "a resumed run failed"
            _compare(folder / "whole", path)
            attempt += 1
    path = folder / f"run_{attempt}"
    child = start_child(lambda: train(config, path, resume=True, films=False))
    assert os.waitpid(child, 0)[1] == 0, "the last resumed run failed"
    _compare(folder / "whole", path)
    return hit


def _stage(path: Path) -> str:
    status = path / "status.json"
    return json.loads(status.read_text())["stage"] if status.exists() else "start"


def _compare(whole: Path, killed: Path) -> None:
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        rows = [
            [{**json.loads(line), "seconds": 0} for line in (path / name).read_text().splitlines()]
            for path in (whole, killed)
        ]
        assert rows[0] == rows[1], f"{name} of {killed} differ"
    assert (whole / "gates.json").read_text() == (killed / "gates.json").read_text(), "gates differ"
    weights = [
        read_tree(resolve(path / "checkpoints", "last"))["agent"]["policy"]["module"]
        for path in (whole, killed)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]), "weights differ"
    assert not check_store(killed / "experience"), "the experience is damaged"
    recorded = [_episodes(path / "experience") for path in (whole, killed)]
    assert recorded[0].keys() == recorded[1].keys() and len(recorded[0]) == 24, "episodes differ"
    for seed, episode in recorded[0].items():
        assert np.array_equal(episode.actions, recorded[1][seed].actions), "actions differ"


def _episodes(path: Path) -> dict[int | None, Episode]:
    store = EpisodeStore(path)
    whole = [number for number in store.numbers if not store.summary(number).interrupted]
    episodes = {store.summary(number).seed: store.episode(number) for number in whole}
    assert len(episodes) == len(whole), "an episode was run twice"
    return episodes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        hit = run(Path(folder), options.kills, options.seed)
    stages = ", ".join(f"{count} in {stage}" for stage, count in hit.items())
    print(f"{options.kills} kills in {time.monotonic() - started:.0f} s ({stages}); every run ended the same")


if __name__ == "__main__":
    main()
