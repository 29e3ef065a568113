"""Rules for the whole test set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

try:
    from hypothesis import settings
except ImportError:
    # The GPU tests run on images that lack it.
    pass
else:
    # A slow machine is no failure.
    settings.register_profile("serfn", deadline=None)
    settings.load_profile("serfn")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import only what has GPU tests when nothing else is asked for.

    `make gpu-check` runs on bare CUDA images, where Gymnasium, MuJoCo and other folders' helpers are missing.
    """
    if config.option.markexpr != "gpu":
        return None
    files = collection_path.rglob("test_*.py") if collection_path.is_dir() else [collection_path]
    return None if any("mark.gpu" in file.read_text(encoding="utf-8") for file in files) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests where there is no CUDA device."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def robot_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with policy and critic for the fake robot of two joints at 50 Hz, barely trained."""
    # Imported here: this file also serves machines on which only the GPU tests can run.
    import numpy as np

    from serfn.core.config import to_dict
    from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
    from serfn.critics.mlp import MLPCriticConfig
    from serfn.data.episode import Episode
    from serfn.data.formats.npz import save_npz
    from serfn.flows import FlowConfig
    from serfn.policies.encoders.mlp import MLPEncoderConfig
    from serfn.policies.flow import FlowPolicyConfig
    from serfn.training.config import TrainConfig
    from serfn.training.session import TrainingSession
    from serfn.training.stages.context import LoopConfig
    from serfn.training.stages.imitation import ImitationConfig
    from serfn.training.stages.online import OnlineConfig

    folder = tmp_path_factory.mktemp("runs") / "fake"
    folder.mkdir()
    task = TaskSpec("fake", ObservationSpec(4), ActionSpec((-1.0, -1.0), (1.0, 1.0)), 50.0, 12)
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            observations=rng.normal(0, 0.3, (13, 4)),
            actions=rng.uniform(-0.5, 0.5, (12, 2)),
            rewards=rng.uniform(0, 1, 12),
            terminated=False,
            truncated=True,
            chunk_starts=np.arange(12) % 4 == 0,
        )
        for _ in range(4)
    ]
    demos = folder / "demonstrations.npz"
    save_npz(demos, episodes, task.action)
    flow = FlowConfig(couplings=2, width=16)
    config = TrainConfig(
        env="fake",
        demos=demos,
        chunk_size=4,
        policy=FlowPolicyConfig(flow=flow, encoder=MLPEncoderConfig(width=16, depth=1)),
        critic=MLPCriticConfig(width=16, depth=2, v_min=-1.0, v_max=1.0),
        imitation=ImitationConfig(steps=8, batch_size=16),
        online=OnlineConfig(batch_size=8),
        loop=LoopConfig(report_every=2, checkpoint_every=4),
    )
    TrainingSession(config, task, episodes, folder / "checkpoints").run(["imitation"])
    (folder / "config.json").write_text(json.dumps(to_dict(config)), encoding="utf-8")
    return folder
