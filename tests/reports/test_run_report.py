from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serfn.core.errors import DataError
from serfn.core.results import EvaluationResult
from serfn.reports.run_record import load_run
from serfn.reports.run_report import write_report
from serfn.reports.run_words import pace_sentence, results_table, verdict_sentence, way_sentence

pytestmark = pytest.mark.slow


def result(mean: float, episodes: int = 50) -> EvaluationResult:
    scores = tuple(np.linspace(mean - 2, mean + 2, episodes).tolist())
    return EvaluationResult(
        returns=tuple(score / 10 for score in scores),
        successes=(True,) * episodes,
        lengths=(400,) * episodes,
        scores=scores,
        metrics={"dropped": (0.0,) * episodes, "rev_per_min": scores},
        control_hz=20.0,
    )


def line(
    stage: str, mean: float, *, minutes: float = 0.0, final: bool = True, candidates: int = 1
) -> dict[str, Any]:
    return {
        "stage": stage,
        "final": final,
        "episodes": round(3 * minutes),
        "robot_minutes": minutes,
        "updates": 100,
        "acting": {"candidates": candidates, "temperature": 0.7},
        "result": result(mean, 50 if final else 8).to_dict(),
    }


def write_run(folder: Path, evaluations: list[dict[str, Any]]) -> Path:
    (folder / "films").mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"task": "cube", "seed": 3, "critic": {"v_min": -1, "v_max": 1}})
    )
    (folder / "status.json").write_text(
        json.dumps(
            {"stage": "online", "complete": True, "seconds": {"imitation": 61.0}, "robot_minutes": 8.0}
        )
    )
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evaluations))
    rows = [
        {
            "stage": stage,
            "step": step,
            "seconds": 1.0,
            "policy/nll": 0.5,
            "critic/td_loss": 0.1,
            "critic/q_mean": 0.2,
        }
        for stage in ("imitation", "online")
        for step in (50, 100)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "gates.json").write_text(
        json.dumps(
            [{"stage": "offline", "promoted": False, "reason": "worse <than> before", "score": 1, "best": 2}]
        )
    )
    Image.new("RGB", (60, 20)).save(folder / "films" / "imitation.png")
    (folder / "films" / "films.json").write_text(json.dumps({"imitation.png": "Before fine-tuning"}))
    return folder


def test_page_is_self_contained_and_tells_the_story(tmp_path: Path) -> None:
    evaluations = [line("imitation", 2.0), line("offline", 2.5), line("online", 4.0, minutes=4, final=False)]
    run = write_run(tmp_path / "run", [*evaluations, line("online", 6.0, minutes=8.2, candidates=8)])
    page = write_report(run).read_text()
    assert "Improved: after online training and 8 min of robot time, rev/min went from 2 to 6" in page
    assert "rev/min" in page and "best of\N{NO-BREAK SPACE}8" in page
    assert "worse &lt;than&gt; before" in page
    assert "Before fine-tuning" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") == 7  # three plots for two schemes, and a film
    assert {path.name for path in (run / "report_files").iterdir()} == {
        f"{plot}-{scheme}.png"
        for plot in ("learning", "likelihood", "critic")
        for scheme in ("light", "dark")
    }


def test_page_says_where_the_time_went(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [line("imitation", 2.0)])
    status = json.loads((run / "status.json").read_text())
    status["time"] = {
        "evaluation/acting": {"seconds": 61.0, "share": 0.25},
        "learning": {"seconds": 183.0, "share": 0.75},
    }
    (run / "status.json").write_text(json.dumps(status))
    page = write_report(run).read_text()
    learning = "<th scope='row'>of which learning</th><td>3.0 min (75%)</td>"
    acting = "<th scope='row'>of which acting in evaluations</th><td>61 s (25%)</td>"
    assert page.index(learning) < page.index(acting)
    (run / "status.json").write_text(json.dumps({**status, "time": {"learning": 3}}))
    with pytest.raises(DataError, match="expected seconds and share"):
        write_report(run)


@pytest.mark.parametrize(
    ("last", "outcome", "words"),
    [(4.0, "improved", "Improved"), (2.05, "within", "is within the interval"), (0.5, "worse", "Worse")],
)
def test_verdict_is_honest(tmp_path: Path, last: float, outcome: str, words: str) -> None:
    record = load_run(write_run(tmp_path / "run", [line("imitation", 2.0), line("online", last, minutes=8)]))
    assert record.verdict().outcome == outcome
    assert words in verdict_sentence(record)


