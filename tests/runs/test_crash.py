from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

KILLS = 10
HARNESS = Path(__file__).parents[2] / "benchmarks" / "crash_training.py"


def test_a_killed_run_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    # In a process of its own, which loads torch once and forks without threads.
    shared = Path("/dev/shm")
    environment = os.environ | {"TMPDIR": str(shared if os.access(shared, os.W_OK) else tmp_path)}
    done = subprocess.run(
        [sys.executable, str(HARNESS), "--kills", str(KILLS)],
        capture_output=True,
        text=True,
        env={**environment, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{KILLS} kills"), done.stdout
