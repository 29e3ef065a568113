"""Damaged stores, bundles, runs and sessions: one clear `serfn` error or a sound result, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serfn.core.errors import SerfnError
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import StoreWriter
from serfn.policies.bundle import load_bundle
from serfn.reports.doctor import examine
from serfn.reports.experience import load_session
from serfn.reports.run_record import load_run
from serfn.robot.clock import ManualClock
from serfn.runs.evaluate import load_actor
from serfn.runs.folder import stored_config
from serfn.runs.train import train
from serfn.sessions.config import LearningConfig, RobotRunConfig
from serfn.sessions.folder import RobotFolder, create
from serfn.sessions.robots import make_robot
from serfn.sessions.run import run_robot
from serfn.training.config import TrainConfig
from tests.fuzz.accidents import accidents, damage
from tests.toy import ENV_ID, demos, make_config, toy_environment

__all__ = ["demos", "make_config", "toy_environment"]

pytestmark = pytest.mark.slow
USUAL = 25


@pytest.fixture
def originals(make_config: Callable[..., TrainConfig], demos: Path, tmp_path: Path) -> dict[str, Path]:
    """Make one of everything that is loaded, by the code that writes it."""
    run, session = tmp_path / "run", tmp_path / "session"
    train(make_config(), run, films=False)
    name, options, clock = f"gymnasium:{ENV_ID}", {"simulated": True}, ManualClock()
    config = RobotRunConfig(
        robot=name,
        robot_options=options,
        reset="none",
        real_time=False,
        episode_s=0.5,
        learning=LearningConfig(place="none"),
    )
    create(session, run, config)
    run_robot(make_robot(name, options, clock), run, session, episodes=2, clock=clock)
    return {
        "run": run,
        "checkpoint": next(path for path in sorted((run / "checkpoints").iterdir()) if path.is_dir()),
        "bundle": run / "policy",
        "session": session,
        "experience": session / "experience" / "robot",
    }


def look_at_run(path: Path) -> None:
    stored_config(path)
    load_run(path)
    examine(path)
    load_actor(path)[0].act(np.zeros((1, 2), np.float32))


def look_at_checkpoint(path: Path) -> None:
    load_actor(path)[0].act(np.zeros((1, 2), np.float32))


def look_at_bundle(path: Path) -> None:
    bundle = load_bundle(path)
    assert bundle.spec.action.dim == 2


def look_at_session(path: Path) -> None:
    folder = RobotFolder(path)
    folder.task()
    folder.robot_config()
    load_session(path)
    examine(path)


def look_at_store(path: Path) -> None:
    """Read what is there, and let a new writer recover it."""
    store = EpisodeStore(path)
    for number in store.numbers:
        episode = store.episode(number)
        assert np.isfinite(episode.observations).all() and np.isfinite(episode.actions).all()
    with StoreWriter(path):
        pass


LOOKS: dict[str, Callable[[Path], None]] = {
    "run": look_at_run,
    "checkpoint": look_at_checkpoint,
    "bundle": look_at_bundle,
    "session": look_at_session,
    "experience": look_at_store,
}


def test_accidents_are_errors_that_say_so(originals: dict[str, Path], tmp_path: Path) -> None:
    for name, original in originals.items():
        LOOKS[name](original)
        for seed in range(accidents(USUAL)):
            copy = tmp_path / "copy" / name
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(original, copy)
            what = damage(copy, np.random.default_rng(seed))
            try:
                LOOKS[name](copy)
            except SerfnError as error:
                assert str(error) and "\n" not in str(error)
            except BaseException as error:
                error.add_note(f"{name}, seed {seed}: {what}")
                raise
