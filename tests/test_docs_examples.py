"""The examples of docs/extending.md are one module, and every part of it works."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from serfn.core.config import from_dict, to_dict
from serfn.critics.factory import make_critic
from serfn.data.datasets import formats, load_demonstrations
from serfn.policies.bundle import load_bundle, save_bundle
from serfn.policies.factory import make_policy
from serfn.robot.clock import ManualClock
from serfn.robot.contract import Teleoperator
from serfn.robot.parts.registry import build_referee, build_teleoperator, find_workspace
from serfn.rollout.collect import collect
from serfn.rollout.environments import make_env, task_spec
from serfn.runs.presets import preset
from serfn.sessions.robots import make_robot
from serfn.training.acting import ActingConfig, sampling
from serfn.training.batch import TensorBatch
from serfn.training.config import TrainConfig

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
NAME = "yourlab"


@pytest.fixture(scope="module")
def yourlab() -> Iterator[ModuleType]:
    module = ModuleType(NAME)
    sys.modules[NAME] = module
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M):
        exec(compile(block, str(PAGE), "exec"), module.__dict__)
    yield module
    del sys.modules[NAME]


def test_the_policy_is_named_in_a_configuration_and_loads_from_a_bundle(
    yourlab: ModuleType, tmp_path: Path
) -> None:
    config = from_dict(TrainConfig, {"policy": {"type": "yourlab:UnitConfig", "data_noise": 0.1}})
    assert isinstance(config.policy, yourlab.UnitConfig)
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config
    task = task_spec(make_env("yourlab:PUSH"))
    policy: Any = make_policy(config.policy, 1, 1, 4, seed=0)
    save_bundle(tmp_path / "policy", policy, task, sampling(ActingConfig()))
    loaded: Any = load_bundle(tmp_path / "policy").policy
    assert isinstance(loaded, yourlab.UnitPolicy)
    obs, chunk = torch.zeros(3, 1), torch.zeros(3, 4, 1)
    torch.testing.assert_close(loaded.log_prob(obs, chunk), policy.log_prob(obs, chunk))


def test_encoder_critic_and_improvement_learn_together(yourlab: ModuleType) -> None:
    config = from_dict(
        TrainConfig,
        {
            "policy": {"encoder": {"type": "yourlab:HalfConfig"}},
            "critic": {"type": "yourlab:WideConfig", "v_min": -1.0, "v_max": 1.0},
            "offline": {"improvement": {"type": "yourlab:AscendConfig"}},
        },
    )
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config
    generator = torch.Generator().manual_seed(0)
    policy: Any = make_policy(config.policy, 1, 1, 4, seed=0)
    assert isinstance(policy.encoder, torch.nn.Linear)
    critic = make_critic(config.critic, 1, 1, 4, generator=generator)
    chunks = torch.zeros(3, 4, 1)
    valid = torch.ones(3, 4, dtype=torch.bool)
    obs, ends = torch.zeros(3, 1), torch.zeros(3, dtype=torch.bool)
    batch = TensorBatch(obs, chunks, chunks[..., 0], valid, obs, ends, valid)
    loss, metrics = config.offline.improvement.loss(
        policy, policy, critic, batch, batch, coefficient=torch.tensor(0.0), generator=generator
    )
    loss.backward()
    assert metrics["policy/q"] == -loss
    assert any(bool(part.grad.any()) for part in policy.parameters() if part.grad is not None)


def test_the_task_records_demonstrations_and_has_a_preset(yourlab: ModuleType, tmp_path: Path) -> None:
    check_env(yourlab.PushEnv(), skip_render_check=True)
    episodes = collect("yourlab:PUSH", 2, tmp_path / "demos.npz")
    assert [episode.length for episode in episodes] == [20, 20]
    assert preset("yourlab:PUSH", "demo").env == "yourlab:PUSH"


def test_the_robot_its_judge_workspace_and_teleoperator(yourlab: ModuleType) -> None:
    robot = make_robot("yourlab:Joint", {"sign": -1}, ManualClock())
    robot.connect()
    assert robot.send_action({"joint.pos": 2.0}) == {"joint.pos": 1.0}
    assert robot.get_observation() == {"joint.pos": 1.0}
    assert build_referee("yourlab:near", robot.info).judge({"joint.pos": 0.5}).reward == -0.5
    workspace = find_workspace("yourlab:in_front")
    assert workspace(np.array([-1.0]), {}).tolist() == [0.0]
    assert isinstance(build_teleoperator("yourlab:Still", robot.info), Teleoperator)


def test_the_format_is_recognised_and_read(
    yourlab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.txt"
    path.write_text("0.1 0.2 1\n0.3 0.4 2\n0.5 0 0\n", encoding="utf-8")
    ours = formats.names()
    monkeypatch.setattr(formats, "names", lambda: [*ours, "yourlab:TEXT"])
    episode = load_demonstrations(path).episodes[0]
    assert episode.length == 2
    assert episode.rewards.tolist() == [1.0, 2.0]
