from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from serfn.core.errors import CheckpointError, DataError
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.episode import Episode
from serfn.data.store.chunks import chunks_of, start_of
from serfn.data.store.store import EpisodeStore
from serfn.runs.inputs import fingerprint
from serfn.runs.online_data import OnlineData

TASK = TaskSpec("toy", ObservationSpec(2), ActionSpec((-1.0,), (1.0,)), 10.0, 9)


def episode(seed: int) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        observations=rng.normal(size=(7, 2)),
        actions=rng.uniform(-1, 1, (6, 1)),
        rewards=rng.normal(size=6),
        chunk_starts=np.arange(6) % 2 == 0,
        terminated=False,
        truncated=True,
        seed=seed,
    )


class Robot:
    """Runs episodes; it may be killed after so many chunks."""

    def __init__(self, experience: OnlineData) -> None:
        self.experience = experience
        self.ran: list[int] = []
        self.chunks_left = 1000

    def run(self, seeds: Sequence[int]) -> list[Episode]:
        self.ran += seeds
        recordings = [self.experience.record(start_of(episode(seed))) for seed in seeds]
        for seed, recording in zip(seeds, recordings, strict=True):
            for chunk in chunks_of(episode(seed)):
                if self.chunks_left == 0:
                    raise KeyboardInterrupt
                self.chunks_left -= 1
                if recording is not None:
                    recording.append(chunk)
            if recording is not None:
                recording.finish(terminated=False, truncated=True)
        return [episode(seed) for seed in seeds]


def online(path: Path) -> OnlineData:
    return OnlineData(path / "experience", TASK, lambda number: 100 + number)


def seeds_of(episodes: Sequence[Episode]) -> list[int | None]:
    return [item.seed for item in episodes]


def test_episodes_recorded_before_a_kill_are_used_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), online(tmp_path) as experience:
        robot = Robot(experience)
        robot.chunks_left = 3 * 3 + 1
        experience.collect(0, 6, robot.run)
    with online(tmp_path) as experience:
        robot = Robot(experience)
        collected = experience.collect(0, 6, robot.run)
        # They depend on each other and are run as a whole, but only 3 and later ones are recorded again.
        assert robot.ran == [100, 101, 102, 103, 104, 105]
        assert seeds_of(collected) == [100, 101, 102, 103, 104, 105]
        assert seeds_of(experience.load(1, 4)) == [100, 101, 102, 103]
        with pytest.raises(CheckpointError, match=r"after 7 online episodes.*lacks number 6"):
            experience.load(2, 7)
        with pytest.raises(DataError, match="being written by process"):
            online(tmp_path).__enter__()
    store = EpisodeStore(tmp_path / "experience")
    summaries = [store.summary(number) for number in store.numbers]
    assert [(s.seed, s.interrupted, s.discard) for s in summaries if s.interrupted] == [(103, True, True)]
    assert sorted(s.seed or 0 for s in summaries if not s.interrupted) == [100, 101, 102, 103, 104, 105]
    np.testing.assert_array_equal(collected[3].observations, episode(103).observations)


def test_a_fingerprint_tells_demonstrations_apart() -> None:
    first, second = [episode(0), episode(1)], [episode(0), episode(2)]
    assert fingerprint(first) == fingerprint(first) != fingerprint(second)
