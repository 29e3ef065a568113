"""What is handed over while an episode is being recorded: its start, executed chunks, its end."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serfn.core.errors import DataError
from serfn.data.episode import EPISODE_COLUMNS, Episode, camera_images, finite_column
from serfn.data.store.png import MODES

IMAGE = "image:"
"""Prefix of the arrays of cameras, before the camera's name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeStart:
    """What is known when an episode begins.

    Args:
        observation: `[obs]`, the first one.
        timestamp_s: Of the first observation; None if the episode has no timestamps.
        images: `[height, width, channels]` uint8 for each camera, with 1 to 4 channels.
        seed: Seed of the reset, if known.
        policy_version: Number of the policy that acts; 0 for demonstrations.
        task: Instruction or name of the task; may be empty.

    Raises:
        DataError: A value is not finite, or an image is not uint8.
    """

    observation: np.ndarray
    timestamp_s: float | None = None
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: int | None = None
    policy_version: int = 0
    task: str = ""

    def __post_init__(self) -> None:
        rows = finite_column("observations", np.asarray(self.observation)[None], np.float32, 2)
        object.__setattr__(self, "observation", rows[0])
        if self.timestamp_s is not None:
            finite_column("timestamps_s", [self.timestamp_s], np.float64, 1)
        images = {
            name: camera_images(name, np.asarray(image)[None])[0] for name, image in self.images.items()
        }
        for name, image in images.items():
            if image.shape[2] not in MODES:
                raise DataError(f"images of '{name}' have {image.shape[2]} channels; the store keeps 1 to 4")
        object.__setattr__(self, "images", images)


@dataclass(frozen=True, kw_only=True, eq=False)
class ExecutedChunk:
    """n control steps as they were executed, at least one; see `Episode` for the meaning of the arrays.

    Args:
        observations: `[n, obs]`, **after** each step.
        actions: `[n, action]`.
        rewards: `[n]`.
        chunk_starts: `[n]` bool; None means that the first step starts a chunk and the others do not.
        proposed_actions: `[n, action]`.
        interventions: `[n]` bool.
        timestamps_s: `[n]`, of the observations after each step.
        images: `[n, height, width, channels]` uint8 for each camera, after each step.

    Raises:
        DataError: Shapes disagree, a value is not finite, time runs backwards, or there are no steps.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    chunk_starts: np.ndarray | None = None
    proposed_actions: np.ndarray | None = None
    interventions: np.ndarray | None = None
    timestamps_s: np.ndarray | None = None
    images: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.chunk_starts is None:
            object.__setattr__(self, "chunk_starts", np.arange(len(self.actions)) == 0)
        for name, column in EPISODE_COLUMNS.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, finite_column(name, value, column.dtype, column.ndim))
        images = {name: camera_images(name, value) for name, value in self.images.items()}
        object.__setattr__(self, "images", images)
        if self.length == 0:
            raise DataError("a chunk needs at least one executed step, got 0 actions")
        for name, array in self.arrays.items():
            if len(array) != self.length:
                raise DataError(f"{name} of a chunk have {len(array)} rows for {self.length} actions")
        if self.proposed_actions is not None and self.proposed_actions.shape != self.actions.shape:
            raise DataError(
                f"proposed_actions of a chunk are {self.proposed_actions.shape}, actions {self.actions.shape}"
            )
        if self.timestamps_s is not None and (np.diff(self.timestamps_s) < 0).any():
            raise DataError("timestamps_s of a chunk run backwards; use a monotonic clock")

    @property
    def length(self) -> int:
        """Number of steps n."""
        return len(self.actions)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, those of cameras as `image:<name>`."""
        columns = {name: getattr(self, name) for name in EPISODE_COLUMNS}
        present = {name: array for name, array in columns.items() if array is not None}
        return present | {IMAGE + name: array for name, array in self.images.items()}


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an episode ended; see `Episode` for the meaning.

    Attributes:
        terminated: The task ended by itself.
        truncated: The recording ended from outside.
        success: Whether the task was solved.
        success_source: Who said it.
        metrics: Numbers of the task.
        last_reward: Replaces the reward of the last step, for rewards that are known only after the end.
        interrupted: The recording was cut by a crash.

    Raises:
        DataError: No end is set, or the values contradict each other.
    """

    terminated: bool
    truncated: bool
    success: bool | None = None
    success_source: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    last_reward: float | None = None
    interrupted: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", {str(name): float(x) for name, x in self.metrics.items()})
        if self.last_reward is not None:
            finite_column("rewards", [self.last_reward], np.float32, 1)
        row = np.zeros((2, 1), np.float32)
        # An episode of one step with this ending must be possible: later, the data can no longer be refused.
        self.episode({"observations": row, "actions": row[1:], "rewards": row[1:, 0], "chunk_starts": [True]})

    def episode(self, columns: Mapping[str, Any], **info: Any) -> Episode:
        """Return the episode of `columns` that ended like this."""
        rewards = np.array(columns["rewards"], np.float32)
        if self.last_reward is not None:
            rewards[-1] = self.last_reward
        return Episode(
            **{**columns, "rewards": rewards},
            terminated=self.terminated,
            truncated=self.truncated,
            success=self.success,
            success_source=self.success_source,
            metrics=self.metrics,
            interrupted=self.interrupted,
            **info,
        )


INTERRUPTED = Ending(terminated=False, truncated=True, interrupted=True)
"""How an episode ended of which nobody wrote the end."""


def start_of(episode: Episode) -> EpisodeStart:
    """Return what was known when `episode` began."""
    times = episode.timestamps_s
    return EpisodeStart(
        observation=episode.observations[0],
        timestamp_s=None if times is None else float(times[0]),
        images={name: stack[0] for name, stack in episode.images.items()},
        seed=episode.seed,
        policy_version=episode.policy_version,
        task=episode.task,
    )


def chunks_of(episode: Episode) -> list[ExecutedChunk]:
    """Return the chunks of `episode` as a recorder would hand them over, cut where chunks were decided."""
    bounds = np.unique(np.concatenate([[0], np.flatnonzero(episode.chunk_starts), [episode.length]]))
    chunks = []
    for first, last in itertools.pairwise(bounds):
        arrays = {}
        for name, column in EPISODE_COLUMNS.items():
            rows = getattr(episode, name)
            arrays[name] = None if rows is None else rows[first + column.extra : last + column.extra]
        images = {name: stack[first + 1 : last + 1] for name, stack in episode.images.items()}
        chunks.append(ExecutedChunk(**arrays, images=images))
    return chunks


def check_channels(images: Mapping[str, np.ndarray]) -> None:
    """Raise `DataError` if the store cannot keep images `[rows, height, width, channels]`."""
    for name, stack in images.items():
        if stack.shape[3] not in MODES:
            raise DataError(f"images of '{name}' have {stack.shape[3]} channels; the store keeps 1 to 4")
