"""The doctor: each check finds the fault that is planted, and says nothing of what is healthy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.cli.main import main
from serfn.core.errors import DataError
from serfn.core.results import EvaluationResult
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.reports.doctor import CHECKS, FEW, Case, Rounds, diagnose, examine
from serfn.reports.experience import RobotEpisode, SessionRecord, session_rows
from serfn.reports.run_record import EvaluationPoint, RunRecord

TASK = TaskSpec("arm", ObservationSpec(2), ActionSpec((-1.0,), (1.0,)), 20.0, 100)
CONFIG: dict[str, Any] = {
    "chunk_size": 4,
    "rewards": {"scale": 1.0},
    "critic": {"v_min": -1.0, "v_max": 1.0},
    "online": {
        "acting": {"n_action_steps": 2},
        "improvement": {"target_kl": 0.03},
        "alarms": {"max_kl": 1.0},
    },
}
HEALTHY = RobotEpisode(
    number=0,
    minutes=1.0,
    steps=80,
    success=True,
    success_source="operator",
    corrected=False,
    discard=False,
    interrupted=False,
    policy_version=1,
    return_=1.0,
    by_person=0.0,
    changed=0.02,
    spread=0.2,
)


def episodes(count: int = 40, minutes: float = 1.0, **changes: Any) -> tuple[RobotEpisode, ...]:
    """Return episodes of which the first half fail and the second half succeed."""
    rows = [
        dataclasses.replace(
            HEALTHY,
            number=i,
            minutes=(i + 1) * minutes,
            success=2 * i >= count,
            policy_version=1 + i // 4,
        )
        for i in range(count)
    ]
    return tuple(dataclasses.replace(row, **changes) for row in rows)


def metrics(**values: float) -> tuple[dict[str, Any], ...]:
    row = {"policy/q_max": 0.6, "policy/q_min": -0.2, "policy/kl": 0.02, **{}}
    row |= {name.replace("_", "/", 1): value for name, value in values.items()}
    return tuple({"stage": "online", "step": step, **row} for step in range(6))


def run(**changes: Any) -> RunRecord:
    record = RunRecord(Path("run"), CONFIG, {"updates": 8000}, (), metrics(), ())
    return dataclasses.replace(record, **changes)


def session(**changes: Any) -> SessionRecord:
    promotions = tuple(
        {"version": version, "promoted": True, "reason": "no objection"} for version in range(1, 8)
    )
    record = SessionRecord(
        config={"learning": {"place": "process", "updates_per_episode": 200}},
        task=TASK,
        episodes={"robot": episodes()},
        promotions={"robot": promotions},
        serving={},
        use={},
    )
    return dataclasses.replace(record, **changes)


def case(**changes: Any) -> Case:
    healthy = Case(
        run=run(),
        session=session(),
        episodes=episodes(),
        control_hz=20.0,
        limit_steps=100,
        demonstrated=(60, 80, 90),
        demonstrated_rewards=np.array([0.0, 0.5, 1.0]),
        demonstrated_spread=0.25,
    )
    return dataclasses.replace(healthy, **changes)


def config(path: str, value: Any) -> RunRecord:
    """Return a run with one option changed."""
    changed = json.loads(json.dumps(CONFIG))
    *folders, name = path.split(".")
    place = changed
    for folder in folders:
        place = place[folder]
    place[name] = value
    return run(config=changed)


def refused() -> SessionRecord:
    said = tuple({"version": v, "promoted": v == 1, "reason": "KL 3 is above 1"} for v in range(1, 8))
    return session(promotions={"robot": said})


FAULTS: dict[str, Case] = {
    "all successes": case(episodes=episodes(success=True)),
    "no success": case(episodes=episodes(success=False)),
    "no labels": case(episodes=episodes(success=None)),
    "labels contradict": case(episodes=episodes(corrected=True)),
    "episodes are cut": case(episodes=episodes(interrupted=True)),
    "time limit": case(limit_steps=70),
    "reacts late": case(run=config("online.acting.n_action_steps", 16)),
    "executed otherwise": case(episodes=episodes(changed=0.4)),
    "reward scale": case(demonstrated_rewards=np.array([0.0, 1.0, 5.0])),
    "critic is flat": case(run=run(metrics=metrics(policy_q_max=0.1, policy_q_min=0.1))),
    "critic exploited": case(run=run(metrics=metrics(policy_q_max=1.4))),
    "KL at its limit": case(run=run(metrics=metrics(policy_kl=0.9))),
    "policy stands still": case(run=run(metrics=metrics(policy_kl=1e-5))),
    "little variety": case(episodes=episodes(spread=0.01)),
    "learner is slow": case(run=run(status={"updates": 100})),
    "weights are refused": case(session=refused()),
    "weights do not arrive": case(session=session(episodes={"robot": episodes(policy_version=0)})),
    "no improvement": case(episodes=(*reversed(episodes()[1:]), *episodes(1, 60.0, success=False))),
}


def test_a_healthy_session_has_no_findings() -> None:
    assert diagnose(case()) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(name: str) -> None:
    found = diagnose(FAULTS[name])
    assert name in [finding.name for finding in found]
    # Episodes that all fail cannot improve either; nothing else may come along.
    assert {finding.name for finding in found} <= {name, "no improvement"}
    finding = next(finding for finding in found if finding.name == name)
    assert finding.figure and finding.remedy and "\n" not in finding.text


def test_every_check_is_tried() -> None:
    caught = {check for check in CHECKS for fault in FAULTS.values() if check(fault) is not None}
    assert caught == set(CHECKS)


def test_too_small_rewards_are_named_with_a_scale_that_fits() -> None:
    (finding,) = diagnose(case(demonstrated_rewards=np.array([0.0, 0.001])))
    assert finding.name == "reward scale" and "rewards.scale=1e+03" in finding.remedy


def test_of_a_few_episodes_nothing_is_said() -> None:
    few = episodes(FEW - 1, success=None, changed=1.0, spread=0.0, corrected=True, interrupted=True)
    assert diagnose(case(episodes=few)) == []


def test_a_run_whose_evaluations_stay_below_bc_is_told_so() -> None:
    def point(stage: str, score: float, minutes: float) -> EvaluationPoint:
        result = EvaluationResult(
            returns=(score,) * 8,
            successes=(None,) * 8,
            lengths=(100,) * 8,
            scores=tuple(score + 0.1 * i for i in range(8)),
            metrics={},
            control_hz=20.0,
        )
        return EvaluationPoint(stage, False, 8, minutes, 100, {}, result)

    way = [point("online", score, minutes) for score, minutes in ((4, 0), (2, 8), (2.5, 16), (3, 24))]
    worse = run(evaluations=(point("imitation", 4, 0), *way))
    (finding,) = diagnose(case(run=worse, session=None))
    assert finding.name == "no improvement" and "24 minutes" in finding.figure
    better = run(evaluations=(*worse.evaluations, point("online", 6, 32)))
    assert diagnose(case(run=better, session=None)) == []


def test_a_folder_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="neither a training run nor a session"):
        examine(tmp_path)
    assert main(["doctor", str(tmp_path)]) == 2
    assert "neither a training run" in capsys.readouterr().err


def test_while_at_work_each_finding_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    rounds = Rounds(tmp_path, said.append)
    rounds.look()
    assert said == []
    monkeypatch.setattr("serfn.reports.doctor.read_case", lambda folder: FAULTS["time limit"])
    rounds.look()
    rounds.look()
    assert len(said) == 1 and said[0].startswith("doctor: time limit: ")


def test_a_session_is_told_in_figures_with_intervals() -> None:
    rows = dict(session_rows(session(), "robot"))
    # 40 episodes, of which the second half succeed: none of the first 13, all of the last 13.
    assert rows["success, first third"].startswith("0 of 13 (0% to ")
    assert rows["success, last third"] == "13 of 13 (77% to 100%)"
    assert rows["robot minutes"] == "40.0" and rows["promoted"] == "6 of 6 published"
    unlabelled = session(episodes={"robot": episodes(success=None)})
    assert dict(session_rows(unlabelled, "robot"))["success, last third"] == "nobody said"
    discarded = session(episodes={"robot": episodes(discard=True)})
    assert dict(session_rows(discarded, "robot"))["episodes"] == "0, 40 discarded"
