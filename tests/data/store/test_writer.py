from __future__ import annotations

import errno
import multiprocessing
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serfn.core.errors import DataError
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.episode import Episode
from serfn.data.store.chunks import EpisodeStart, ExecutedChunk, chunks_of, start_of
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import Recording, StoreWriter

names = st.text(max_size=8).filter(bool)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    steps, obs, action = (draw(st.integers(1, high)) for high in (9, 4, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    cameras = draw(
        st.dictionaries(names, st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)), max_size=2)
    )
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64, np.int32]))
    success = draw(st.sampled_from([None, True, False]))
    terminated = draw(st.booleans())
    return Episode(
        observations=(10 * rng.normal(size=(steps + 1, obs))).astype(dtype),
        actions=rng.normal(size=(steps, action)),
        rewards=np.array(draw(st.lists(finite, min_size=steps, max_size=steps))),
        chunk_starts=np.array(draw(st.lists(st.booleans(), min_size=steps, max_size=steps))),
        proposed_actions=rng.normal(size=(steps, action)) if draw(st.booleans()) else None,
        interventions=rng.random(steps) < 0.5 if draw(st.booleans()) else None,
        timestamps_s=np.sort(rng.random(steps + 1)) if draw(st.booleans()) else None,
        images={
            name: rng.integers(256, size=(steps + 1, *shape), dtype=np.uint8)
            for name, shape in cameras.items()
        },
        terminated=terminated,
        truncated=not terminated or draw(st.booleans()),
        success=success,
        success_source=None if success is None else draw(st.none() | st.text()),
        seed=draw(st.none() | st.integers(0, 2**63)),
        policy_version=draw(st.integers(0, 2**40)),
        task=draw(st.text()),
        metrics=draw(st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=2)),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(item=episodes())
