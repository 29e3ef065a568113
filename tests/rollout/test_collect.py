from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serfn.core.errors import ConfigError, DataError
from serfn.data.formats.npz import load_npz
from serfn.rollout import collect as module
from serfn.rollout.collect import collect
from serfn.tasks.registry import Task, tasks


class Homing:
    """Steps towards the origin, a little to one side that differs between episodes."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._bias = rng.normal(0, 0.05, 2)

    def act(self, observation: np.ndarray) -> np.ndarray:
        return -0.5 * observation + self._bias


@pytest.fixture(autouse=True)
def toy_task(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("toy/Reach-v0", "unused", 8, "unused", "a point")
    monkeypatch.setitem(tasks._found, "toy", task)
    monkeypatch.setattr(module, "_make_demonstrator", lambda task, rng: Homing(rng))


def test_demonstrations_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    alone = collect("toy", 5, tmp_path / "new" / "alone.npz", seed=3, workers=1)
    together = collect("toy", 5, tmp_path / "together.npz", seed=3, workers=3)
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first.actions, second.actions)
        np.testing.assert_array_equal(first.observations, second.observations)
    assert not np.array_equal(alone[0].actions, alone[1].actions)
    stored = load_npz(tmp_path / "new" / "alone.npz")
    assert len(stored.episodes) == 5 and stored.action_spec.high == (0.5, 0.5)
    assert stored.episodes[2].metrics["distance"] == pytest.approx(alone[2].metrics["distance"])


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tea"):
        collect("tea", 1, tmp_path / "out.npz")
    with pytest.raises(ConfigError, match="episodes"):
        collect("toy", 0, tmp_path / "out.npz")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="choose another path"):
        collect("toy", 1, tmp_path / "file" / "out.npz")