def test_alarms_are_listed_with_the_gates(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [line("imitation", 2.0)])
    alarms = [{"stage": "online", "step": n, "updates": n, "text": f"value <{n}> is odd"} for n in range(8)]
    (run / "alarms.jsonl").write_text("".join(json.dumps(alarm) + "\n" for alarm in alarms))
    page = write_report(run).read_text()
    assert "<b>Online: alarm</b>value &lt;4&gt; is odd" in page
    assert "&lt;5&gt;" not in page and "3 more, all in alarms.jsonl" in page
    assert page.index("worse &lt;than&gt; before") < page.index("value &lt;0&gt;")


def test_unfinished_run_can_be_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [line("imitation", 2.0)])
    with (run / "evaluations.jsonl").open("a") as file:
        file.write('{"stage": "onl')  # killed while writing
    record = load_run(run)
    assert record.verdict().outcome == "open"
    assert "nothing to compare" in verdict_sentence(record)
    assert write_report(run).is_file()


def test_run_that_has_only_begun_can_be_reported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "No stage has been evaluated yet" in write_report(tmp_path).read_text()


def test_table_shows_the_final_evaluation_of_each_stage(tmp_path: Path) -> None:
    evaluations = [
        line("imitation", 2.0),
        line("online", 9.0, minutes=4, final=False),
        line("online", 5.0, minutes=8),
        line("online", 6.0, minutes=8, candidates=8),
    ]
    record = load_run(write_run(tmp_path / "run", evaluations))
    table = results_table(record)
    assert [point.stage for point in table.points] == ["imitation", "online"]
    assert table.points[1].acting["candidates"] == 8
    assert table.rows[0][0] == "rev/min"
    assert "acting in other ways" in write_report(record.folder).read_text()


@pytest.mark.parametrize(
    ("imitation", "online", "words"),
    [
        (None, [4.0], ""),
        (2.0, [], ""),
        (
            2.0,
            [2.5, 3.0],
            "0 of 2 interim evaluations lie below imitation with the same 8 seeds: rev/min 2 after",
        ),
        (2.75, [2.5, 3.0], "1 of 2 interim evaluations lies below"),
        (3.5, [2.5, 3.0, 4.0], "2 of 3 interim evaluations lie below"),
        (2.0, [2.5], "0 of 1 interim evaluations lie below imitation"),
    ],
)
def test_report_says_whether_an_interim_evaluation_fell_below_imitation(
    tmp_path: Path, imitation: float | None, online: list[float], words: str
) -> None:
    # The final evaluation of imitation has other starts and decides nothing here.
    evaluations = [line("imitation", 9.0)]
    if imitation is not None:
        evaluations.append(line("imitation", imitation, final=False))
    evaluations += [line("online", score, minutes=4, final=False) for score in online]
    record = load_run(write_run(tmp_path / "run", evaluations))
    sentence = way_sentence(record)
    assert words in sentence and bool(words) == bool(sentence)
    assert sentence in write_report(record.folder).read_text()
    assert [point.result.mean_score for point in record.finals()] == [9.0]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        # In s at 20 Hz: 10, 9 and 5 sooner, where both succeed; the fourth start is not counted.
        ([400, 300, 200, 360], [200, 120, 100, 20], "(3 seeds) it takes 7.0 s, and took 15.0 s after imit"),
        ([400, 300, 200, 360], [200, 120, 100, 20], "8.0 s less (95% interval 1.4 to 14.6)"),
        ([200, 120, 100, 20], [400, 300, 200, 360], "8.0 s more (95% interval 1.4 to 14.6)"),
        ([200, 200, 200, 200], [200, 200, 200, 200], ""),
    ],
)
def test_report_says_how_much_sooner_the_last_policy_succeeds(
    tmp_path: Path, before: list[int], after: list[int], words: str
) -> None:
    evaluations = [line("imitation", 1.0), line("online", 1.0, minutes=8)]
    for row, lengths in zip(evaluations, (before, after), strict=True):
        scores = [1.0, 1.0, 1.0, 0.0]
        row["result"] = EvaluationResult(
            tuple(scores), (True, True, True, lengths[3] == 20), tuple(lengths), tuple(scores), {}, 20.0
        ).to_dict()
    record = load_run(write_run(tmp_path / "run", evaluations))
    sentence = pace_sentence(record)
    assert words in sentence and bool(words) == bool(sentence)
    assert sentence in write_report(record.folder).read_text()


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_run(tmp_path / "missing")
    with pytest.raises(DataError, match=r"not a run: it has no config\.json"):
        load_run(tmp_path)
    run = write_run(tmp_path / "run", [line("imitation", 2.0)])
    (run / "metrics.jsonl").write_text('{"stage"\n{}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl' line 1"):
        load_run(run)
    (run / "metrics.jsonl").unlink()
    (run / "evaluations.jsonl").write_text('{"stage": "imitation"}\n')
    with pytest.raises(DataError, match=r"evaluations\.jsonl' has a line without 'final'"):
        load_run(run)
