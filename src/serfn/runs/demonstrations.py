"""Demonstrations as a run's configuration asks for them: at the rate of the task, compared with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from serfn.core.agreement import compare, settle
from serfn.core.errors import DataError
from serfn.core.files import write_atomically
from serfn.core.rewards import RewardKind
from serfn.core.sides import Finding, Side
from serfn.core.spec import TaskSpec
from serfn.data.datasets import load_demonstrations
from serfn.data.demonstrations import Demonstrations
from serfn.data.episode import Episode
from serfn.data.resample import resample
from serfn.training.config import TrainConfig

FINDINGS = "findings.json"
"""File of a run folder: what did not agree, and was said before and while it ran."""


def read_demonstrations(
    config: TrainConfig, path: Path, task: TaskSpec, *, rate_known: bool = True
) -> Demonstrations:
    """Read the demonstrations of a run, resampled to the rate of the task if the configuration says so.

    Args:
        config: Configuration of the run.
        path: Data set of any format.
        task: Task that they must fit.
        rate_known: Whether the task's rate is more than a default; otherwise nothing is resampled.

    Raises:
        DataError: They cannot be read, do not fit, or are to be resampled and do not say their rate.
    """
    found = load_demonstrations(path, task.action, obs_dim=task.observation.dim, skip_bad=config.skip_bad)
    if config.resample is None or found.control_hz == task.control_hz:
        return found
    if found.control_hz is None or not rate_known:
        side = f"'{path}'" if found.control_hz is None else f"environment '{task.id}'"
        raise DataError(
            f"{side} does not say how many steps a second has, and nothing can be resampled; give the rate: "
            + ("serfn data convert IN OUT --hz RATE" if found.control_hz is None else "--set control_hz=RATE")
        )
    episodes = tuple(
        resample(episode, found.control_hz, task.control_hz, config.resample) for episode in found.episodes
    )
    note = (
        f"resampled from {found.control_hz:g} to {task.control_hz:g} steps per second, actions as "
        f"{config.resample}"
    )
    return dataclasses.replace(
        found, episodes=episodes, notes=(*found.notes, note), control_hz=task.control_hz
    )


def compare_with_task(config: TrainConfig, given: Demonstrations, task: Side) -> tuple[Finding, ...]:
    """Return what of the demonstrations of a run does not agree with its environment.

    Raises:
        ConfigError: Something makes training on them pointless.
    """
    side = given.side(f"the demonstrations '{config.demos}'")
    return settle(compare(dataclasses.replace(side, chunk_size=config.chunk_size), task, "train"))


class RewardsMet:
    """Compares the rewards that a run or session meets with those of its demonstrations, and says it once.

    Args:
        folder: Folder of the run or session, for its report.
        demonstrations: Demonstrations with the rewards of the task.
        config: Configuration, for what an ending is worth.
        met: What to call where the episodes come from.
        note: Takes one sentence for the user.
    """

    def __init__(
        self,
        folder: Path,
        demonstrations: Sequence[Episode],
        config: TrainConfig,
        met: str,
        note: Callable[[str], None],
    ) -> None:
        self._folder, self._met, self._note = folder, met, note
        self._given = RewardKind.of(episode.rewards for episode in demonstrations)
        self._labels_count = config.rewards.absorbing_success != 0
        self._told: set[str] = set()

    def look(self, episodes: Sequence[Episode]) -> None:
        """Compare the rewards of `episodes`; those that were never paid say nothing but for successes."""
        if not episodes:
            return
        kind = RewardKind.of(episode.rewards for episode in episodes)
        if kind.paid and "rewards" not in self._told:
            self._told.add("rewards")
            given = Side(name="the demonstrations", rewards=self._given)
            self._say(compare(given, Side(name=self._met, rewards=kind), "train"))
        worthless = [episode for episode in episodes if episode.success and not episode.rewards.any()]
        if worthless and self._given.paid and not self._labels_count and "labels" not in self._told:
            self._told.add("labels")
            text = (
                f"rewards: {len(worthless)} of {len(episodes)} episodes of {self._met} are successes whose "
                f"rewards are all 0, those of the demonstrations are {self._given}; nothing tells the critic "
                "of these successes: train with --set rewards.absorbing_success=1, or have steps paid (on a "
                "robot by a judge, --reward)"
            )
            self._say([Finding("rewards", text)])

    def _say(self, findings: Sequence[Finding]) -> None:
        write_findings(self._folder, findings)
        for finding in findings:
            self._note(finding.text)


def write_findings(folder: Path, findings: Sequence[Finding]) -> None:
    """Keep findings in a run folder, for its report; those of an earlier process stay."""
    kept = [*read_findings(folder), *(finding.to_dict() for finding in findings)]
    if kept:
        unique = {str(finding["text"]): finding for finding in kept}
        write_atomically(folder / FINDINGS, json.dumps(list(unique.values()), indent=1))


def read_findings(folder: Path) -> list[dict[str, object]]:
    """Return what `write_findings` kept in a run folder."""
    path = folder / FINDINGS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
