"""One rule for outcomes: the same steps mean the same in every data set, copy, rollout and adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import gymnasium
import h5py
import numpy as np
import pytest

from serfn.core.outcome import Success, SuccessRule
from serfn.core.protocols import ChunkActor
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.convert import ConvertOptions, convert
from serfn.data.datasets import load_demonstrations
from serfn.data.episode import Episode
from serfn.data.formats.lerobot_write import LeRobotOptions, write_lerobot
from serfn.data.formats.npz import save_npz
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import StoreWriter
from serfn.robot.adapters.gymnasium import GymnasiumRobot
from serfn.robot.clock import ManualClock
from serfn.rollout.environments import make_env
from serfn.rollout.film import rehearse
from serfn.rollout.rollouts import rollout

TASK = TaskSpec("line", ObservationSpec(2), ActionSpec((-1.0,), (1.0,)), 20.0, 20)
ENV = "outcomes/Line-v0"
Told = Literal["every", "once"]


def episode(*rewards: float) -> Episode:
    """Return steps that are flagged done at the last one, of which nobody says whether they succeed."""
    steps = len(rewards)
    return Episode(
        observations=np.arange(2.0 * (steps + 1)).reshape(-1, 2),
        actions=np.full((steps, 1), 0.5),
        rewards=np.array(rewards),
        terminated=True,
        truncated=False,
        chunk_starts=np.ones(steps, bool),
    )


SOLVED, UNSOLVED = episode(-1, -1, 0), episode(-1, -1, -1, -1)


def npz(path: Path) -> Path:
    save_npz(path / "x.npz", [SOLVED, UNSOLVED], TASK.action, control_hz=20.0)
    return path / "x.npz"


def lerobot(path: Path) -> Path:
    write_lerobot(path / "lerobot", [SOLVED, UNSOLVED], LeRobotOptions(fps=20), TASK.action)
    return path / "lerobot"


def store(path: Path) -> Path:
    EpisodeStore.create(path / "store", TASK)
    with StoreWriter(path / "store") as writer:
        for one in (SOLVED, UNSOLVED):
            writer.add(one)
    return path / "store"


def robomimic(path: Path) -> Path:
    with h5py.File(path / "x.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Line", "env_kwargs": {"control_freq": 20}})
        for index, one in enumerate((SOLVED, UNSOLVED)):
            group = data.create_group(f"demo_{index}")
            group["actions"], group["rewards"] = one.actions, one.rewards
            group["dones"] = (np.arange(one.length) == one.length - 1).astype(np.int64)
            group["obs/state"] = one.observations[:-1]
            group["next_obs/state"] = one.observations[1:]
    return path / "x.hdf5"


def minari(path: Path) -> Path:
    folder = path / "minari/data"
    folder.mkdir(parents=True)
    box = {"type": "Box", "dtype": "float32", "low": [-1.0], "high": [1.0], "shape": [1]}
    space = {"type": "Box", "dtype": "float32", "low": [-9.0] * 2, "high": [9.0] * 2, "shape": [2]}
    meta = {
        "total_episodes": 2,
        "data_format": "hdf5",
        "dataset_id": "line/reach-v0",
        "observation_space": json.dumps(space),
        "action_space": json.dumps(box),
    }
    (folder / "metadata.json").write_text(json.dumps(meta), encoding="utf-8")
    with h5py.File(folder / "main_data.hdf5", "w", track_order=True) as file:
        for index, one in enumerate((SOLVED, UNSOLVED)):
            group = file.create_group(f"episode_{index}")
            group["observations"], group["actions"] = one.observations, one.actions
            group["rewards"] = one.rewards
            group["terminations"] = np.arange(one.length) == one.length - 1
            group["truncations"] = np.zeros(one.length, bool)
    return path / "minari"


FORMATS: dict[str, Callable[[Path], Path]] = {
    "npz": npz,
    "lerobot": lerobot,
    "store": store,
    "robomimic": robomimic,
    "minari": minari,
}


@pytest.mark.parametrize("name", FORMATS)
def test_rewards_tell_success_in_every_format_and_it_is_said(name: str, tmp_path: Path) -> None:
    found = load_demonstrations(FORMATS[name](tmp_path))
    assert [one.success for one in found.episodes] == [True, False]
    assert [one.success_source for one in found.episodes] == ["rewards", "rewards"]
    assert any("inferred from rewards of -1 and 0: 1 of 2 episodes" in note for note in found.notes)


@pytest.mark.parametrize("target", ["npz", "lerobot", "store"])
@pytest.mark.parametrize("name", FORMATS)
def test_copies_keep_the_outcomes(name: str, target: Any, tmp_path: Path) -> None:
    source = FORMATS[name](tmp_path)
    before = load_demonstrations(source)
    done = convert(source, tmp_path / "copy", ConvertOptions(to=target, control_hz=20.0))
    assert any("inferred from rewards" in note for note in done.notes)
    after = load_demonstrations(tmp_path / "copy")
    for one, other in zip(before.episodes, after.episodes, strict=True):
        assert (one.success, one.terminated, one.truncated) == (
            other.success,
            other.terminated,
            other.truncated,
        )


def test_a_done_at_an_unsolved_end_of_robomimic_is_no_termination(tmp_path: Path) -> None:
    found = load_demonstrations(robomimic(tmp_path))
    assert [(one.terminated, one.truncated) for one in found.episodes] == [(True, False), (False, True)]
    assert any("the 1 without success are taken as cut off" in note for note in found.notes)


class Line(gymnasium.Env):
    """A point that moves through the goal and out of it again; tells success at every step, or when true."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(
        self,
        told: Told = "every",
        rule: SuccessRule = "ever",
        goal: float = 0.5,
        render_mode: str | None = None,
    ) -> None:
        self.told, self.goal, self.render_mode = told, goal, render_mode
        self.metadata = {**self.metadata, "success_rule": rule}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = 0.0
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.x += 0.1 * float(action[0])
        inside = abs(self.x - self.goal) < 0.1
        info = {"is_success": inside} if inside or self.told == "every" else {}
        return np.array([self.x, 0.0], np.float32), float(inside), False, False, info

    def render(self) -> np.ndarray:
        return np.zeros((16, 16, 3), np.uint8)


