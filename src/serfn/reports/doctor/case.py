"""What a run or a session on a robot is known by, read from its files; no network is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serfn.core.errors import DataError, SerfnError
from serfn.data.datasets import load_demonstrations
from serfn.data.store.store import is_store
from serfn.reports.experience import RobotEpisode, SessionRecord, is_session, load_episodes, load_session
from serfn.reports.run_record import RunRecord, load_run


@dataclass(frozen=True)
class Case:
    """What a run or a session is known by.

    Attributes:
        run: The learner's files; None where nothing was trained here.
        session: The robot's files; None for a training run.
        episodes: Episodes of the robots that were not set aside.
        control_hz: Control steps per second.
        limit_steps: Time limit of an episode.
        demonstrated: Control steps of each demonstration; empty where they cannot be read.
        demonstrated_rewards: All their rewards.
        demonstrated_spread: Like `RobotEpisode.spread`, of the demonstrations; None where unknown.
    """

    run: RunRecord | None
    session: SessionRecord | None
    episodes: tuple[RobotEpisode, ...] = ()
    control_hz: float | None = None
    limit_steps: int | None = None
    demonstrated: tuple[int, ...] = ()
    demonstrated_rewards: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0))
    demonstrated_spread: float | None = None

    def option(self, path: str) -> Any:
        """Return an option of training such as `rewards.scale`; None where it is not known."""
        value: Any = {} if self.run is None else self.run.config
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def latest(self, name: str, rows: int = 5) -> list[float]:
        """Return the last values of a metric of the stages that move the policy."""
        if self.run is None:
            return []
        values = [self.run.series(stage, name)[1] for stage in ("offline", "online")]
        return (values[1] or values[0])[-rows:]


def read_case(folder: Path) -> Case:
    """Read the files of a run or a session.

    Raises:
        DataError: See `examine`.
    """
    session = load_session(folder) if is_session(folder) else None
    if session is None and not (folder / "config.json").is_file():
        raise DataError(
            f"'{folder}' is neither a training run nor a session on a robot; give the folder of --out"
        )
    run = load_run(folder) if (folder / "config.json").is_file() else None
    if session is not None:
        robots = [episode for episodes in session.episodes.values() for episode in episodes]
        case = Case(
            run, session, control_hz=session.task.control_hz, limit_steps=session.task.max_episode_steps
        )
    else:
        store = folder / "experience"
        robots = list(load_episodes(store)) if is_store(store) else []
        case = Case(run, session)
    kept = tuple(episode for episode in robots if not episode.discard)
    return _with_demonstrations(dataclasses.replace(case, episodes=kept), folder)


def _with_demonstrations(case: Case, folder: Path) -> Case:
    given = case.option("demos")
    path = Path(given) if given else folder / "demonstrations.npz"
    try:
        found = load_demonstrations(path, skip_bad=True)
    except SerfnError:
        # Runs may lie elsewhere than their data; what needs them is not looked at then.
        return case
    ranges = [np.ptp(episode.actions, axis=0) for episode in found.episodes]
    extent = np.maximum(np.max(ranges, axis=0), 1e-9)
    return dataclasses.replace(
        case,
        control_hz=case.control_hz or found.control_hz,
        demonstrated=tuple(episode.length for episode in found.episodes),
        demonstrated_rewards=np.concatenate([episode.rewards for episode in found.episodes]),
        demonstrated_spread=float(np.mean([episode.actions.std(0) / extent for episode in found.episodes])),
    )
