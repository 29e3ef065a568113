"""The replay against a naive list of episodes, under random histories of additions and evictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serfn.core.errors import DataError
from serfn.core.spec import ActionSpec
from serfn.data.arrays import ArraySpace
from serfn.data.chunk_batch import ChunkBatch
from serfn.data.episode import Episode
from serfn.data.replay import ChunkReplay, mixed_batch

SPEC = ActionSpec(low=(0.0, -2.0), high=(1.0, 6.0))
OBS_DIM = 3
DECISION_EVERY = 3
History = list[tuple[int, bool, bool | None]]


def episode(number: int, length: int, terminated: bool = False, success: bool | None = None) -> Episode:
    """Return an episode whose every number tells where it comes from."""
    rng = np.random.default_rng(number)
    steps = np.arange(length + 1)
    return Episode(
        observations=np.stack([np.full(length + 1, number), steps, rng.normal(size=length + 1)], axis=1),
        actions=rng.uniform(SPEC.low, SPEC.high, size=(length, 2)),
        rewards=number + steps[1:] / 100,
        terminated=terminated,
        truncated=not terminated,
        success=success,
        chunk_starts=np.arange(length) % DECISION_EVERY == 0,
        interventions=rng.random(length) < 0.5 if number % 3 else None,
    )


def naive_windows(
    episodes: Sequence[Episode], chunk: int, reach: int | None = None
) -> list[dict[str, np.ndarray]]:
    reach = reach or chunk
    windows = []
    for item in episodes:
        actions = SPEC.normalize(item.actions)
        person = np.zeros(item.length, bool) if item.interventions is None else item.interventions
        for start in range(item.length):
            h = min(chunk, item.length - start)
            n = min(reach, item.length - start)
            steps = [min(start + k, start + h - 1) for k in range(chunk)]
            later = range(chunk, reach)
            windows.append(
                {
                    "obs": item.observations[start],
                    "actions": actions[steps],
                    "rewards": np.array([item.rewards[start + k] if k < h else 0 for k in range(chunk)]),
                    "valid": np.array([k < h for k in range(chunk)]),
                    "next_obs": item.observations[start + n],
                    "terminated": np.array(item.terminated and start + n == item.length),
                    "planned": np.array([k < h for k in range(chunk)]),
                    "interventions": np.array([k < h and person[start + k] for k in range(chunk)]),
                    "window_obs": item.observations[[step + 1 for step in steps]],
                    "later_rewards": np.array([item.rewards[start + k] if k < n else 0 for k in later]),
                    "later_valid": np.array([k < n for k in later], bool),
                }
            )
    return windows


def steps_of_one_plan(item: Episode, start: int, chunk: int) -> int:
    """Count steps until another chunk is decided, or, where a person acts, until they let go."""
    assert item.chunk_starts is not None
    person = np.zeros(item.length, bool) if item.interventions is None else item.interventions
    count = 1
    while count < chunk and start + count < item.length:
        if not person[start + count] if person[start] else item.chunk_starts[start + count]:
            break
        count += 1
    return count


def assert_same(batch: ChunkBatch, windows: Sequence[dict[str, np.ndarray]]) -> None:
    for name in windows[0]:
        if name.startswith("later_") and getattr(batch, name) is None:
            assert all(len(w[name]) == 0 for w in windows)
            continue
        np.testing.assert_array_equal(
            getattr(batch, name), np.stack([w[name] for w in windows]), err_msg=name
        )


histories = st.lists(
    st.tuples(st.integers(1, 9), st.booleans(), st.sampled_from([None, True, False])), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(
    history=histories,
    chunk=st.integers(1, 6),
    capacity=st.integers(9, 40),
    later=st.integers(0, 7),
    memory_bytes=st.sampled_from([None, 0, 1000]),
)
def test_every_window_equals_the_naive_one_after_any_history(
    history: History, chunk: int, capacity: int, later: int, memory_bytes: int | None
) -> None:
    reach = chunk + later
    replay = ChunkReplay(SPEC, OBS_DIM, chunk, capacity, return_steps=reach, space=ArraySpace(memory_bytes))
    kept: list[Episode] = []
    for number, (length, terminated, success) in enumerate(history):
        item = episode(number, length, terminated, success)
        replay.add(item)
        kept.append(item)
        while sum(e.length for e in kept) > capacity:
            kept.pop(0)
    windows = naive_windows(kept, chunk, reach)
    assert len(replay) == len(windows)
    assert replay.num_episodes == len(kept)
    everything = np.arange(len(replay))
    assert_same(replay.windows(everything, window_observations=True), windows)
    without = replay.windows(everything)
    assert without.window_obs is None
    np.testing.assert_array_equal(without.next_obs, np.stack([w["next_obs"] for w in windows]))

    imitable = {float(e.observations[0, 0]) for e in kept if e.success}
    assert replay.num_imitable_steps == sum(e.length for e in kept if e.success)
    if imitable:
        drawn = replay.sample(50, np.random.default_rng(0), starts="imitable")
        assert set(drawn.obs[:, 0].tolist()) <= imitable
    else:
        with pytest.raises(DataError, match="no steps that are imitable"):
            replay.sample(1, np.random.default_rng(0), starts="imitable")

    decisions = {(e.observations[0, 0], t) for e in kept for t in range(0, e.length, DECISION_EVERY)}
    assert replay.num_replans == len(decisions)
    drawn = replay.sample(50, np.random.default_rng(0), starts="replans")
    assert {(number, step) for number, step in drawn.obs[:, :2].tolist()} <= decisions
    by_number = {e.observations[0, 0]: e for e in kept}
    for (number, step), decided in zip(drawn.obs[:, :2].tolist(), drawn.planned, strict=True):
        assert decided.sum() == steps_of_one_plan(by_number[number], int(step), chunk)
        assert decided[: decided.sum()].all()


def test_starts_are_uniform_over_the_stored_steps() -> None:
    replay = ChunkReplay(SPEC, OBS_DIM, 3, 20)
    for number, length in enumerate((9, 1, 4, 8)):
        replay.add(episode(number, length))
    assert len(replay) == 13
    batch = replay.sample(13_000, np.random.default_rng(0))
    _, counts = np.unique(batch.obs[:, :2], axis=0, return_counts=True)
    assert len(counts) == 13
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_termination_in_the_last_window_only_and_truncation_never() -> None:
    replay = ChunkReplay(SPEC, OBS_DIM, 2, 10)
    replay.add(episode(0, 4, terminated=True))
    replay.add(episode(1, 4, terminated=False))
    batch = replay.windows(np.arange(8))
    assert batch.terminated.tolist() == [False, False, True, True, False, False, False, False]
    assert batch.valid[3].tolist() == [True, False]


def test_recorded_round_off_beyond_the_bounds_is_clipped_on_entry() -> None:
    item = episode(0, 3)
    item.actions[1] = (1.00005, -2.0003)
    replay = ChunkReplay(SPEC, OBS_DIM, 1, 5)
    replay.add(item)
    np.testing.assert_array_equal(replay.windows(np.array([1])).actions[0, 0], (1.0, -1.0))


def test_mixed_batches_keep_the_proportion_and_fall_back_to_demonstrations() -> None:
    demonstrated, online = (ChunkReplay(SPEC, OBS_DIM, 2, 20) for _ in range(2))
    demonstrated.add(episode(0, 5))
    rng = np.random.default_rng(0)
    assert set(mixed_batch(demonstrated, online, 10, 0.5, rng).obs[:, 0]) == {0.0}
    online.add(episode(1, 5))
    batch = mixed_batch(demonstrated, online, 10, 0.3, rng, window_observations=True)
    assert batch.obs[:, 0].tolist() == [0.0] * 7 + [1.0] * 3
    assert batch.window_obs is not None and batch.window_obs.shape == (10, 2, OBS_DIM)
    assert set(mixed_batch(demonstrated, online, 4, 1.0, rng).obs[:, 0]) == {1.0}
    batch = mixed_batch(demonstrated, online, 100, 0.5, rng, online_starts="replans")
    assert set(batch.obs[:50, 1]) == {0.0, 1.0, 2.0, 3.0, 4.0} and set(batch.obs[50:, 1]) == {0.0, 3.0}
    with pytest.raises(DataError, match=r"1\.5"):
        mixed_batch(demonstrated, online, 4, 1.5, rng)


def test_impossible_requests_are_refused() -> None:
    replay = ChunkReplay(SPEC, OBS_DIM, 2, 5)
    with pytest.raises(DataError, match="holds no steps"):
        replay.sample(1, np.random.default_rng(0))
    with pytest.raises(DataError, match="6 steps, more than the replay's capacity of 5"):
        replay.add(episode(0, 6))
    with pytest.raises(DataError, match="3 observation"):
        ChunkReplay(SPEC, 4, 2, 5).add(episode(0, 2))
    with pytest.raises(DataError, match="chunk_size"):
        ChunkReplay(SPEC, OBS_DIM, 0, 5)
    with pytest.raises(DataError, match="return_steps of the replay is 2"):
        ChunkReplay(SPEC, OBS_DIM, 3, 5, return_steps=2)
    replay.add(episode(0, 3))
    with pytest.raises(DataError, match="there are 3 steps"):
        replay.windows(np.array([3]))
