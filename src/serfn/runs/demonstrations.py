"""Demonstrations as a run's configuration asks for them: at the rate of the task, compared with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from serfn.core.agreement import compare, settle
from serfn.core.errors import DataError
from serfn.core.files import write_atomically
from serfn.core.sides import Finding, Side
from serfn.core.spec import TaskSpec
from serfn.data.datasets import load_demonstrations
from serfn.data.demonstrations import Demonstrations
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
