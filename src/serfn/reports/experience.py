"""What happened on a robot: the episodes of a session or a run, read back for report and doctor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serfn.core.errors import DataError
from serfn.core.spec import TaskSpec
from serfn.data.episode import Episode
from serfn.data.store.store import EpisodeStore, EpisodeSummary, is_store
from serfn.reports.statistics import wilson_interval

_MOVED = 0.01
"""Share of a dimension's range by which an executed action differs from the proposed one to count."""


@dataclass(frozen=True)
class RobotEpisode:
    """One episode of a robot, in numbers.

    Attributes:
        number: Its number in the store.
        minutes: Robot time up to its end, in this store.
        steps: Control steps.
        success: Whether the task was solved; None if nobody said.
        success_source: Who said it.
        corrected: Whether its label was changed after its end.
        discard: Whether it was set aside.
        interrupted: Whether a crash cut it.
        policy_version: Number of the policy that acted.
        return_: Undiscounted sum of rewards.
        by_person: Share of the steps in which a person acted.
        changed: Share of the other steps whose executed action is not the proposed one (safety, limits).
        spread: Mean over dimensions of the standard deviation of actions, as a share of the range.
    """

    number: int
    minutes: float
    steps: int
    success: bool | None
    success_source: str | None
    corrected: bool
    discard: bool
    interrupted: bool
    policy_version: int
    return_: float
    by_person: float
    changed: float
    spread: float


@dataclass(frozen=True)
class SessionRecord:
    """The files of a session's folder that do not belong to the learner.

    Attributes:
        config: The session's configuration.
        task: Dimensions, bounds and rate.
        episodes: Episodes by the name of the robot.
        promotions: What the gate of each robot said, one mapping per version.
        serving: Which versions act on each robot, were promoted and refused.
        use: What each robot used of the budget.
    """

    config: Mapping[str, Any]
    task: TaskSpec
    episodes: Mapping[str, tuple[RobotEpisode, ...]]
    promotions: Mapping[str, tuple[Mapping[str, Any], ...]]
    serving: Mapping[str, Mapping[str, Any]]
    use: Mapping[str, Mapping[str, Any]]


def is_session(folder: Path) -> bool:
    """Return whether a folder holds a session on a robot."""
    return (folder / "robot.json").is_file() and (folder / "task.json").is_file()


def load_session(folder: Path) -> SessionRecord:
    """Read a session's folder, finished or at work.

    Raises:
        DataError: It is none, or a file is damaged.
    """
    if not is_session(folder):
        raise DataError(f"'{folder}' is no session on a robot; give the folder of serfn robot run --out")
    stores = sorted(path for path in (folder / "experience").glob("*") if is_store(path))
    robots = folder / "robots"
    return SessionRecord(
        config=_document(folder / "robot.json"),
        task=TaskSpec.from_dict(_document(folder / "task.json")),
        episodes={store.name: load_episodes(store) for store in stores},
        promotions={
            path.parent.name: tuple(_lines(path)) for path in sorted(robots.glob("*/promotions.jsonl"))
        },
        serving={path.parent.name: _document(path) for path in sorted(robots.glob("*/serving.json"))},
        use={path.parent.name: _document(path) for path in sorted(robots.glob("*/interaction.json"))},
    )


def session_rows(record: SessionRecord, robot: str) -> list[tuple[str, str]]:
    """Return what one robot of a session came to, as names and words.

    Success is given for the first and the last third of the labelled episodes, with Wilson's 95 % interval.
    """
    kept = [episode for episode in record.episodes[robot] if not episode.discard]
    told = [episode for episode in kept if episode.success is not None]
    third = max(1, len(told) // 3)
    judged = [row for row in record.promotions.get(robot, ()) if int(row.get("version", 1)) > 1]
    promoted = sum(bool(row.get("promoted")) for row in judged)
    use = record.use.get(robot, {})
    versions = sorted({episode.policy_version for episode in kept})
    return [
        ("robot minutes", f"{kept[-1].minutes:.1f}" if kept else "0"),
        ("episodes", f"{len(kept)}, {len(record.episodes[robot]) - len(kept)} discarded"),
        ("success, first third", _success(told[:third])),
        ("success, last third", _success(told[-third:])),
        ("labelled by people", str(sum(episode.success_source == "operator" for episode in told))),
        ("take-overs, stops", f"{use.get('interventions', 0)}, {use.get('stops', 0)}"),
        ("policies that acted", f"{versions[0]} to {versions[-1]}" if versions else "none"),
        ("promoted", f"{promoted} of {len(judged)} published"),
    ]


def _success(episodes: Sequence[RobotEpisode]) -> str:
    if not episodes:
        return "nobody said"
    solved = sum(bool(episode.success) for episode in episodes)
    interval = wilson_interval(solved, len(episodes))
    return f"{solved} of {len(episodes)} ({interval.low:.0%} to {interval.high:.0%})"


def load_episodes(path: Path) -> tuple[RobotEpisode, ...]:
    """Return the episodes of one store, oldest first.

    Raises:
        DataError: There is no store, or an episode is damaged.
    """
    store, minutes, rows = EpisodeStore(path), 0.0, []
    for number in store.numbers:
        episode = store.episode(number, images=False)
        minutes += episode.length / store.task.control_hz / 60
        rows.append(_in_numbers(store.summary(number), episode, store, minutes))
    return tuple(rows)


def _in_numbers(row: EpisodeSummary, episode: Episode, store: EpisodeStore, minutes: float) -> RobotEpisode:
    low, high = np.array(store.task.action.low), np.array(store.task.action.high)
    person = np.zeros(episode.length, np.bool_) if episode.interventions is None else episode.interventions
    changed = 0.0
    if episode.proposed_actions is not None and not person.all():
        apart = np.abs(episode.actions - episode.proposed_actions) / (high - low)
        changed = float((apart[~person] > _MOVED).any(1).mean())
    return RobotEpisode(
        number=row.number,
        minutes=minutes,
        steps=episode.length,
        success=row.success,
        success_source=row.success_source,
        corrected=store.labels(row.number).success is not None,
        discard=row.discard,
        interrupted=row.interrupted,
        policy_version=row.policy_version,
        return_=episode.return_,
        by_person=float(person.mean()),
        changed=changed,
        spread=float((episode.actions.std(0) / (high - low)).mean()),
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' is damaged: {error}; restore it from a copy") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise DataError(f"'{path}' is damaged: {error}; remove the line") from error
