from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

KILLS = 200
HARNESS = Path(__file__).parents[3] / "benchmarks" / "crash_harness.py"


def test_nothing_that_was_promised_is_lost_to_random_kills(tmp_path: Path) -> None:
    # In a process of its own, which is light to fork; where there is a disk in memory, the child's short life
    # is not spent on waiting for one.
    shared = Path("/dev/shm")
    environment = os.environ | {"TMPDIR": str(shared if os.access(shared, os.W_OK) else tmp_path)}
    done = subprocess.run(
        [sys.executable, str(HARNESS), "--kills", str(KILLS)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert re.match(rf"{KILLS} kills", done.stdout), done.stdout
