"""Small stores and random episodes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.episode import EPISODE_COLUMNS, Episode
from serfn.data.store.store import EpisodeStore

SCALARS = (
    "terminated",
    "truncated",
    "success",
    "success_source",
    "seed",
    "policy_version",
    "task",
    "metrics",
    "interrupted",
)


def random_episode(seed: int, *, steps: int = 7, obs: int = 3, action: int = 2, **changes: Any) -> Episode:
    """An episode in which everything that is optional is there."""
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "observations": rng.normal(size=(steps + 1, obs)),
        "actions": rng.uniform(-1, 1, (steps, action)),
        "proposed_actions": rng.uniform(-1, 1, (steps, action)),
        "rewards": rng.normal(size=steps),
        "chunk_starts": np.arange(steps) % 3 == 0,
        "interventions": rng.random(steps) < 0.5,
        "timestamps_s": np.cumsum(rng.random(steps + 1)),
        "images": {"wrist": rng.integers(256, size=(steps + 1, 4, 5, 3), dtype=np.uint8)},
        "terminated": True,
        "truncated": False,
        "success": True,
        "success_source": "environment",
        "seed": seed,
        "policy_version": 3,
        "task": "turn the cube",
        "metrics": {"turns": 1.5},
    }
    return Episode(**(values | changes))


def assert_equal(found: Episode, expected: Episode, *, scalars: bool = True) -> None:
    for name in EPISODE_COLUMNS:
        first, second = getattr(found, name), getattr(expected, name)
        assert (first is None) == (second is None), name
        if first is not None:
            np.testing.assert_array_equal(first, second, err_msg=name)
    assert found.images.keys() == expected.images.keys()
    for name, images in expected.images.items():
        np.testing.assert_array_equal(found.images[name], images)
    if scalars:
        for name in SCALARS:
            assert getattr(found, name) == getattr(expected, name), name


def cut(episode: Episode, steps: int) -> Episode:
    """The first steps of an episode, as recovery marks them."""
    arrays = {}
    for name, column in EPISODE_COLUMNS.items():
        rows = getattr(episode, name)
        arrays[name] = None if rows is None else rows[: steps + column.extra]
    return Episode(
        **arrays,
        images={name: stack[: steps + 1] for name, stack in episode.images.items()},
        terminated=False,
        truncated=True,
        interrupted=True,
        seed=episode.seed,
        policy_version=episode.policy_version,
        task=episode.task,
    )


def ending_of(episode: Episode) -> dict[str, Any]:
    names = ("terminated", "truncated", "success", "success_source", "metrics")
    return {name: getattr(episode, name) for name in names}


class Toys:
    """The functions above, for tests."""

    random = staticmethod(random_episode)
    assert_equal = staticmethod(assert_equal)
    cut = staticmethod(cut)
    ending_of = staticmethod(ending_of)


@pytest.fixture(scope="session")
def toys() -> type[Toys]:
    return Toys


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power, so that none has to wait until data are on the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def task() -> TaskSpec:
    return TaskSpec(
        id="toy/Point-v0",
        observation=ObservationSpec(dim=3),
        action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)),
        control_hz=20.0,
        max_episode_steps=100,
    )


@pytest.fixture
def folder(tmp_path: Path, task: TaskSpec) -> Path:
    """An empty store."""
    EpisodeStore.create(tmp_path / "store", task)
    return tmp_path / "store"


@pytest.fixture
def make_store(tmp_path: Path, task: TaskSpec) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return EpisodeStore.create(tmp_path / name, task).path

    return make
