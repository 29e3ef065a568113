"""What the control loop records: exactly what was executed, step by step, handed to a sink.

The records hold plain arrays. `runtime` turns them into the episodes of the experience store; the robot layer
knows neither the store nor its files.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from serfn.core.errors import SerfnError

EndReason = Literal[
    "terminated",
    "time_limit",
    "success",
    "failure",
    "discard",
    "paused",
    "operator_stop",
    "fault",
    "interrupted",
]


@dataclass(frozen=True)
class EpisodeHeader:
    """What is known when an episode begins.

    Attributes:
        index: Number of the episode in this session, from 0.
        robot: Name of the robot.
        task: Instruction or name of the task; may be empty.
        seed: Seed of the scene's reset, if there was one.
        policy_version: Number of the policy that acts at the start.
    """

    index: int
    robot: str
    task: str = ""
    seed: int | None = None
    policy_version: int = 0


@dataclass(frozen=True, eq=False)
class StepRecord:
    """One control step: what was seen, wanted and done.

    Attributes:
        step: Number of the step, from 0.
        time_s: Time of the observation since the start of the episode.
        observation: `[obs]` float32.
        images: Images `[height, width, channels]` uint8 by key.
        action: `[action]` float32, as executed: after the supervisor, as the robot says it was sent.
        proposed: `[action]` float32, what the policy asked for, also while a person acts; the executed action
            where the policy had nothing finite to propose.
        reward: Reward of the step.
        chunk_start: A new chunk, a person or a hold began here: the critic's chunks may start here.
        intervention: A person acted.
        safety: Bits of `serfn.robot.safety.Intervention`: what the supervisor changed, 0 if nothing.
        policy_version: Number of the policy that the executed chunk came from.
        stage: Last stage label of the operator, 0 before the first.
        flagged: The likelihood gate found the chunk of this step out of range.
        log_likelihood: Of that chunk under the reference policy; NaN without a gate.
    """

    step: int
    time_s: float
    observation: np.ndarray
    action: np.ndarray
    proposed: np.ndarray
    reward: float
    chunk_start: bool
    intervention: bool
    safety: int
    policy_version: int
    stage: int = 0
    flagged: bool = False
    log_likelihood: float = math.nan
    images: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class EpisodeEnding:
    """How an episode ended, with the observation after its last step.

    Attributes:
        reason: Why; `fault` and `operator_stop` come from the supervisor's latch.
        detail: One line for people.
        terminated: The task ended by itself; never set together with a cut from outside.
        truncated: The recording was cut: time limit, operator, fault.
        success: Whether the task was solved; None if nobody said.
        success_source: `referee` or `operator`; None if nobody said.
        time_s: Time of the terminal observation since the start of the episode.
        observation: `[obs]` float32.
        images: Terminal images by key.
        metrics: Numbers of the task about the episode.
        keep: False if a person discarded the episode.
    """

    reason: EndReason
    detail: str
    terminated: bool
    truncated: bool
    success: bool | None
    success_source: str | None
    time_s: float
    observation: np.ndarray
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    keep: bool = True


class EpisodeSink(Protocol):
    """Takes the records of one episode after the other: `begin`, then `step` for each, then `end`.

    The loop calls it from the control thread unless it is wrapped in `QueuedSink`; a sink that touches disk
    or network must be wrapped. An exception ends the episode as a fault.
    """

    def begin(self, header: EpisodeHeader) -> None:
        """An episode begins."""
        ...

    def step(self, record: StepRecord) -> None:
        """One step was executed; its arrays belong to the sink and will not change."""
        ...

    def end(self, ending: EpisodeEnding) -> None:
        """The episode is over; returning means that it is safe with the sink."""
        ...


_Work = EpisodeHeader | StepRecord | EpisodeEnding | threading.Event | None


class RecordingError(SerfnError):
    """Experience cannot be kept: the sink failed or cannot follow; ends the episode."""


class QueuedSink:
    """Lets another sink work in a thread of its own, so that disk and network never delay the control thread.

    `begin` and `step` return at once. `end` waits until the episode is safe. What the inner sink raises is
    raised by the next call.

    Args:
        sink: Where the records go.
        capacity: Records that may wait; when there are more, the sink is taken to be stuck.
        end_timeout_s: How long `end` waits.
    """

    def __init__(self, sink: EpisodeSink, capacity: int = 2000, end_timeout_s: float = 30.0) -> None:
        self._sink = sink
        self._end_timeout_s = end_timeout_s
        self._queue: queue.Queue[_Work] = queue.Queue(capacity)
        self._ended = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="serfn-recording", daemon=True)
        self._thread.start()

    def begin(self, header: EpisodeHeader) -> None:
        """See `EpisodeSink`; waits until the episode before is dealt with, and forgets its failure.

        Raises:
            RecordingError: The inner sink is stuck.
        """
        idle = threading.Event()
        self._queue.put(idle, timeout=self._end_timeout_s)
        if not idle.wait(self._end_timeout_s):
            raise RecordingError("the episode before is still being written; is the disk stuck or full?")
        self._error = None
        self._ended.clear()
        self._put(header)

    def step(self, record: StepRecord) -> None:
        """See `EpisodeSink`.

        Raises:
            RecordingError: The inner sink failed, or does not follow.
        """
        self._put(record)

    def end(self, ending: EpisodeEnding) -> None:
        """See `EpisodeSink`.

        Raises:
            RecordingError: The inner sink failed, or is not done in time.
        """
        self._put(ending)
        if not self._ended.wait(self._end_timeout_s):
            raise RecordingError(
                f"the episode is not safe after {self._end_timeout_s:g} s; is the disk stuck or full?"
            )
        self._raise_failure()

    def close(self) -> None:
        """Finish what waits and stop the thread; one that is stuck is left behind."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=self._end_timeout_s)
            self._thread.join(timeout=self._end_timeout_s)

    def _put(self, record: _Work) -> None:
        self._raise_failure()
        try:
            self._queue.put_nowait(record)
        except queue.Full as error:
            raise RecordingError(
                f"{self._queue.maxsize} records wait to be written; is the disk stuck or full?"
            ) from error

    def _raise_failure(self) -> None:
        if (error := self._error) is not None:
            raise RecordingError(f"the episode cannot be recorded: {error}") from error

    def _work(self) -> None:
        while (record := self._queue.get()) is not None:
            if isinstance(record, threading.Event):
                record.set()
                continue
            if self._error is not None:
                self._ended.set()
                continue
            try:
                if isinstance(record, EpisodeHeader):
                    self._sink.begin(record)
                elif isinstance(record, StepRecord):
                    self._sink.step(record)
                else:
                    self._sink.end(record)
            except Exception as error:
                self._error = error
            if isinstance(record, EpisodeEnding):
                self._ended.set()
