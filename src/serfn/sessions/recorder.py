"""From the control loop's records to the durable store: every executed chunk is journalled as it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from serfn.core.errors import DataError
from serfn.core.spec import TaskSpec
from serfn.data.store.chunks import EpisodeStart, ExecutedChunk
from serfn.data.store.labels import LabelChange, append_labels
from serfn.data.store.store import open_or_create
from serfn.data.store.writer import Flush, Recording, StoreWriter
from serfn.robot.recording import EpisodeEnding, EpisodeHeader, StepRecord

_LONGEST_CHUNK = 64
"""Steps after which a chunk is journalled although no new one began, such as a long hold."""


@dataclass(frozen=True)
class Recorded:
    """What was recorded of the newest episode.

    Attributes:
        number: Its number in the store; None while it runs, and if there was nothing to keep.
        steps: Control steps.
        interventions: Times that a person took over.
        safety_steps: Steps that the supervisor changed.
        return_: Undiscounted sum of rewards.
    """

    number: int | None = None
    steps: int = 0
    interventions: int = 0
    safety_steps: int = 0
    return_: float = 0.0

    def after(self, record: StepRecord, before: StepRecord | None) -> Recorded:
        """Return the counts with one more step."""
        taken_over = record.intervention and not (before is not None and before.intervention)
        return replace(
            self,
            steps=self.steps + 1,
            interventions=self.interventions + taken_over,
            safety_steps=self.safety_steps + bool(record.safety),
            return_=self.return_ + record.reward,
        )


class StoreRecorder:
    """An `EpisodeSink` over a store; it waits for the disk, so the control loop must not call it directly.

    A discarded episode is committed too and labelled as discarded: learning skips it, and a person may change
    their mind.

    Args:
        path: Folder of the store; made if it is not there.
        task: Dimensions, bounds and rate.
        flush: When data are forced to the disk.

    Raises:
        DataError: Another process writes the store, it belongs to another task, or cannot be written.
    """

    def __init__(self, path: Path, task: TaskSpec, *, flush: Flush = "chunk") -> None:
        store = open_or_create(path, task)
        self.path = store.path
        self._writer = StoreWriter(path, flush=flush)
        self._start(None)

    @property
    def recovered(self) -> int:
        """Number of episodes that an earlier process left unfinished and that were committed now."""
        return len(self._writer.recovery.committed)

    def begin(self, header: EpisodeHeader) -> None:
        """An episode begins; what a failure left of the one before is committed as interrupted."""
        if self._recording is not None:
            self._recording.interrupt()
        self._start(header)

    def step(self, record: StepRecord) -> None:
        """Take one step; the chunk before it is journalled when a new one begins.

        Raises:
            DataError: The disk is full or broken; what was journalled before stays.
        """
        if self._recording is None:
            self._recording = self._record(record)
        elif record.chunk_start or len(self._pending) >= _LONGEST_CHUNK:
            self._append(self._recording, record.observation, record.time_s, record.images)
        self._pending.append(record)
        self.last, self._before = self.last.after(record, self._before), record
        self._stage = max(self._stage, record.stage)

    def end(self, ending: EpisodeEnding) -> None:
        """Commit the episode.

        Raises:
            DataError: The disk is full or broken; the journal stays, and the next writer commits it.
        """
        recording = self._recording
        if recording is None:
            return
        if self._torn:
            # Steps are missing after the last journalled chunk: what is whole is kept, as interrupted.
            self.last = replace(self.last, number=recording.interrupt())
            self._recording = None
            return
        if self._pending:
            self._append(recording, ending.observation, ending.time_s, ending.images)
        recording.end(
            terminated=ending.terminated,
            truncated=ending.truncated,
            success=ending.success,
            success_source=ending.success_source,
            metrics={**ending.metrics, "safety_steps": float(self.last.safety_steps)},
        )
        self._label(recording.uid, ending)
        self.last = replace(self.last, number=recording.commit())
        self._recording = None

    def close(self) -> None:
        """Commit what is there and let another writer in."""
        self._writer.close()

    def _start(self, header: EpisodeHeader | None) -> None:
        self._header = header
        self._recording: Recording | None = None
        self._pending: list[StepRecord] = []
        self._stage = 0
        self._torn = False
        self._before: StepRecord | None = None
        self.last = Recorded()

    def _label(self, uid: str, ending: EpisodeEnding) -> None:
        """Write the operator's labels before the episode can be read, so that no learner misses them."""
        stage = str(self._stage) if self._stage else None
        if stage is not None or not ending.keep:
            change = LabelChange(source="operator", stage=stage, discard=None if ending.keep else True)
            append_labels(self.path / "labels.log", [(uid, change)])

    def _record(self, first: StepRecord) -> Recording:
        header = self._header
        if header is None:
            raise DataError("a step came before its episode began; call begin first")
        return self._writer.record(
            EpisodeStart(
                observation=first.observation,
                timestamp_s=first.time_s,
                images=first.images,
                seed=header.seed,
                policy_version=header.policy_version,
                task=header.task,
            )
        )

    def _append(
        self,
        recording: Recording,
        observation: np.ndarray,
        time_s: float,
        images: Mapping[str, np.ndarray],
    ) -> None:
        """Journal the pending steps; the arguments were observed after the last of them."""
        if self._torn:
            raise DataError("the episode takes no more steps, as some could not be written; end it")
        steps = self._pending
        after = [(step.observation, step.time_s, step.images) for step in steps[1:]]
        after.append((observation, time_s, images))
        chunk = ExecutedChunk(
            observations=np.stack([seen for seen, _, _ in after]),
            actions=np.stack([step.action for step in steps]),
            rewards=np.array([step.reward for step in steps], np.float32),
            chunk_starts=np.array([step.chunk_start for step in steps]),
            proposed_actions=np.stack([step.proposed for step in steps]),
            interventions=np.array([step.intervention for step in steps]),
            timestamps_s=np.array([at for _, at, _ in after]),
            images={name: np.stack([shots[name] for _, _, shots in after]) for name in images},
        )
        self._torn = True
        recording.append(chunk)
        self._torn = False
        self._pending = []
