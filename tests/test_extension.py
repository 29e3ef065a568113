"""The example of a package is installed as anybody's is, and its parts go through everything."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WAIT_S = 600
SMALL = (
    "--set=demo_episodes=4", "--set=imitation.steps=60", "--set=imitation.batch_size=16",
    "--set=critic_warmup.steps=10", "--set=offline.steps=10", "--set=online.episodes=8",
    "--set=online.updates_per_round=4", "--set=loop.checkpoint_every=5", "--set=loop.report_every=5",
    "--set=evaluation.episodes=4",
    "--set=evaluation.interim_episodes=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process sees in which serfn and the example are installed."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("installed")
    # Building leaves traces beside the sources.
    source = shutil.copytree(ROOT / "examples" / "extension", folder / "source")
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    command = [sys.executable, "-m", "pip", *words, str(folder / "site"), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=WAIT_S)
    paths = [str(folder / "site"), str(ROOT / "src")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def serfn(environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """Start `serfn` in a process of its own."""

    def start(*words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from serfn.cli.entry import entry_point; entry_point()"]
        return subprocess.Popen(
            [*command, *map(str, words)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def finished(process: subprocess.Popen[str], status: int = 0) -> str:
    said, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == status, said
    return said


def test_it_trains_is_killed_and_resumed_and_runs_a_robot(
    serfn: Callable[..., subprocess.Popen[str]], environment: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killed = serfn("train", "--task", "mylab-reach", "--budget", "smoke", "--out", run, *SMALL)
    until_s = time.monotonic() + WAIT_S
    while not (run / "checkpoints" / "last.json").exists() and time.monotonic() < until_s:
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert "mylab" in (run / "config.json").read_text(encoding="utf-8")
    finished(serfn("train", "--resume", run))
    program = (
        "import sys, numpy as np\n"
        "from serfn import Serfn\n"
        "from serfn.policies.bundle import load_bundle\n"
        "learner = Serfn.load(sys.argv[1])\n"
        "learner.save(sys.argv[2])\n"
        "policy = load_bundle(sys.argv[2]).policy\n"
        "assert type(policy).__module__ == 'mylab.policy'\n"
        "assert learner.act(np.zeros(2)).shape == (4, 2)\n"
    )
    words = [sys.executable, "-c", program, str(run), str(tmp_path / "policy")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    robot = ("--robot", "mylab-arm", "--reset", "none", "--episodes", "2")
    parts = (
        "--reward",
        "mylab-at-zero",
        "--workspace=mylab.robot:in_front",
        "--set=learning.updates_per_episode=2",
    )
    session = tmp_path / "session"
    said = finished(serfn("robot", "run", *robot, *parts, "--policy", run, "--out", session))
    assert "2 episodes" in said
    assert (session / "experience" / "robot").is_dir()
