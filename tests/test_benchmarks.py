"""The benchmarks run, and say what became slower."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.bench.__main__ import PARTS, main
from benchmarks.bench.record import last_record, save, show
from benchmarks.bench.timing import alternate


@pytest.mark.parametrize("part", [name for name in PARTS if name != "control"])
def test_every_part_gives_figures(part: str, tmp_path: Path) -> None:
    main(["--quick", "--only", part, "--results", str(tmp_path / "results"), "--json", str(tmp_path / "out")])
    record = json.loads((tmp_path / "out").read_text(encoding="utf-8"))
    figures = [figures for group in record["groups"].values() for figures in group.values()]
    assert len(figures) > 1 and all(0 < each["least_ms"] <= each["p99_ms"] for each in figures)
    if part == "updates":
        assert all(each["gflop"] > 0 and each["share_of_peak"] > 0 for each in figures)
    assert record["commit"] and record["cpu"]
    # A quick run is no record.
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_the_control_loop_is_measured_alone_and_beside_a_learner(tmp_path: Path) -> None:
    main(["--quick", "--only", "control", "--json", str(tmp_path / "out")])
    (group,) = json.loads((tmp_path / "out").read_text(encoding="utf-8"))["groups"].values()
    assert list(group) == ["asynchronous, alone", "asynchronous, beside a learner"]
    assert all(figures["steps"] >= 20 for figures in group.values())


def test_contestants_take_turns() -> None:
    calls: list[str] = []
    group = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, warm_up=1)
    assert "".join(calls) == "ab" * 4
    assert set(group) == {"a", "b"} and set(group["a"]) == {"least_ms", "median_ms", "p99_ms"}


def record_of(cpu: str, moment: str, **least_ms: float) -> dict[str, Any]:
    group = {name: {"least_ms": value, "median_ms": value} for name, value in least_ms.items()}
    about = {"cpu": cpu, "cores": 2, "gpu": None, "threads": 1, "device": "cpu", "load": 0.1}
    return {**about, "time": moment, "commit": f"c{moment[:4]}", "groups": {"updates": group}}


def test_the_last_record_of_the_same_machine_says_what_became_slower(tmp_path: Path) -> None:
    """This time the machine takes half as long again for everything; only the critic is slower than that."""
    save(record_of("this", "2025-01-01T10:00", critic=9.0, policy=9.0), tmp_path)
    save(record_of("this", "2026-01-01T10:00", critic=1.0, policy=4.0, act=2.0, sample=2.0), tmp_path)
    save(record_of("other", "2026-02-01T10:00", critic=1.0, policy=1.0), tmp_path)
    new = record_of("this", "2026-03-01T10:00", critic=2.0, policy=6.1, act=3.0, sample=2.9, new=1.0)
    old = last_record(tmp_path, new)
    assert old is not None and old["commit"] == "c2026"
    text = StringIO()
    show(new, old, Console(file=text, width=120))
    said = " ".join(text.getvalue().split())
    assert "Slower than c2026" in said and "×1.51 all of: updates" in said
    assert "×2.00 updates: critic (its group ×1.51)" in said and said.count("updates:") == 1
    assert last_record(tmp_path, record_of("third", "2026-03-01T10:00")) is None
