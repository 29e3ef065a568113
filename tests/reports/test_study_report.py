from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from serfn.core.errors import DataError
from serfn.core.results import EvaluationResult
from serfn.reports.study.budget import violations
from serfn.reports.study.csv_tables import write_tables
from serfn.reports.study.modes import policy_panels
from serfn.reports.study.record import load_study_record
from serfn.reports.study.report import write_study_report
from serfn.reports.study.tables import method_rows, overall_better, run_rows
from serfn.reports.study.words import verdict_sentences

pytestmark = pytest.mark.slow

# Mean success after imitation, then during adaptation, of each method.
CURVES = {
    "ours": (0.5, 0.7, 0.85, 0.95),
    "gaussian": (0.3, 0.2, 0.35, 0.4),
    "cloning": (0.5,),
    "no_anchor": (0.5, 0.55, 0.3, 0.6),
}
SEEDS = (0, 1, 2, 3, 4)
HZ = 10.0


def result(rate: float, episodes: int, rng: np.random.Generator) -> EvaluationResult:
    successes = rng.random(episodes) < rate
    return EvaluationResult(
        returns=tuple(map(float, successes)),
        successes=tuple(map(bool, successes)),
        lengths=(40,) * episodes,
        scores=tuple(map(float, successes)),
        metrics={},
        control_hz=HZ,
    )


