"""Rules of the house that the import linter cannot see; it checks the layers (`lint-imports`)."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import serfn

PACKAGE = Path(serfn.__file__).parent
ROOT = Path(__file__).parent.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
GLOBAL_STATE = {
    "set_default_dtype",
    "set_default_device",
    "set_num_threads",
    "manual_seed_all",
    "use_deterministic_algorithms",
}


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every call in a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(PACKAGE)}:{line}"


def test_only_the_command_line_prints_and_exits() -> None:
    found = [
        where(path, line)
        for path in MODULES
        if "cli" not in path.relative_to(PACKAGE).parts
        for line, name in calls(path)
        if name in ("print", "input", "exit", "quit", "sys.exit", "os._exit")
    ]
    assert not found


def test_no_global_torch_or_numpy_state() -> None:
    found = [
        where(path, line)
        for path in MODULES
        for line, name in calls(path)
        if (name.startswith("torch.") and name.split(".")[-1] in GLOBAL_STATE)
        or name in ("torch.manual_seed", "torch.cuda.manual_seed", "np.random.seed", "random.seed")
        or re.match(r"(np|numpy)\.random\.(?!default_rng|Generator|SeedSequence)", name)
    ]
    assert not found


def test_no_pickle() -> None:
    found = [
        where(path, line)
        for path in MODULES
        for line, name in calls(path)
        if name in ("torch.save", "torch.load", "pickle.dump", "pickle.load", "pickle.dumps", "pickle.loads")
    ]
    assert not found


def test_input_is_not_checked_by_assert() -> None:
    """Only a None that validation has excluded may be asserted away, for the type checker."""
    found = [
        where(path, node.lineno)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert) and "is not None" not in ast.unparse(node.test)
    ]
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_has_a_purpose_and_a_readable_size(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{path.name} does not say what it is for"
    assert text.count("\n") <= 400, f"{path.name} should be several files"


def test_no_room_is_crowded() -> None:
    rooms = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    assert not {str(room.relative_to(PACKAGE)): count for room, count in rooms.items() if count > 20}


def test_no_catch_all_modules() -> None:
    assert not [path.name for path in MODULES if path.stem in ("utils", "util", "helpers", "common", "misc")]


def test_tests_mirror_the_package() -> None:
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    mirrored = {path.name for path in Path(__file__).parent.iterdir() if path.is_dir()}
    assert packages <= mirrored, f"no tests for {sorted(packages - mirrored)}"


def test_version_and_command_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert serfn.__version__ == project["version"] == version("serfn")
    (command,) = entry_points(group="console_scripts", name="serfn")
    assert callable(command.load())


def test_constraints_pin_every_dependency_and_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)
    pinned = {re.split("==", pin)[0].lower().replace("_", "-") for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    direct = {
        re.split(r"[\[<>=!~ ]", item)[0].lower().replace("_", "-") for group in groups for item in group
    } - {"serfn"}
    assert direct <= pinned
