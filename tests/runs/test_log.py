from __future__ import annotations

import csv
import json
from pathlib import Path

from serfn.runs.log import CSV_COLUMNS, RunLog
from serfn.training.gate import GateDecision

ROW = {"stage": "offline", "step": 3, "policy/nll": 0.5, "policy/unusual": 1.0}
EVALUATION = {"stage": "offline", "result": {"scores": [1.0, 3.0]}}

ALARM = {"stage": "online", "step": 3, "updates": 9, "text": "the critic is exploited"}


def test_every_row_is_a_whole_line_in_both_formats(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.metrics(ROW, 3)
    log.metrics({"stage": "offline", "step": 4}, 4)
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0] == ROW
    with (tmp_path / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == CSV_COLUMNS
    assert [row["policy/nll"] for row in table] == ["0.5", ""]


def test_a_position_brings_the_files_back(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.metrics(ROW, 3)
    log.evaluation(EVALUATION, 3)
    log.alarm(ALARM)
    position = log.position()
    before = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    log.metrics(ROW, 4)
    log.evaluation(EVALUATION, 4)
    log.alarm(ALARM)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"half')
    after = RunLog(tmp_path)
    after.truncate(position, 3)
    after.close()
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == before


def test_gates_and_status_are_replaced_whole(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    gate = GateDecision("offline", True, "better", 2.0, 1.0)
    log.gates([gate])
    log.gates([gate, gate])
    log.status({"stage": "offline", "complete": False})
    assert json.loads((tmp_path / "gates.json").read_text()) == [gate.to_dict()] * 2
    assert json.loads((tmp_path / "status.json").read_text())["stage"] == "offline"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