def write_run(folder: Path, method: str, seed: int, shared: str, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    start, *online = CURVES[method]
    lift = 0.08 * (seed - 2) / 2

    def line(stage: str, rate: float, rounds: int, final: bool) -> dict[str, Any]:
        episodes = 16 * rounds
        return {
            "stage": stage,
            "final": final,
            "episodes": episodes,
            "robot_minutes": episodes * 40 / HZ / 60,
            "updates": 1000 + 200 * rounds,
            "acting": {"candidates": 8, "temperature": 0.7},
            "result": result(min(1.0, max(0.0, rate + lift)), 40 if final else 16, rng).to_dict(),
        }

    lines = [line("imitation", start, 0, True)]
    lines += [line("online", rate, number, False) for number, rate in enumerate(online, start=1)]
    if online:
        lines.append(line("online", online[-1], len(online), True))
    (folder / "config.json").write_text(json.dumps({"chunk_size": 10}))
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (folder / "status.json").write_text(
        json.dumps(
            {
                "stage": lines[-1]["stage"],
                "complete": True,
                "seconds": {"imitation": 10.0, "online": 20.0 * len(online)},
                "robot_minutes": lines[-1]["robot_minutes"],
                "episodes": lines[-1]["episodes"],
                "updates": lines[-1]["updates"],
            }
        )
    )
    measures(folder, "complete", shared, "GaussianPolicy" if method == "gaussian" else "FlowPolicy")


def measures(folder: Path, outcome: str, shared: str | None, policy: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    gaussian = policy == "GaussianPolicy"
    counts = {"left": 3, "right": 4} if gaussian else {"left": 28, "right": 33}
    across = np.linspace(-1, 1, 20)
    paths = []
    for number in range(24):
        side = 0.15 * rng.normal() if gaussian else (-1.0) ** number * (0.9 + 0.1 * rng.normal())
        end = 10 if gaussian and number % 8 else 20
        points = np.stack([across, side * np.cos(np.pi * across / 2)], axis=1)[:end]
        paths.append({"points": points.round(3).tolist(), "success": end == 20})
    record = {
        "hash": "x",
        "kind": "run",
        "outcome": outcome,
        "policy": policy,
        "shared": shared,
        "parameters": {"policy": 9000 if gaussian else 20_000, "critic": 30_000},
        "nll": 0.4 if gaussian else -0.9 + 0.01 * rng.normal(),
        "modes": {
            "episodes": 64,
            "ways": counts,
            "other": 0,
            "failed": 64 - sum(counts.values()),
            "paths": paths,
        },
    }
    (folder / "record.json").write_text(json.dumps(record))


def write_study(folder: Path, seeds: Sequence[int] = SEEDS, tasks: Sequence[str] = ("diagnostic",)) -> Path:
    rng = np.random.default_rng(0)
    runs = []
    for task in tasks:
        for seed in seeds:
            for method in CURVES:
                policy = "GaussianPolicy" if method == "gaussian" else "FlowPolicy"
                shared = f"imitation/{task}/seed-{seed}-{policy}"
                measures(folder / shared, "complete", None, policy)
                place = f"runs/{task}/{method}/seed-{seed}"
                write_run(folder / place, method, seed, shared, rng)
                runs.append({"task": task, "method": method, "seed": seed, "folder": place})
    labels = {
        "ours": "ours",
        "gaussian": "Gaussian, per-step critic (RLPD)",
        "cloning": "behaviour cloning",
        "no_anchor": "ours without the likelihood term",
    }
    description = {
        "title": "Around an obstacle",
        "reference": "ours",
        "ablations": ["no_anchor"],
        "seeds": list(seeds),
        "tasks": {
            task: {
                "label": task.capitalize(),
                "threshold": 0.8,
                "circles": [[0.0, 0.0, 0.35]],
            }
            for task in tasks
        },
        "methods": {
            name: {"label": labels[name], "summary": f"What {name} is.", "citation": "Author 2025"}
            for name in CURVES
        },
        "runs": runs,
    }
    (folder / "study.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def numbers(rows: list[dict[str, str]], method: str, column: str) -> list[float]:
    return [float(row[column]) for row in rows if row["method"] == method]


def test_statistics_agree_with_a_recomputation_from_the_csv(study: Path) -> None:
    write_study_report(study)
    runs, evaluations, methods = (
        read_csv(study / "report_files" / f"{name}.csv") for name in ("runs", "evaluations", "methods")
    )
    for row in methods:
        name = row["method"]
        finals, ours = numbers(runs, name, "final"), numbers(runs, "ours", "final")
        assert float(row["score_mean"]) == pytest.approx(scipy.stats.trim_mean(finals, 0.25))
        # All 5^5 resamples: the limits lie where the exact distribution has its 2.5% tails.
        exact = scipy.stats.trim_mean(np.array(list(itertools.product(finals, repeat=5))), 0.25, axis=1)
        for limit, tail in (("score_low", 0.025), ("score_high", 0.975)):
            around = np.quantile(exact, [tail - 0.015, tail + 0.015])
            assert around[0] - 1e-9 <= float(row[limit]) <= around[1] + 1e-9
        successes, episodes = (
            int(sum(numbers(runs, name, column))) for column in ("successes", "evaluation_episodes")
        )
        wilson = scipy.stats.binomtest(successes, episodes).proportion_ci(0.95, method="wilson")
        limits = (float(row["success_low"]), float(row["success_high"]))
        assert limits == pytest.approx((wilson.low, wilson.high))
        if name == "ours":
            assert row["lead_mean"] == ""
            continue
        assert [run["seed"] for run in runs if run["method"] == name] == [str(seed) for seed in SEEDS]
        paired = scipy.stats.ttest_rel(ours, finals)
        lead = tuple(float(row[f"lead_{part}"]) for part in ("mean", "low", "high"))
        interval = paired.confidence_interval()
        assert lead == pytest.approx((np.mean(ours) - np.mean(finals), interval.low, interval.high))
        assert row["outcome"] == ("ahead" if lead[1] > 0 else "behind" if lead[2] < 0 else "open")
        u = scipy.stats.mannwhitneyu(ours, finals).statistic
        assert float(row["better_mean"]) == pytest.approx(u / (len(ours) * len(finals)))
    budget = max(float(row["robot_minutes"]) for row in evaluations)
    for run in runs:
        own = [row for row in evaluations if (row["method"], row["seed"]) == (run["method"], run["seed"])]
        curve = {0.0: float(own[0]["score"])}
        # The final evaluation comes last and replaces the interim one at the same time.
        curve |= {float(row["robot_minutes"]): float(row["score"]) for row in own[1:]}
        x, y = [*curve, budget], [*curve.values(), list(curve.values())[-1]]
        assert float(run["area_minutes"]) == pytest.approx(np.trapezoid(y, x) / budget)
        assert float(run["final"]) == float(own[-1]["score"])
        lowest = min(float(row["score"]) for row in own)
        assert float(run["worst_dip"]) == pytest.approx(lowest - float(own[0]["score"]))
        reached = [minutes for minutes, score in curve.items() if score >= 0.8]
        assert run["reached"] == str(bool(reached))
        assert float(run["reach_minutes"]) == pytest.approx(reached[0] if reached else budget)
    areas = numbers(runs, "gaussian", "area_minutes")
    (gaussian,) = (row for row in methods if row["method"] == "gaussian")
    assert float(gaussian["area_mean"]) == pytest.approx(scipy.stats.trim_mean(areas, 0.25))
    assert float(gaussian["deepest_dip"]) == min(numbers(runs, "gaussian", "worst_dip"))


def test_page_is_self_contained_and_says_n_everywhere(study: Path) -> None:
    path, (verdict,) = write_study_report(study)
    page = path.read_text()
    assert verdict.startswith("Ours is ahead of 2 of 2 methods.") and verdict in page
    assert "http" not in page.replace("http-equiv", "")
    assert "ours without the likelihood term" in page and "RLPD" in page
    captions = [part.split("</figcaption>")[0] for part in page.split("<figcaption>")[1:]]
    assert captions and all("seed" in words or "n = 5" in words for words in captions)
    for section in ("Adaptation", "Ablations", "Several ways", "Cost and fairness", "Methods"):
        assert f"<h2>{section}</h2>" in page
    images = {file.name for file in (study / "report_files").glob("*.png")}
    assert {"diagnostic-scores-light.png", "diagnostic-minutes-gaussian-dark.png"} <= images
    assert {"diagnostic-ablations-light.png", "diagnostic-modes-light.png"} <= images
    assert {"diagnostic-paths-0-dark.png", "diagnostic-paths-1-dark.png"} <= images


def test_panels_put_methods_with_one_imitation_together(study: Path) -> None:
    flow, gaussian = policy_panels(load_study_record(study), "diagnostic")
    assert (flow.label, flow.methods) == ("Flow", ("ours", "cloning", "no_anchor"))
    assert (gaussian.label, gaussian.seeds, gaussian.chunk_size) == ("Gaussian", 5, 10)
    assert gaussian.ways is not None and flow.ways is not None
    assert gaussian.ways.coverage.mean == pytest.approx(2 * 3 / 64)
    assert gaussian.ways.failed == pytest.approx(57 / 64)
    assert sum(share for _, share in flow.ways.bars()) == pytest.approx(1)
    assert flow.likelihood is not None and flow.likelihood.mean == pytest.approx(0.9, abs=0.02)


def test_a_method_that_lacks_a_seed_still_shares_the_imitation_of_the_others(study: Path) -> None:
    for path in study.glob("runs/diagnostic/no_anchor/seed-4*/record.json"):
        path.unlink()
    flow, _ = policy_panels(load_study_record(study), "diagnostic")
    assert (flow.methods, flow.seeds) == (("ours", "cloning", "no_anchor"), 5)


def test_unequal_budgets_are_named(study: Path) -> None:
    record = load_study_record(study)
    found = {(one.method, one.quantity) for one in violations(record, run_rows(record))}
    assert found == {
        ("cloning", "environment steps"),
        ("cloning", "gradient updates"),
        ("gaussian", "parameters"),
    }
    assert "39,000 parameters against 50,000" in write_study_report(study)[0].read_text()


def test_an_unfinished_study_compares_what_it_has(study: Path) -> None:
    for path in study.glob("runs/diagnostic/gaussian/seed-*/record.json"):
        if "seed-0" not in str(path):
            path.unlink()
    record = load_study_record(study)
    rows = {row.method: row for row in method_rows(record, run_rows(record))}
    assert rows["gaussian"].seeds == 1 and rows["gaussian"].outcome == "open"
    assert rows["gaussian"].score.high == math.inf
    assert "16 of 20 runs done" in write_study_report(study)[0].read_text()


def test_a_study_that_has_only_begun_can_be_reported(study: Path) -> None:
    for path in study.glob("runs/**/record.json"):
        path.unlink()
    path, (verdict,) = write_study_report(study)
    assert verdict == "nothing to compare yet." and "0 of 20 runs done" in path.read_text()


def test_a_diverged_run_counts_with_its_last_evaluation(study: Path) -> None:
    path = study / "runs/diagnostic/gaussian/seed-3/record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "outcome": "diverged: NaN <everywhere>"}))
    record = load_study_record(study)
    (run,) = (run for run in record.of("diagnostic", "gaussian") if run.diverged)
    assert run.final == run.run.evaluations[-1].result
    assert "seed 3: NaN &lt;everywhere&gt;" in write_study_report(study)[0].read_text()


def test_several_tasks_are_never_mixed_but_by_probability(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", seeds=(0, 1, 2), tasks=("left", "right"))
    record = load_study_record(study)
    rows = run_rows(record)
    better = overall_better(record, rows)["gaussian"]
    by_task = {
        (row.task, row.method): row.better.mean for row in method_rows(record, rows) if row.better is not None
    }
    assert better.mean == pytest.approx((by_task["left", "gaussian"] + by_task["right", "gaussian"]) / 2)
    path, verdicts = write_study_report(study)
    assert [verdict.split(":")[0] for verdict in verdicts] == ["Left", "Right"]
    assert "<h2>All tasks</h2>" in path.read_text()


def test_verdicts_name_who_is_better(study: Path) -> None:
    record = load_study_record(study)
    rows = method_rows(record, run_rows(record))
    turned = [
        row if row.method != "cloning" else type(row)(**{**vars(row), "outcome": "behind"}) for row in rows
    ]
    (verdict,) = verdict_sentences(record, turned)
    assert verdict == (
        "Ours is ahead of 1 of 2 methods, behind behaviour cloning. Of its variants, it is ahead of 1 of 1. "
        "Final scores, paired over 5 seeds."
    )


def test_tables_can_be_written_without_a_page(study: Path, tmp_path: Path) -> None:
    files = write_tables(load_study_record(study), tmp_path)
    assert {path.name for path in files.values()} == {
        "runs.csv",
        "evaluations.csv",
        "methods.csv",
        "curves.csv",
    }
    band = [row for row in read_csv(tmp_path / "curves.csv") if row["method"] == "ours"]
    assert {row["axis"] for row in band} == {"minutes", "episodes"}
    assert all(float(row["low"]) <= float(row["score"]) <= float(row["high"]) for row in band)


def test_what_is_no_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"study\.json' cannot be read"):
        write_study_report(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(DataError, match="does not describe a study"):
        write_study_report(tmp_path)