class Onward:
    """An actor that moves on at full speed."""

    chunk_size = n_action_steps = 4

    def act(self, observations: np.ndarray) -> np.ndarray:
        return np.ones((len(observations), 4, 1), np.float32)

    def reset(self, seed: int) -> None:
        """Nothing is random."""


@pytest.fixture
def line() -> Any:
    gymnasium.register(ENV, Line, max_episode_steps=20)  # pyright: ignore[reportArgumentType]
    yield
    gymnasium.registry.pop(ENV)


def by_rollout(env: Any) -> bool | None:
    actor: ChunkActor = Onward()
    return rollout([env], actor, seeds=[0])[0].success


def by_watcher(env: Any) -> bool | None:
    seen: list[bool | None] = []
    actor: ChunkActor = Onward()
    rollout([env], actor, seeds=[0, 1], on_episode=lambda episode: seen.append(episode.success))
    assert seen[0] is seen[1] or not any(seen)
    return seen[-1]


def by_film(env: Any) -> bool | None:
    actor: ChunkActor = Onward()
    return rehearse(env, actor, seed=0).success


def by_robot(env: Any) -> bool | None:
    robot = GymnasiumRobot(env, ManualClock(), "line")
    robot.connect()
    for _ in range(20):
        robot.send_action({"action.0": 1.0})
    return robot.judge(robot.get_observation()).success


PLACES: dict[str, Callable[[Any], bool | None]] = {
    "rollout": by_rollout,
    "watcher": by_watcher,
    "film": by_film,
    "robot": by_robot,
}


@pytest.mark.parametrize("told", ["every", "once"])
@pytest.mark.parametrize(("rule", "right"), [("ever", True), ("final", False)])
@pytest.mark.parametrize("place", PLACES)
def test_passing_through_the_goal_means_the_same_everywhere(
    line: None, place: str, rule: SuccessRule, right: bool, told: Told
) -> None:
    assert PLACES[place](make_env(ENV, told=told, rule=rule)) is right


@pytest.mark.parametrize("place", PLACES)
def test_an_environment_that_tells_every_step_tells_failures(line: None, place: str) -> None:
    assert PLACES[place](make_env(ENV, told="every", goal=9.0)) is False


@pytest.mark.parametrize("place", PLACES)
def test_silence_of_one_that_tells_only_successes_is_no_word(line: None, place: str) -> None:
    assert PLACES[place](make_env(ENV, told="once", goal=9.0)) is None


def test_a_key_that_is_there_only_when_true_is_known_from_then_on() -> None:
    followed = Success()
    followed.add(None)
    assert followed.value is None
    followed.add(True)
    followed.add(None)
    assert followed.value is True
