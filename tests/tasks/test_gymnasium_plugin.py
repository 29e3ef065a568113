"""A program that knows only Gymnasium makes our environments."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from serfn.core.registry import attribute
from serfn.tasks.registry import task, tasks

ROOT = Path(__file__).parents[2]

PROGRAM = """
import site, sys
site.addsitedir({folder!r})
assert not {{"gymnasium", "numpy", "serfn.tasks.registry"}} & set(sys.modules)
import gymnasium
for name in {ids!r}:
    gymnasium.spec(name)
env = gymnasium.make("serfn/PointObstacle-v0")
env.reset(seed=0)
env.step(env.action_space.sample())
"""


def test_gymnasium_makes_our_tasks_without_importing_serfn(tmp_path: Path) -> None:
    (tmp_path / "serfn.pth").write_text((ROOT / "src" / "serfn.pth").read_text(encoding="utf-8"))
    program = PROGRAM.format(folder=str(tmp_path), ids=[task(name).env_id for name in tasks.names()])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_entry_point_exists_and_the_wheel_has_the_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    place = project["project"]["entry-points"]["gymnasium.envs"]["serfn"]
    assert callable(attribute(place, "the entry point"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"src/serfn.pth": "serfn.pth"}
