"""Parts of one's own that do not work are refused by the command in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serfn.cli.main import BAD_INPUT, main
from serfn.core.registry import installed
from serfn.policies.bundle import save_bundle
from serfn.runs.evaluate import load_actor
from serfn.tasks.registry import tasks


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Install a package that announces parts of one kind, as far as Python's metadata go."""

    def announce(package: str, kind: str = "policies", **parts: str) -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {place}" for name, place in parts.items())
        (folder / "entry_points.txt").write_text(f"[serfn.{kind}]\n{lines}\n")
        installed.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    yield announce
    installed.cache_clear()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("broken", "entry point 'broken' (serfn.tasks) of package 'alpha' cannot be imported"),
        ("wrong", "is not one of the tasks"),
        ("cube", "two tasks are called 'cube'"),
    ],
)
def test_tasks_that_do_not_work_are_one_line(
    name: str,
    expected: str,
    install: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install("alpha", "tasks", broken="nowhere.task:TASK", wrong="pathlib:Path", cube="decimal:Decimal")
    # What this process has found before it keeps.
    monkeypatch.setattr(tasks, "_found", {})
    assert main(["collect", "--task", name, "--episodes", "1"]) == BAD_INPUT
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1


def test_a_bundle_whose_policy_is_not_installed_is_one_line(
    robot_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "policy"
    actor, _ = load_actor(robot_run)
    save_bundle(bundle, actor.policy, actor.task)
    config = json.loads((bundle / "config.json").read_text())
    config["type"] = config["policy"]["type"] = "somewhere.else:Config"
    (bundle / "config.json").write_text(json.dumps(config))
    assert main(["evaluate", str(bundle)]) == BAD_INPUT
    said = capsys.readouterr().err
    assert "cannot import 'somewhere.else'" in said and "install its package" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("broken", "entry point 'broken' (serfn.policies) of package 'alpha' cannot be imported"),
        ("wrong", "is no subclass of PolicyConfig"),
        ("twice", "two policies are called 'twice'"),
    ],
)
def test_policies_that_do_not_work_are_one_line(
    name: str,
    expected: str,
    install: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    install("alpha", broken="nowhere.policy:Config", wrong="pathlib:Path", twice="pathlib:Path")
    install("beta", twice="decimal:Decimal")
    words = ["train", "--task", "diagnostic", "--out", str(tmp_path / "run"), "--set", f"policy.type={name}"]
    assert main(words) == BAD_INPUT
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1
