"""Parts of one's own that do not work are refused by the command in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serfn.cli.main import BAD_INPUT, main
from serfn.core.registry import installed


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Install a package that announces policies, as far as Python's metadata go."""

    def announce(package: str, **parts: str) -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {place}" for name, place in parts.items())
        (folder / "entry_points.txt").write_text(f"[serfn.policies]\n{lines}\n")
        installed.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    yield announce
    installed.cache_clear()


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
