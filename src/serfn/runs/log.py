"""The files of a run folder: JSON Lines, CSV and TensorBoard; a learner beside a robot writes the same ones.

Every line goes to disk in one write, so that a killed job leaves whole lines; a resumed job first cuts off
what was written after its checkpoint.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serfn.core.extras import extra, installed
from serfn.core.files import write_atomically
from serfn.core.progress import Progress
from serfn.training.gate import GateDecision
from serfn.training.stages.context import RunState

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

# CSV has one header; these columns cover every stage, the other metrics are in the JSON lines.
CSV_COLUMNS = (
    "stage",
    "step",
    "updates",
    "seconds",
    "policy/nll",
    "policy/kl",
    "policy/coefficient",
    "policy/q_mean",
    "policy/q_max",
    "policy/gradient_norm",
    "critic/loss",
    "critic/td_loss",
    "critic/q_mean",
    "critic/q_max",
    "critic/gradient_norm",
    "online/episodes",
    "online/return",
    "online/length",
    "online/failures",
)

ABORTED = "aborted.jsonl"
"""File of a run folder: episodes that the environment's own code cut short."""


class RunLog:
    """Writes metrics, evaluations, gates, alarms and status into a run folder.

    Without the extra `tensorboard` no curves are written for it, and `notes` says so.

    Args:
        folder: Run folder; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metrics = folder / "metrics.jsonl"
        self._table = folder / "metrics.csv"
        self._evaluations = folder / "evaluations.jsonl"
        self._alarms = folder / "alarms.jsonl"
        self._aborted = folder / ABORTED
        self._counted = (self._metrics, self._table, self._evaluations, self._alarms, self._aborted)
        self._board: SummaryWriter | None = None
        self._curves = installed("tensorboard")

    @property
    def notes(self) -> list[str]:
        """What the user should know about the log."""
        if self._curves:
            return []
        return ["no curves for TensorBoard, which is not installed; pip install 'serfn[tensorboard]'"]

    def metrics(self, row: Mapping[str, Any], global_step: int) -> None:
        """Append one row of metrics; `global_step` orders TensorBoard's curves over all stages."""
        append_line(self._metrics, json.dumps(dict(row)))
        if not self._table.exists():
            append_line(self._table, _csv_line(CSV_COLUMNS))
        append_line(self._table, _csv_line([row.get(name, "") for name in CSV_COLUMNS]))
        if board := self._tensorboard(global_step):
            for name, value in row.items():
                if "/" in name:
                    board.add_scalar(name, value, global_step)

    def evaluation(self, row: Mapping[str, Any], global_step: int) -> None:
        """Append one evaluation."""
        append_line(self._evaluations, json.dumps(dict(row)))
        scores = row["result"]["scores"]
        if board := self._tensorboard(global_step):
            board.add_scalar("evaluation/score", sum(scores) / len(scores), global_step)
            board.flush()

    def alarm(self, row: Mapping[str, Any]) -> None:
        """Append one alarm."""
        append_line(self._alarms, json.dumps(dict(row)))

    def aborted(self, row: Mapping[str, Any]) -> None:
        """Append one episode that the environment aborted."""
        append_line(self._aborted, json.dumps(dict(row)))

    def aborted_online(self) -> set[int]:
        """Return the seeds of aborted online episodes."""
        lines = self._aborted.read_text(encoding="utf-8").splitlines() if self._aborted.exists() else []
        return {row["seed"] for row in map(json.loads, lines) if row["online"]}

    def gates(self, gates: Sequence[GateDecision]) -> None:
        """Replace the list of gate decisions."""
        write_atomically(self.folder / "gates.json", json.dumps([gate.to_dict() for gate in gates], indent=1))

    def status(self, status: Mapping[str, Any]) -> None:
        """Replace the status."""
        write_atomically(self.folder / "status.json", json.dumps(dict(status), indent=1))

    def position(self) -> dict[str, int]:
        """Return the number of whole lines per file, to be kept with a checkpoint."""
        return {path.name: _count_lines(path) for path in self._counted}

    def truncate(self, position: Mapping[str, int], global_step: int) -> None:
        """Cut the files back to a `position`; TensorBoard is told to forget what came after `global_step`."""
        for path in self._counted:
            if path.exists():
                lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
                write_atomically(path, "".join(lines[: position.get(path.name, 0)]))
        self._tensorboard(global_step + 1)

    def close(self) -> None:
        """Flush and close TensorBoard's file."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _tensorboard(self, step: int) -> SummaryWriter | None:
        if self._board is None and self._curves:
            with extra("tensorboard"):
                from torch.utils.tensorboard.writer import SummaryWriter
            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)
        return self._board


class StageLog:
    """What the stages of a run, or of a learner beside a robot, report: to its files and to watchers.

    Args:
        log: Files.
        state: Returns where the training stands.
        control_hz: Control steps per second, for minutes of robot time.
        progress: Watches.
        name: Who speaks in an alarm; None is the stage at work.
        extra: Returns what else belongs into the status.
    """

    def __init__(
        self,
        log: RunLog,
        state: Callable[[], RunState],
        control_hz: float,
        progress: Progress,
        name: str | None = None,
        extra: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.log = log
        self._extra = extra
        self._state = state
        self._control_hz = control_hz
        self._progress = progress
        self._name = name
        self.evaluation_minutes = 0.0
        """Minutes of evaluation episodes so far; they are not part of `robot_minutes`."""
        self._shown = 0
        self._clock = time.monotonic()

    @property
    def robot_minutes(self) -> float:
        """Minutes of robot time so far."""
        return self._state().robot_steps / self._control_hz / 60

    def begin(self) -> None:
        """Start the clock: what passed before does not count."""
        self._clock = time.monotonic()

    def started(self, stage: str, updates: int, done: int = 0) -> None:
        """A stage begins; of its `updates` only those not `done` yet count for pace and time left."""
        self._shown = done
        self._progress.stage_started(stage, max(updates - done, 0))

    def report(self, means: Mapping[str, float]) -> None:
        """Write the metrics of a stage and where it stands."""
        state = self._state()
        self.count_seconds()
        row = {
            "stage": state.stage,
            "step": state.step,
            "updates": state.updates,
            "seconds": round(sum(state.seconds.values()), 3),
            **means,
        }
        self.log.metrics(row, state.updates)
        self._progress.advanced(state.stage, state.step - self._shown, means)
        self._shown = state.step
        self.write_status(False)

    def alarm(self, text: str) -> None:
        """Write down and tell what looks suspicious."""
        state = self._state()
        self.log.alarm({"stage": state.stage, "step": state.step, "updates": state.updates, "text": text})
        self._progress.note(f"{self._name or state.stage}: {text}")

    def count_seconds(self) -> None:
        """Add the time since the last call to the stage at work."""
        state, now = self._state(), time.monotonic()
        state.seconds[state.stage] = state.seconds.get(state.stage, 0.0) + now - self._clock
        self._clock = now

    def write_status(self, complete: bool) -> None:
        """Write where the training stands."""
        self.count_seconds()
        state = self._state()
        self.log.gates(state.gates)
        self.log.status(
            {
                "stage": state.stage,
                "complete": complete,
                "seconds": {name: round(value, 3) for name, value in state.seconds.items()},
                "robot_minutes": self.robot_minutes,
                "evaluation_minutes": round(self.evaluation_minutes, 3),
                "episodes": state.episodes,
                "updates": state.updates,
                **self._extra(),
            }
        )


def append_line(path: Path, line: str) -> None:
    """Append one line to a file in one write, so that a kill leaves whole lines."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (line.rstrip("\n") + "\n").encode())
    finally:
        os.close(descriptor)


def _csv_line(values: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
