"""Kill a process that records experience, again and again, and see that nothing was lost.

A child records episodes chunk by chunk and tells what it was promised to be safe through shared memory; it is
killed by SIGKILL at a random moment, also while it recovers from the kill before. A reader looks on. Then the
store is recovered and every chunk that was promised is compared with what was recorded, bit by bit.

    python benchmarks/crash_harness.py --kills 2000
"""

from __future__ import annotations

import argparse
import mmap
import os
import signal
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from forking import start_child

from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.episode import EPISODE_COLUMNS, Episode
from serfn.data.store.check import check_store
from serfn.data.store.chunks import chunks_of, start_of
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import Flush, StoreWriter

TASK = TaskSpec("crash", ObservationSpec(6), ActionSpec((-1.0,) * 3, (1.0,) * 3), 20.0, 1000)
LONGEST_LIFE_S = 0.04
_MOST_EPISODES = 1_000_000
_SLOT = struct.Struct("<ii")


class Promises:
    """What the killed process was told to be safe: steps per episode, and whether its end was too."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SLOT.size * _MOST_EPISODES)

    def begin(self, seed: int) -> None:
        """Say that this episode, and all before it, may have left something behind."""
        _SLOT.pack_into(self._memory, 0, seed, 0)

    @property
    def begun(self) -> int:
        """The last episode that was begun; they count from 1."""
        return _SLOT.unpack_from(self._memory, 0)[0]

    def keep(self, seed: int, steps: int, ended: bool) -> None:
        """Say that so many steps of an episode are safe."""
        _SLOT.pack_into(self._memory, seed * _SLOT.size, steps, ended)

    def of(self, seed: int) -> tuple[int, bool]:
        """Return what was promised about an episode."""
        steps, ended = _SLOT.unpack_from(self._memory, seed * _SLOT.size)
        return steps, bool(ended)


@dataclass
class Outcome:
    """What the kills hit."""

    kills: int = 0
    episodes: int = 0
    interrupted: int = 0
    steps: int = 0
    promised: int = 0


def episode(seed: int) -> Episode:
    """The episode that is recorded under this seed; it can be made again to compare."""
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, 120))
    return Episode(
        observations=rng.normal(size=(steps + 1, 6)),
        actions=rng.uniform(-1, 1, (steps, 3)),
        rewards=rng.normal(size=steps),
        chunk_starts=np.arange(steps) % 2 == 0,
        interventions=rng.random(steps) < 0.2,
        images={"camera": rng.integers(256, size=(steps + 1, 4, 4, 3), dtype=np.uint8)} if seed % 2 else {},
        terminated=bool(seed % 3),
        truncated=not seed % 3,
        seed=seed,
    )


def record_forever(folder: Path, first: int, promises: Promises, flush: Flush) -> None:
    """Record one episode after the other until somebody kills this process."""
    with StoreWriter(folder, flush=flush) as writer:
        for seed in range(first, _MOST_EPISODES):
            promises.begin(seed)
            item = episode(seed)
            if seed % 7 == 0:
                writer.add(item)
                promises.keep(seed, item.length, ended=True)
                continue
            recording = writer.record(start_of(item))
            for chunk in chunks_of(item):
                recording.append(chunk)
                promises.keep(seed, recording.steps, ended=False)
            recording.end(terminated=item.terminated, truncated=item.truncated)
            promises.keep(seed, item.length, ended=True)
            recording.commit()


def run(folder: Path, kills: int, seed: int, flush: Flush = "never") -> Outcome:
    """Kill `kills` times; AssertionError says what was lost."""
    rng = np.random.default_rng(seed)
    EpisodeStore.create(folder, TASK)
    promises, outcome = Promises(), Outcome()
    _warm_up(folder.with_name("warm"))
    seen = 0
    for _ in range(kills):
        first = promises.begun + 1
        child = start_child(lambda first=first: record_forever(folder, first, promises, flush))
        # Some die before they record anything, in the middle of the recovery from the kill before.
        patience_s = 20.0 if rng.random() < 0.8 else 0.0
        waiting_until = time.monotonic() + patience_s
        while promises.begun < first and time.monotonic() < waiting_until:
            time.sleep(0.001)
        _look_on(folder, time.monotonic() + rng.uniform(0, LONGEST_LIFE_S))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the recording process failed by itself"
        outcome.kills += 1
        if rng.random() < 0.7:
            seen = _verify(folder, promises, seen, outcome)
    _verify(folder, promises, seen, outcome)
    assert not [finding.text for finding in check_store(folder) if finding.damage]
    _nothing_promised_is_missing(folder, promises, outcome)
    return outcome


def _warm_up(folder: Path) -> None:
    """Do everything once, so that no child spends its short life on loading modules."""
    EpisodeStore.create(folder, TASK)
    with StoreWriter(folder) as writer:
        writer.add(episode(1))
    EpisodeStore(folder).episode(0)


def _look_on(folder: Path, until: float) -> None:
    """Read what another process is writing."""
    reader = EpisodeStore(folder)
    while (left := until - time.monotonic()) > 0:
        reader.refresh()
        if reader.numbers:
            reader.episode(reader.numbers[-1])
        time.sleep(min(left, 0.01))


def _verify(folder: Path, promises: Promises, seen: int, outcome: Outcome) -> int:
    """Recover the store and compare its new episodes; return how many there are in all."""
    with StoreWriter(folder, flush="never"):
        pass
    store = EpisodeStore(folder)
    assert store.numbers == tuple(range(len(store))), "episode numbers have gaps"
    for number in store.numbers[seen:]:
        _compare(store.episode(number), promises)
        outcome.episodes += 1
        outcome.interrupted += store.summary(number).interrupted
    return len(store)


def _compare(found: Episode, promises: Promises) -> None:
    seed = cast(int, found.seed)
    item, (steps, ended) = episode(seed), promises.of(seed)
    whole = not found.interrupted
    assert found.length >= steps, f"episode {seed} lost {steps - found.length} steps"
    assert whole or not ended, f"episode {seed} lost its end"
    assert not whole or (found.length, found.terminated) == (item.length, item.terminated)
    for name, (_, _, extra, _) in EPISODE_COLUMNS.items():
        column, expected = getattr(found, name), getattr(item, name)
        if expected is not None:
            assert np.array_equal(column, expected[: found.length + extra]), (
                f"{name} of episode {seed} differ"
            )
    assert found.images.keys() == item.images.keys()
    for name, stack in item.images.items():
        assert np.array_equal(found.images[name], stack[: found.length + 1]), f"images of {seed} differ"


def _nothing_promised_is_missing(folder: Path, promises: Promises, outcome: Outcome) -> None:
    store = EpisodeStore(folder)
    summaries = [store.summary(number) for number in store.numbers]
    lengths = {cast(int, summary.seed): summary.length for summary in summaries}
    assert len(lengths) == len(summaries), "an episode is there twice"
    outcome.steps = sum(lengths.values())
    for seed in range(1, promises.begun + 1):
        steps, _ = promises.of(seed)
        outcome.promised += steps
        assert lengths.get(seed, 0) >= steps, f"episode {seed} with {steps} promised steps is gone"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flush", choices=["chunk", "episode", "never"], default="never")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder) / "store", options.kills, options.seed, options.flush)
    print(
        f"{outcome.kills} kills in {time.monotonic() - started:.0f} s: {outcome.episodes} episodes read "
        f"back, {outcome.interrupted} of them interrupted; {outcome.promised} of {outcome.steps} steps were "
        "promised, and all of those are there"
    )


if __name__ == "__main__":
    main()
