from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from serfn.robot.recording import EpisodeEnding, EpisodeHeader, QueuedSink, RecordingError, StepRecord

ENDING = EpisodeEnding("time_limit", "", False, True, None, None, 1.0, np.zeros(1, np.float32))


def record(step: int) -> StepRecord:
    zero = np.zeros(1, np.float32)
    return StepRecord(step, 0.05 * step, zero, zero, zero, 0.0, True, False, 0, 0)


class Disk:
    """Keeps what it is given; full at `full_at` steps, stuck until `free`."""

    def __init__(self, full_at: int | None = None) -> None:
        self.full_at = full_at
        self.free = threading.Event()
        self.free.set()
        self.log: list[str] = []
        self.threads: set[int] = set()

    def begin(self, header: EpisodeHeader) -> None:
        self.log.append(f"begin {header.index}")

    def step(self, record: StepRecord) -> None:
        self.free.wait(20.0)
        self.threads.add(threading.get_ident())
        if record.step == self.full_at:
            raise OSError("no space left on device")
        self.log.append(f"step {record.step}")

    def end(self, ending: EpisodeEnding) -> None:
        self.log.append("end")


def test_records_arrive_in_order_in_another_thread_and_end_waits_for_them() -> None:
    disk = Disk()
    sink = QueuedSink(disk)
    for index in range(2):
        sink.begin(EpisodeHeader(index, "fake"))
        for step in range(3):
            sink.step(record(step))
        sink.end(ENDING)
        assert disk.log[-5:] == [f"begin {index}", "step 0", "step 1", "step 2", "end"]
    sink.close()
    assert threading.get_ident() not in disk.threads


def test_a_full_disk_is_reported_and_the_next_episode_begins_cleanly() -> None:
    disk = Disk(full_at=1)
    sink = QueuedSink(disk)
    sink.begin(EpisodeHeader(0, "fake"))
    sink.step(record(0))
    sink.step(record(1))
    with pytest.raises(RecordingError, match="no space left"):
        for step in range(2, 10_000):
            sink.step(record(step))
            # The recorder's thread needs its turn to meet the full disk.
            time.sleep(0.001)
    with pytest.raises(RecordingError, match="no space left"):
        sink.end(ENDING)
    disk.full_at = None
    sink.begin(EpisodeHeader(1, "fake"))
    sink.step(record(0))
    sink.end(ENDING)
    assert disk.log == ["begin 0", "step 0", "begin 1", "step 0", "end"]
    sink.close()


def test_a_stuck_disk_never_blocks_the_loop() -> None:
    disk = Disk()
    disk.free.clear()
    sink = QueuedSink(disk, capacity=5, end_timeout_s=0.01)
    sink.begin(EpisodeHeader(0, "fake"))
    with pytest.raises(RecordingError, match="5 records wait"):
        for step in range(100):
            sink.step(record(step))
    disk.free.set()


def test_an_end_that_is_not_safe_in_time_is_reported() -> None:
    disk = Disk()
    sink = QueuedSink(disk, end_timeout_s=0.01)
    sink.begin(EpisodeHeader(0, "fake"))
    disk.free.clear()
    sink.step(record(0))
    with pytest.raises(RecordingError, match="not safe"):
        sink.end(ENDING)
    disk.free.set()
