from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serfn.cli.main import main
from serfn.studies.study import StudyResult


def study_file(folder: Path, text: str = "") -> Path:
    path = folder / "small.toml"
    path.write_text(f"title = 'x'\nmethods = ['ours']\nseeds = [0]\n{text}[tasks.cube]\n")
    return path


def test_a_study_ends_by_naming_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def compute(config: Any, folder: Path, **options: Any) -> StudyResult:
        asked.update(options, folder=folder, title=config.title)
        failures = {"runs/a": "no luck"} if options["ray"] else {}
        return StudyResult(folder / "report.html", ("Ours is ahead.",), ("a", "b"), ("c",), failures)

    monkeypatch.setattr("serfn.studies.study.run_study", compute)
    path = study_file(tmp_path)
    assert main(["study", str(path), "--out", str(tmp_path / "out"), "--cores", "3"]) == 0
    output = capsys.readouterr().out
    assert "2 jobs done, 1 done before" in output and "Ours is ahead." in output
    assert output.endswith(f"report: {tmp_path / 'out' / 'report.html'}\n")
    assert (asked["cores"], asked["ray"], asked["folder"]) == (3, None, tmp_path / "out")
    assert main(["study", str(path), "--ray", "auto"]) == 2
    captured = capsys.readouterr()
    assert asked["folder"] == Path("runs/study-small") and "report:" in captured.out
    assert "1 jobs failed (runs/a: no luck)" in captured.err


def test_interruption_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("serfn.studies.study.run_study", interrupt)
    path = study_file(tmp_path)
    assert main(["study", str(path), "--out", str(tmp_path / "out"), "--ray", "local"]) == 130
    expected = f"continue with: serfn study {path} --out {tmp_path / 'out'} --ray local"
    assert expected in capsys.readouterr().err


def test_bad_studies_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for text, words in (
        ("method = ['ours']\n", "did you mean 'methods'"),
        ("reference = 'mpo'\n", "reference 'mpo' is not among methods"),
    ):
        assert main(["study", str(study_file(tmp_path, text)), "--out", str(out)]) == 2
        message = capsys.readouterr().err
        assert words in message and message.count("\n") == 1
    path = tmp_path / "other.toml"
    path.write_text("title = 'x'\nmethods = ['ours', 'mpoo']\nseeds = [0]\n[tasks.cube]\n")
    assert main(["study", str(path), "--out", str(out)]) == 2
    assert "mpoo" in capsys.readouterr().err
    assert main(["study", str(tmp_path / "gone.toml")]) == 2
    assert "gone.toml" in capsys.readouterr().err
    assert not out.exists()


def test_report_knows_studies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    description = {
        "title": "x",
        "reference": "ours",
        "ablations": [],
        "seeds": [0],
        "tasks": {"cube": {"label": "cube", "threshold": None, "circles": []}},
        "methods": {"ours": {"label": "ours", "summary": "", "citation": ""}},
        "runs": [],
    }
    (tmp_path / "study.json").write_text(json.dumps(description))
    assert main(["report", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "nothing to compare yet." in output and f"report: {tmp_path / 'report.html'}" in output
