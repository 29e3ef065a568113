from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import serfn
from serfn.cli.main import main
from serfn.core.extras import PACKAGES, Extra, MissingExtraError, extra, extra_of, installed
from serfn.core.spec import ActionSpec
from serfn.data.episode import EpisodeBuilder
from serfn.data.formats.images import decode_image
from serfn.data.formats.npz import save_npz
from serfn.runs.log import RunLog

PACKAGE = Path(serfn.__file__).parent
STUDY = 'title = "one"\nmethods = ["ours"]\nseeds = [0]\n[tasks.diagnostic]\nbudget = "smoke"\n'


@pytest.fixture
def blocked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Extra:
    """Behave as if the packages of an extra were not installed."""
    name: Extra = request.param
    for package in PACKAGES[name]:
        monkeypatch.setitem(sys.modules, package, None)
    return name


@pytest.mark.parametrize(
    ("blocked", "command"),
    [
        ("formats", ["data", "convert", "in.hdf5", "out.npz"]),
        ("orca", ["robot", "check", "--robot", "orca"]),
        ("ray", ["study", "study.toml", "--ray", "local"]),
        ("teleop", ["robot", "record", "--robot", "fake", "--teleop", "spacemouse", "--out", "demos"]),
        ("robotics", ["train", "--env", "gymnasium_robotics:AdroitHandDoor-v1", "--demos", "demos.npz"]),
    ],
    indirect=["blocked"],
)
def test_a_missing_extra_is_one_line_that_names_it(
    blocked: Extra,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text(STUDY)
    Path("in.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    builder = EpisodeBuilder(1, 1, seed=0)
    builder.append(np.zeros(1, np.float32), np.zeros(1, np.float32), 0.0, chunk_start=True)
    episode = builder.finish(np.zeros(1, np.float32), terminated=True, truncated=False, success=True)
    save_npz(Path("demos.npz"), [episode], ActionSpec((-1.0,), (1.0,)))
    assert main(command) == 2
    check_message(capsys.readouterr().err, blocked)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("sim", ["collect", "--task", "cube", "--episodes", "1", "--out", "cube.npz"]),
        ("sim", ["robot", "check", "--robot", "simulated:cube"]),
        ("report", ["report", "."]),
        ("teacher", ["teacher"]),
    ],
)
def test_modules_that_start_with_a_missing_extra_say_so_too(
    name: Extra, command: list[str], tmp_path: Path
) -> None:
    """In a process of its own, as what is imported once stays imported."""
    blocked = "; ".join(f"sys.modules[{package!r}] = None" for package in PACKAGES[name])
    program = f"import sys; {blocked}; from serfn.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", program, *command]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    check_message(done.stderr, name)


def check_message(stderr: str, name: Extra) -> None:
    assert "Traceback" not in stderr
    message = stderr.splitlines()[-1]
    assert message.startswith("error: ")
    assert message.endswith(f"not installed; pip install 'serfn[{name}]'")


@pytest.mark.parametrize("blocked", ["formats"], indirect=True)
def test_a_missing_extra_is_an_error_of_its_own(blocked: Extra) -> None:
    with pytest.raises(MissingExtraError, match="need 'av', which is not installed"):
        decode_image(b"")


@pytest.mark.parametrize("blocked", ["tensorboard"], indirect=True)
def test_a_run_is_logged_without_tensorboard(blocked: Extra, tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.metrics({"stage": "imitation", "policy/nll": 1.0}, 1)
    log.truncate(log.position(), 1)
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
    assert not (tmp_path / "tensorboard").exists()
    (note,) = log.notes
    assert f"serfn[{blocked}]" in note


def test_a_package_that_is_broken_says_why() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"libnothing.so is missing.*serfn\[formats\]"),
        extra("formats"),
    ):
        raise ImportError("libnothing.so is missing", name="av")


def test_what_is_installed_is_known_without_importing_it() -> None:
    before = set(sys.modules)
    assert installed("report")
    assert not any(extra_of(module) for module in set(sys.modules) - before)


def imports(tree: ast.AST, name: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Packages imported in a module, each with the extra in whose block it stands."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        inner = name
        if isinstance(node, ast.With):
            names = [ast.literal_eval(call.args[0]) for item in node.items if (call := _extra_call(item))]
            inner = names[0] if names else name
        if isinstance(node, ast.Import):
            yield from ((alias.name, name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module, name
        yield from imports(node, inner)


def _extra_call(item: ast.withitem) -> ast.Call | None:
    call = item.context_expr
    if isinstance(call, ast.Call) and ast.unparse(call.func) == "extra":
        return call if isinstance(call.args[0], ast.Constant) else None
    return None


def test_optional_packages_are_imported_only_where_their_extra_is_named() -> None:
    """`tasks.orca_hand` names it once, for all of its modules."""
    found, seen = [], set()
    for path in PACKAGE.rglob("*.py"):
        if "orca_hand" in path.parts:
            continue
        for module, name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            package = "tensorboard" if module.startswith("torch.utils.tensorboard") else module.split(".")[0]
            expected = extra_of(package)
            seen.add(name)
            if name != expected:
                found.append((str(path.relative_to(PACKAGE)), module, name))
    assert not found
    assert seen == {*get_args(Extra), None} - {"sim", "robotics"}


def test_the_extras_are_those_of_the_project() -> None:
    text = (PACKAGE.parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    assert set(extras) - {"all", "dev"} == set(PACKAGES)
    for name, packages in PACKAGES.items():
        listed = {item.split(">")[0].replace("-", "_").replace("pyzmq", "zmq") for item in extras[name]}
        assert listed == set(packages)
        assert f"{name}," in extras["all"][0] or f"{name}]" in extras["all"][0]


def test_a_robots_computer_imports_none_of_them() -> None:
    """Nothing that is needed to run a policy reaches for an optional package."""
    program = (
        "import sys; import serfn.cli.robot, serfn.sessions.session, serfn.runs.evaluate; "
        "print([name for name in sys.modules if name.split('.')[0] in sys.argv[1:]])"
    )
    packages = [package for packages in PACKAGES.values() for package in packages]
    done = subprocess.run(
        [sys.executable, "-c", program, *packages], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
