"""Every quantity that two sides know is compared at every place where it could differ, with the way out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from serfn.core.agreement import compare
from serfn.core.errors import CheckpointError, ConfigError, DataError
from serfn.core.rewards import RewardKind
from serfn.core.sides import Finding, Side
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.convert import ConvertOptions, convert
from serfn.data.datasets import load_demonstrations
from serfn.data.episode import Episode
from serfn.data.formats.npz import save_npz
from serfn.data.store.chunks import EpisodeStart
from serfn.data.store.store import EpisodeStore, open_or_create
from serfn.data.store.transfer import merge_stores
from serfn.data.store.writer import StoreWriter
from serfn.policies.base import ChunkPolicy
from serfn.policies.bundle import save_bundle
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.policies.flow import FlowPolicyConfig
from serfn.reports.run_report import write_report
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.clock import ManualClock
from serfn.runs.demonstrations import compare_with_task, read_demonstrations, write_findings
from serfn.runs.evaluate import evaluate
from serfn.sessions.fit import check_fit
from serfn.training.config import TrainConfig

ENV = "agreement/Line-v0"

TASK = TaskSpec(
    id=ENV,
    observation=ObservationSpec(2, ("place", "time"), ("m", "s")),
    action=ActionSpec((-1.0,), (1.0,), ("push",), ("m/s",)),
    control_hz=20.0,
    max_episode_steps=20,
)
"""What the environment says."""


class Line(gymnasium.Env):
    """A point on a line."""

    metadata = {"render_fps": 20, "render_modes": []}  # noqa: RUF012
    observation_names, observation_units = ("place", "time"), ("m", "s")
    action_names, action_units = ("push",), ("m/s",)
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), 0.0, False, False, {}


@pytest.fixture(autouse=True)
def line_environment() -> Iterator[None]:
    gymnasium.register(ENV, Line, max_episode_steps=20)  # pyright: ignore[reportArgumentType]
    yield
    gymnasium.registry.pop(ENV)


def swapped(task: TaskSpec) -> TaskSpec:
    return dataclasses.replace(task, observation=ObservationSpec(2, ("time", "place")))


def renamed(task: TaskSpec) -> TaskSpec:
    return dataclasses.replace(task, action=dataclasses.replace(task.action, names=("pull",)))


def in_degrees(task: TaskSpec) -> TaskSpec:
    return dataclasses.replace(task, action=dataclasses.replace(task.action, units=("deg/s",)))


def wider(task: TaskSpec) -> TaskSpec:
    return dataclasses.replace(task, action=dataclasses.replace(task.action, low=(-3.0,), high=(3.0,)))


def slower(task: TaskSpec) -> TaskSpec:
    return dataclasses.replace(task, control_hz=5.0)


def larger(task: TaskSpec) -> TaskSpec:
    return dataclasses.replace(task, observation=ObservationSpec(3))


CHANGES: dict[str, tuple[Callable[[TaskSpec], TaskSpec], str, str]] = {
    "rate": (slower, "5 ", "20"),
    "order": (swapped, "'time'", "'place'"),
    "units": (in_degrees, "deg/s", "m/s"),
    "bounds": (wider, "3", "1"),
    "size": (larger, "3", "2"),
}
"""Another task by what differs, and how both values stand in the message."""


def make_episode(task: TaskSpec, steps: int = 12, image: int | None = None) -> Episode:
    high = task.action.high[0]
    return Episode(
        observations=np.zeros((steps + 1, task.observation.dim)),
        actions=np.linspace(-high, high, steps)[:, None],
        rewards=np.eye(steps)[-1],
        terminated=True,
        truncated=False,
        success=True,
        chunk_starts=np.ones(steps, bool),
        images={} if image is None else {"top": np.zeros((steps + 1, image, image, 3), np.uint8)},
    )


def make_store(path: Path, task: TaskSpec, image: int | None = None, steps: int = 12) -> Path:
    EpisodeStore.create(path, task)
    with StoreWriter(path, flush="never") as writer:
        writer.add(make_episode(task, steps, image))
    return path


def at_train(task: TaskSpec, folder: Path) -> None:
    store = make_store(folder / "store", task)
    config = TrainConfig(env=ENV, demos=store)
    given = load_demonstrations(store)
    # Bounds and size are looked at where they are read; the store's own bounds matter to nobody.
    read_demonstrations(config, store, TASK)
    side = dataclasses.replace(given.side("the demonstrations"), action=task.action)
    findings = compare(side, Side.of_task("environment", TASK), "train")
    for finding in findings:
        if finding.refused:
            raise ConfigError(finding.text)


def at_evaluation(task: TaskSpec, folder: Path) -> None:
    policy = FlowPolicyConfig(encoder=MLPEncoderConfig(width=8)).build(
        task.observation.dim, task.action.dim, 4
    )
    assert isinstance(policy, ChunkPolicy)
    save_bundle(folder / "policy", policy, task)
    evaluate(folder / "policy", episodes=1, env=ENV)


def at_robot(task: TaskSpec, folder: Path) -> None:
    robot = FakeRobot(ManualClock(), joints=1)
    # The environment's words, on a robot.
    robot._info = dataclasses.replace(robot.info, action=TASK.action, observation=TASK.observation)
    check_fit(task, robot)


def at_merge(task: TaskSpec, folder: Path) -> None:
    first, second = make_store(folder / "a", TASK), make_store(folder / "b", task)
    merge_stores([first, second], folder / "c")


def at_store(task: TaskSpec, folder: Path) -> None:
    EpisodeStore.create(folder / "store", TASK)
    open_or_create(folder / "store", task)


PLACES: dict[str, Callable[[TaskSpec, Path], None]] = {
    "train": at_train,
    "evaluate": at_evaluation,
    "robot": at_robot,
    "merge": at_merge,
    "store": at_store,
}


@pytest.mark.parametrize("place", PLACES)
def test_what_agrees_passes_everywhere(place: str, tmp_path: Path) -> None:
    PLACES[place](TASK, tmp_path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_refused_with_both_values(change: str, place: str, tmp_path: Path) -> None:
    other, value, expected = CHANGES[change]
    with pytest.raises((ConfigError, DataError, CheckpointError)) as error:
        PLACES[place](other(TASK), tmp_path)
    message = str(error.value)
    assert value in message and expected in message
    # The way out comes last.
    assert re.search(r"[;,] [^;]*$", message) and "\n" not in message


@pytest.mark.parametrize("place", ["merge", "store"])
def test_other_names_are_not_mixed_in_one_store(place: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'pull'.*'push'"):
        PLACES[place](renamed(TASK), tmp_path)


@pytest.mark.parametrize("place", ["train", "evaluate", "robot", "resume"])
def test_other_names_are_said_where_they_may_be_right(place: Any) -> None:
    found = compare(Side.of_task("the policy", renamed(TASK)), Side.of_task("the robot", TASK), place)
    assert [(one.quantity, one.refused) for one in found] == [("action names", False)]


def test_names_that_only_count_are_no_names() -> None:
    counted = dataclasses.replace(TASK, observation=ObservationSpec(2, ("observation.0", "observation.1")))
    assert compare(Side.of_task("one", counted), Side.of_task("other", TASK), "robot") == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_is_compared_with_its_environment(change: str) -> None:
    other, value, expected = CHANGES[change]
    found = compare(
        Side.of_task("the checkpoint", other(TASK)), Side.of_task("its environment", TASK), "resume"
    )
    assert found[0].refused and value in found[0].text and expected in found[0].text


@pytest.mark.parametrize("how", ["add", "record"])
@pytest.mark.parametrize("again", [False, True])
def test_images_of_another_size_do_not_come_into_a_store(how: str, again: bool, tmp_path: Path) -> None:
    path = make_store(tmp_path / "store", TASK, image=None if again else 8)
    other = make_episode(TASK, image=16)

    def write(writer: StoreWriter) -> None:
        if how == "add":
            writer.add(other)
        else:
            start = {name: stack[0] for name, stack in other.images.items()}
            writer.record(EpisodeStart(observation=other.observations[0], images=start))

    with StoreWriter(path, flush="never") as writer:
        if again:
            writer.add(make_episode(TASK, image=8))
        with pytest.raises(DataError, match=r"'top' has \[16, .* in the episode and \[8, 8, 3\] in store"):
            write(writer)
        writer.add(make_episode(TASK))
    assert len(EpisodeStore(path)) == 2 + again


def test_stores_with_other_image_sizes_are_not_merged(tmp_path: Path) -> None:
    first, second = make_store(tmp_path / "a", TASK, image=8), make_store(tmp_path / "b", TASK, image=16)
    with pytest.raises(DataError, match=r"'top' has \[16, 16, 3\].*\[8, 8, 3\]"):
        merge_stores([first, second], tmp_path / "c")


def test_demonstrations_longer_than_the_time_limit_are_counted(tmp_path: Path) -> None:
    EpisodeStore.create(tmp_path / "store", dataclasses.replace(TASK, max_episode_steps=30))
    with StoreWriter(tmp_path / "store", flush="never") as writer:
        for steps in (12, 23, 30):
            writer.add(make_episode(TASK, steps))
    config = TrainConfig(env=ENV, demos=tmp_path / "store")
    given = load_demonstrations(tmp_path / "store", TASK.action)
    (finding,) = compare_with_task(config, given, Side.of_task("the environment", TASK))
    assert "2 of 3 episodes" in finding.text and "30 steps" in finding.text and "20 steps" in finding.text
    assert "--set env_options.max_episode_steps=30" in finding.text


@pytest.mark.parametrize("kind", ["targets", "rates"])
def test_demonstrations_are_resampled_on_request(kind: Any, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", slower(TASK))
    config = TrainConfig(env=ENV, demos=store, resample=kind)
    found = read_demonstrations(config, store, TASK)
    assert found.control_hz == 20 and found.episodes[0].length == 4 * 12
    assert "from 5 to 20 steps per second" in found.notes[-1]


def test_nothing_is_resampled_from_an_unknown_rate(tmp_path: Path) -> None:
    save_npz(tmp_path / "demos.npz", [make_episode(TASK)], TASK.action)
    config = TrainConfig(env=ENV, demos=tmp_path / "demos.npz", resample="targets")
    with pytest.raises(DataError, match="does not say how many steps"):
        read_demonstrations(config, tmp_path / "demos.npz", TASK)


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_a_converted_data_set_keeps_names_and_the_new_rate(name: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", slower(TASK))
    convert(
        store,
        tmp_path / name,
        ConvertOptions(to="npz" if "." in name else "store", resample_hz=20, actions="targets"),
    )
    found = load_demonstrations(tmp_path / name)
    assert found.control_hz == 20 and found.episodes[0].length == 48
    assert (found.observation_names, found.action_names) == (("place", "time"), ("push",))


def test_resampling_without_a_meaning_of_actions_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"targets .*rates"):
        ConvertOptions(resample_hz=20)


def test_a_rate_that_was_asked_for_is_said_and_not_refused() -> None:
    robot = FakeRobot(ManualClock(), joints=1)
    (finding,) = check_fit(
        slower(dataclasses.replace(TASK, observation=ObservationSpec(2))), robot, control_hz=20
    )[:1]
    assert "5" in finding.text and "20" in finding.text and not finding.refused


def test_an_order_that_was_guessed_is_asked_for() -> None:
    env = Side(name="the environment", observation=ObservationSpec(3))
    data = Side(
        name="the data",
        observation=ObservationSpec(3, ("arm.0", "arm.1", "door")),
        guessed_order=("arm", "door"),
    )
    (finding,) = compare(data, env, "train")
    assert finding.refused and """--set 'observations=["arm", "door"]'""" in finding.text
    named = dataclasses.replace(env, observation=ObservationSpec(3, ("door", "arm.0", "arm.1")))
    (finding,) = compare(data, named, "train")
    assert finding.refused and """--set 'observations=["door", "arm"]'""" in finding.text
    agreed = dataclasses.replace(env, observation=ObservationSpec(3, ("arm.0", "arm.1", "door")))
    assert compare(data, agreed, "train") == []


@pytest.mark.parametrize(
    ("given", "met", "agree"),
    [
        ([0] * 9 + [1], [-1.5] * 10, False),
        ([0] * 9 + [1], [0] * 9 + [1], True),
        ([0] * 9 + [1], [0] * 10, True),
        ([-1] * 9 + [0], [-2] * 10, True),
        ([1] * 10, [-1] * 10, False),
    ],
)
def test_rewards_of_another_kind_are_said(given: list[float], met: list[float], agree: bool) -> None:
    sides = [
        Side(name=name, rewards=RewardKind.of([np.array(values)]))
        for name, values in (("the demonstrations", given), ("the environment", met))
    ]
    found = compare(sides[0], sides[1], "train")
    assert [one.quantity for one in found] == ([] if agree else ["rewards"])
    assert not any(one.refused for one in found)


def test_chunks_and_decisions_must_fit_the_execution() -> None:
    policy = Side(name="the policy", chunk_size=8, n_action_steps=6, decision_s=0.12)
    robot = Side(name="the robot", control_hz=20, lead_steps=3)
    assert [one.quantity for one in compare(policy, robot, "robot")] == ["chunk"]
    (latency,) = compare(policy, dataclasses.replace(robot, lead_steps=0), "robot")
    assert "120 ms" in latency.text and "50 ms" in latency.text and "lead_steps=4" in latency.text


def test_actions_in_another_unit_are_seen_by_their_range() -> None:
    degrees = Side(name="the robot", action=ActionSpec((-90.0,), (90.0,)))
    (finding,) = compare(Side.of_task("the policy", TASK), degrees, "robot")
    assert finding.quantity == "action scale" and "90" in finding.text


def test_a_report_repeats_what_does_not_agree(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_findings(tmp_path, [Finding("time limit", "9 > 8")])
    write_findings(tmp_path, [Finding("time limit", "9 > 8"), Finding("rewards", "0 & 1")])
    page = write_report(tmp_path).read_text()
    assert page.count("9 &gt; 8") == 1 and "0 &amp; 1" in page