def test_every_episode_comes_back_as_it_was(
    item: Episode, toys: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    task = TaskSpec(
        "t",
        ObservationSpec(item.observations.shape[1]),
        ActionSpec((-1.0,) * item.actions.shape[1], (1.0,) * item.actions.shape[1]),
        20.0,
        100,
    )
    folder = EpisodeStore.create(tmp_path_factory.mktemp("s") / "Würfel 骰子", task).path
    with StoreWriter(folder, flush="never") as writer:
        assert writer.add(item) == 0
        recording = writer.record(start_of(item))
        for chunk in chunks_of(item):
            recording.append(chunk)
        assert recording.finish(**toys.ending_of(item)) == 1
    store = EpisodeStore(folder)
    for number in (0, 1):
        toys.assert_equal(store.episode(number), item)
    assert store.summary(0).cameras == tuple(item.images)
    assert store.episode(0, images=False).images == {}


def test_a_running_episode_is_not_served_until_it_is_finished(folder: Path, toys: Any) -> None:
    item = toys.random(0)
    reader = EpisodeStore(folder)
    with StoreWriter(folder) as writer:
        recording = writer.record(start_of(item))
        for chunk in chunks_of(item):
            recording.append(chunk)
            reader.refresh()
            assert len(reader) == 0 == len(EpisodeStore(folder))
        assert recording.steps == item.length
        recording.finish(**toys.ending_of(item))
        assert len(reader) == 0
        reader.refresh()
        toys.assert_equal(reader.episode(0), item)


def test_what_is_left_unfinished_is_marked(folder: Path, toys: Any) -> None:
    item = toys.random(0)
    chunks = chunks_of(item)
    with StoreWriter(folder) as writer:
        with pytest.raises(KeyboardInterrupt), writer.record(start_of(item)) as recording:
            recording.append(chunks[0])
            raise KeyboardInterrupt
        writer.record(start_of(item)).append(chunks[0])
        writer.record(start_of(item))
        writer.record(start_of(item)).discard()
    store = EpisodeStore(folder)
    assert store.numbers == (0, 1)
    toys.assert_equal(store.episode(0), toys.cut(item, 3))
    assert store.summary(1).interrupted
    assert not list((folder / "journal").iterdir())


def test_the_next_writer_finishes_what_a_crash_left(folder: Path, toys: Any) -> None:
    first, second = toys.random(0), toys.random(1)
    writer = StoreWriter(folder)
    ended, cut = writer.record(start_of(first)), writer.record(start_of(second))
    for chunk in chunks_of(first):
        ended.append(chunk)
    ended.end(**toys.ending_of(first))
    for chunk in chunks_of(second)[:2]:
        cut.append(chunk)
    ended.abandon()
    cut.abandon()
    writer.close()
    with StoreWriter(folder) as writer:
        assert writer.recovery.committed == (0, 1)
        assert writer.recovery.notes == ("episode 1 was interrupted after 6 steps",)
        assert writer.add(first) == 2
    store = EpisodeStore(folder)
    toys.assert_equal(store.episode(0), first)
    toys.assert_equal(store.episode(1), toys.cut(second, 6))


def test_a_late_reward_replaces_the_last_one(folder: Path, toys: Any) -> None:
    item = toys.random(0)
    with StoreWriter(folder) as writer:
        recording = writer.record(start_of(item))
        for chunk in chunks_of(item):
            recording.append(chunk)
        recording.finish(**toys.ending_of(item), last_reward=9)
    np.testing.assert_array_equal(EpisodeStore(folder).episode(0).rewards, [*item.rewards[:-1], 9])


def test_a_second_writer_is_told_who_writes(folder: Path) -> None:
    with StoreWriter(folder), pytest.raises(DataError, match=f"being written by process {os.getpid()}"):
        StoreWriter(folder)
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()

    def hold() -> None:
        StoreWriter(folder)
        ready.set()
        done.wait(20)

    child = context.Process(target=hold)
    child.start()
    assert ready.wait(20)
    with pytest.raises(DataError, match=f"process {child.pid}"):
        StoreWriter(folder)
    child.kill()
    child.join()
    StoreWriter(folder).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": np.zeros((2, 4))}, "keeps 3 and 2"),
        ({"actions": np.zeros((2, 3))}, "keeps 3 and 2"),
        ({"rewards": np.zeros(3)}, "rewards of a chunk have 3 rows for 2 actions"),
        ({"actions": np.full((2, 2), np.nan)}, "actions at step 0 are not finite"),
        ({"actions": np.zeros((0, 2))}, "at least one executed step"),
        ({"images": {}}, "began with cameras"),
        ({"images": {"wrist": np.zeros((2, 3, 3, 3), np.uint8)}}, "began with cameras"),
        ({"images": {"wrist": np.zeros((2, 4, 5, 3))}}, "expected uint8"),
        ({"timestamps_s": None}, "timestamps True"),
        ({"timestamps_s": np.array([5.0, 4.0])}, "run backwards"),
        ({"timestamps_s": np.array([-5.0, 4.0])}, "before 0.2 s"),
        ({"proposed_actions": np.zeros((2, 3))}, "proposed_actions of a chunk"),
        ({"interventions": np.zeros(2, bool)}, "the ones before"),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused_and_the_episode_goes_on(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = {
        "observations": np.zeros((2, 3)),
        "actions": np.zeros((2, 2)),
        "rewards": np.zeros(2),
        "timestamps_s": np.array([0.1, 0.2]),
        "images": {"wrist": np.zeros((2, 4, 5, 3), np.uint8)},
    }
    image = np.zeros((4, 5, 3), np.uint8)
    with StoreWriter(folder) as writer:
        recording = writer.record(
            EpisodeStart(observation=np.zeros(3), timestamp_s=0.0, images={"wrist": image})
        )
        recording.append(ExecutedChunk(**good))
        with pytest.raises(DataError, match=message):
            recording.append(ExecutedChunk(**(good | change)))
        later: dict[str, Any] = good | {"timestamps_s": np.array([0.3, 0.4])}
        recording.append(ExecutedChunk(**later))
        recording.finish(terminated=True, truncated=False)
    assert EpisodeStore(folder).episode(0).length == 4


def test_misuse_is_named(folder: Path, toys: Any) -> None:
    item = toys.random(0)
    with StoreWriter(folder) as writer:
        recording = writer.record(start_of(item))
        with pytest.raises(DataError, match="no steps"):
            recording.finish(terminated=True, truncated=False)
        recording.append(chunks_of(item)[0])
        with pytest.raises(DataError, match="neither terminated nor truncated"):
            recording.finish(terminated=False, truncated=False)
        with pytest.raises(DataError, match="only an episode that was ended"):
            recording.commit()
        recording.finish(terminated=True, truncated=False)
        with pytest.raises(DataError, match="the episode is over"):
            recording.append(chunks_of(item)[1])
        with pytest.raises(DataError, match="keeps 3 and 2"):
            writer.add(toys.random(0, obs=4))
        with pytest.raises(DataError, match="5 channels"):
            writer.add(toys.random(0, images={"w": np.zeros((8, 2, 2, 5), np.uint8)}))
        with pytest.raises(DataError, match="keeps 3 and 2"):
            writer.record(EpisodeStart(observation=np.zeros(5)))
    with pytest.raises(DataError, match="is closed"):
        writer.add(item)
    with pytest.raises(DataError, match="flush is 'now'"):
        StoreWriter(folder, flush="now")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="no store"):
        StoreWriter(folder / "episodes")


def test_a_full_disk_costs_nothing_that_was_written(
    folder: Path, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, real, full = toys.random(0), os.writev, False

    def write(descriptor: int, buffers: list[memoryview]) -> int:
        if full:
            real(descriptor, [b"".join(buffers)[:11]])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, buffers)

    monkeypatch.setattr(os, "writev", write)
    with StoreWriter(folder) as writer:
        recording = writer.record(start_of(item))
        for chunk in chunks_of(item):
            full = True
            for _ in range(2):
                with pytest.raises(DataError, match=r"No space left.*try again"):
                    recording.append(chunk)
            with pytest.raises(DataError, match="No space left"):
                writer.record(start_of(item))
            full = False
            recording.append(chunk)
        recording.finish(**toys.ending_of(item))
    store = EpisodeStore(folder)
    assert store.numbers == (0,)
    toys.assert_equal(store.episode(0), item)


def test_a_failing_disk_ends_the_recording_but_not_its_data(
    folder: Path, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = toys.random(0)
    chunks = chunks_of(item)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with StoreWriter(folder) as writer:
        recording = writer.record(start_of(item))
        recording.append(chunks[0])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(DataError, match="check the disk"):
                recording.append(chunks[1])
        with pytest.raises(DataError, match="takes no more records"):
            recording.append(chunks[1])
        recording.interrupt()
    assert EpisodeStore(folder).episode(0).length >= 3


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the kernel refuse to write beyond `size` bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 10, 300, 1000, 2000])
def test_whatever_the_kernel_refuses_is_reported_and_can_be_done_later(
    folder: Path, toys: Any, size: int
) -> None:
    item = toys.random(0, images={})
    with StoreWriter(folder) as writer:
        with files_of_at_most(size), pytest.raises(DataError, match="File too large"):
            writer.add(item)
        assert len(EpisodeStore(folder)) == 0
        recording = _record_with_retries(writer, item, size)
        with files_of_at_most(size), pytest.raises(DataError, match="File too large"):
            recording.finish(**toys.ending_of(item))
        try:
            recording.end(**toys.ending_of(item))
        except DataError as error:
            assert "over" in str(error)
        assert recording.commit() == 0
    toys.assert_equal(EpisodeStore(folder).episode(0), item)
    assert not [path for path in (folder / "episodes").iterdir() if path.name.startswith(".")]


def _record_with_retries(writer: StoreWriter, item: Episode, size: int) -> Recording:
    recording = writer.record(start_of(item))
    for chunk in chunks_of(item):
        try:
            with files_of_at_most(size):
                recording.append(chunk)
        except DataError:
            recording.append(chunk)
    return recording
