"""How the command starts: quickly, and with the parts of the working directory."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

from serfn.cli.main import COMMANDS
from serfn.cli.parsing import Group

PROGRAM = "import sys; from serfn.cli.main import main; code = main({words}); print({heavy}); sys.exit(code)"
HEAVY = "sorted({'numpy', 'torch', 'gymnasium', 'mujoco'} & sys.modules.keys())"


def test_help_imports_nothing_heavy() -> None:
    program = PROGRAM.format(words=["--help"], heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_parts_of_the_working_directory_are_found(tmp_path: Path) -> None:
    (tmp_path / "bench_arm.py").write_text(
        "from serfn.robot.adapters.fake import FakeRobot\n\nclass Arm(FakeRobot):\n    pass\n"
    )
    program = "import sys; from serfn.cli.entry import entry_point; sys.path.remove(''); entry_point()"
    words = ["robot", "limits", "--robot", "bench_arm:Arm"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "joint" in done.stdout


PRINTING = """
import ctypes
import os
from serfn.cli.progress import foreign_output_to_stderr
print("before")
with foreign_output_to_stderr():
    print("a simulator's Python")
    os.write(1, b"a simulator's C\\n")
    ctypes.CDLL(None).puts(b"what C keeps in its buffer")
print("after")
"""


def test_only_the_commands_own_words_reach_standard_output() -> None:
    done = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True, check=True)
    assert done.stdout == "before\nafter\n"
    assert done.stderr == "a simulator's Python\na simulator's C\nwhat C keeps in its buffer\n"


def test_every_command_with_json_keeps_standard_output_to_itself() -> None:
    groups = [command.commands for command in COMMANDS.values() if isinstance(command, Group)]
    functions = [command for command in COMMANDS.values() if not isinstance(command, Group)]
    functions += [command for group in groups for command in group.values()]
    with_json = [command for command in functions if "as_json" in inspect.signature(command).parameters]
    assert {command.__name__ for command in with_json} >= {"evaluate", "doctor"}
    for command in with_json:
        assert "foreign_output_to_stderr() if as_json" in inspect.getsource(command), command
