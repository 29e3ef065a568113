"""One recorded episode, and a builder that records one step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from serfn.core.errors import DataError
from serfn.core.results import EvaluationResult

_INITIAL_STEPS = 64


class Column(NamedTuple):
    """One array of an episode.

    Attributes:
        dtype: Numbers it is stored as.
        ndim: Dimensions, the rows included.
        extra: Rows beyond the number of steps.
        optional: Whether an episode may lack it.
    """

    dtype: type[np.generic]
    ndim: int
    extra: int = 0
    optional: bool = False


EPISODE_COLUMNS: dict[str, Column] = {
    "observations": Column(np.float32, 2, extra=1),
    "actions": Column(np.float32, 2),
    "proposed_actions": Column(np.float32, 2, optional=True),
    "rewards": Column(np.float32, 1),
    "chunk_starts": Column(np.bool_, 1),
    "interventions": Column(np.bool_, 1, optional=True),
    "timestamps_s": Column(np.float64, 1, extra=1, optional=True),
}
"""Arrays of an episode besides its images. All that stores, sends or converts episodes goes by this table and
by `EPISODE_VALUES`, so that nobody loses a field."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """Observations, actions and rewards of one episode of T control steps, validated on construction.

    Step t observes `observations[t]`, executes `actions[t]`, receives `rewards[t]` and leads to
    `observations[t + 1]`; the terminal observation is therefore always kept.

    Args:
        observations: `[T + 1, obs]`, stored as float32, with the observation after the last step.
        actions: `[T, action]`, stored as float32, physical units, as executed: after the safety layer, and
            the person's where a person acted.
        rewards: `[T]`, stored as float32.
        terminated: The task ended by itself (goal, failure); the value of the terminal observation is 0.
            Takes precedence when both ends are set.
        truncated: The recording ended from outside (time limit, operator); values are bootstrapped.
        success: Whether the task was solved; None if nobody said.
        success_source: Who said it, such as `"environment"` or `"operator"`; None if nobody did.
        seed: Seed of the reset, if known.
        policy_version: Number of the policy that acted; 0 for demonstrations.
        task: Instruction or name of the task; may be empty.
        metrics: Numbers of the task about this episode, such as `rev_per_min`.
        chunk_starts: `[T]` bool, True where a new chunk was decided. All True for recordings without chunks,
            where every step is a decision of its own.
        proposed_actions: `[T, action]`, stored as float32: what the policy asked for, before the safety layer
            and before a person took over; None if it was not recorded.
        interventions: `[T]` bool, True where a person acted; None if it was not recorded.
        timestamps_s: `[T + 1]` float64, seconds since the start by a monotonic clock, of each observation;
            None if they were not recorded.
        images: `[T + 1, height, width, channels]` uint8 for each camera, one image per observation.
        interrupted: The recording was cut by a crash and recovered; such an episode is truncated.

    Raises:
        DataError: Shapes disagree, a value is not finite (the step is named), time runs backwards, images are
            not uint8, there are no steps, or the episode has no end.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    truncated: bool
    success: bool | None = None
    success_source: str | None = None
    seed: int | None = None
    policy_version: int = 0
    task: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    chunk_starts: np.ndarray
    proposed_actions: np.ndarray | None = None
    interventions: np.ndarray | None = None
    timestamps_s: np.ndarray | None = None
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    interrupted: bool = False

    def __post_init__(self) -> None:
        for name, column in EPISODE_COLUMNS.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, finite_column(name, value, column.dtype, column.ndim))
        object.__setattr__(
            self, "images", {name: camera_images(name, self.images[name]) for name in self.images}
        )
        steps = len(self.actions)
        if steps == 0:
            raise DataError("an episode needs at least one step, got 0 actions; drop it")
        expected = {
            name: (getattr(self, name), steps + column.extra) for name, column in EPISODE_COLUMNS.items()
        }
        expected |= {f"images of '{name}'": (images, steps + 1) for name, images in self.images.items()}
        for name, (rows, length) in expected.items():
            if rows is not None and len(rows) != length:
                raise DataError(f"{name} have {len(rows)} rows for {steps} actions; expected {length}")
        self._check_meaning()

    def _check_meaning(self) -> None:
        proposed, times = self.proposed_actions, self.timestamps_s
        if proposed is not None and proposed.shape != self.actions.shape:
            raise DataError(
                f"proposed_actions have {proposed.shape[1]} dimensions, actions {self.actions.shape[1]}; "
                "give both in the dimensions of the robot"
            )
        if times is not None and (backwards := np.diff(times) < 0).any():
            step = int(np.argmax(backwards))
            raise DataError(
                f"timestamps_s run backwards from {times[step]:g} to {times[step + 1]:g} at step {step}; "
                "use a monotonic clock",
                step=step,
            )
        if self.success_source is not None and self.success is None:
            raise DataError(f"success_source is '{self.success_source}' but success is None; give both")
        if not (self.terminated or self.truncated):
            raise DataError("the episode neither terminated nor truncated; set truncated for a cut recording")
        if self.interrupted and (self.terminated or not self.truncated):
            raise DataError("an interrupted episode has no end of its own; set truncated, not terminated")

    @property
    def length(self) -> int:
        """Number of control steps T."""
        return len(self.actions)

    @property
    def return_(self) -> float:
        """Undiscounted sum of rewards."""
        return float(self.rewards.sum(dtype=np.float64))


EPISODE_VALUES = tuple(item.name for item in fields(Episode) if item.name not in {*EPISODE_COLUMNS, "images"})
"""What belongs to a whole episode: text, numbers, flags and `metrics`."""


def episode_values(episode: Episode) -> dict[str, Any]:
    """Return `EPISODE_VALUES` of an episode as values that JSON can write."""
    values = {name: getattr(episode, name) for name in EPISODE_VALUES}
    values["metrics"] = {name: float(value) for name, value in episode.metrics.items()}
    # Numpy's numbers become those of Python.
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}


class EpisodeBuilder:
    """Records one episode step by step into storage that grows geometrically.

    What is optional at a step is given at every step of the episode, or at none.

    Args:
        obs_dim: Size of an observation.
        action_dim: Size of an action.
        seed: Seed of the reset, if known.
        policy_version: Number of the policy that acts.
        task: Instruction or name of the task; may be empty.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        *,
        seed: int | None = None,
        policy_version: int = 0,
        task: str = "",
    ) -> None:
        self._seed = seed
        self._policy_version = policy_version
        self._task = task
        self._steps = 0
        self._columns = {
            "observations": np.empty((_INITIAL_STEPS, obs_dim), np.float32),
            "actions": np.empty((_INITIAL_STEPS, action_dim), np.float32),
            "rewards": np.empty(_INITIAL_STEPS, np.float32),
            "chunk_starts": np.empty(_INITIAL_STEPS, np.bool_),
        }
        self._action_dim = action_dim
        self._images: dict[str, np.ndarray] = {}

    @property
    def length(self) -> int:
        """Number of steps recorded so far."""
        return self._steps

    def append(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        reward: float,
        *,
        chunk_start: bool,
        proposed_action: np.ndarray | None = None,
        intervention: bool | None = None,
        timestamp_s: float | None = None,
        images: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Record one step.

        Args:
            observation: `[obs]`, before the action.
            action: `[action]`, physical units, as executed.
            reward: Reward received for it.
            chunk_start: True if a new chunk was decided at this step.
            proposed_action: `[action]`, what the policy asked for.
            intervention: True if a person acted.
            timestamp_s: Seconds since the start, of the observation.
            images: `[height, width, channels]` uint8 for each camera, taken with the observation.

        Raises:
            DataError: The step has other optional values or cameras than the first one.
        """
        step = self._steps
        values = {
            "observations": observation,
            "actions": action,
            "rewards": reward,
            "chunk_starts": chunk_start,
            "proposed_actions": proposed_action,
            "interventions": intervention,
            "timestamps_s": timestamp_s,
        }
        given = {name: value for name, value in values.items() if value is not None}
        images = images or {}
        if step == 0:
            self._allocate(given, images)
        if given.keys() != self._columns.keys() or images.keys() != self._images.keys():
            raise DataError(
                f"step {step} brings {sorted([*given, *images])}; the first one brought "
                f"{sorted([*self._columns, *self._images])}; record the same at every step"
            )
        for store, new in ((self._columns, given), (self._images, images)):
            for name, value in new.items():
                if step == len(store[name]):
                    store[name] = np.concatenate([store[name], np.empty_like(store[name])])
                store[name][step] = value
        self._steps = step + 1

    def finish(
        self,
        terminal_observation: np.ndarray,
        *,
        terminated: bool,
        truncated: bool,
        success: bool | None = None,
        success_source: str | None = None,
        metrics: Mapping[str, float] | None = None,
        timestamp_s: float | None = None,
        images: Mapping[str, np.ndarray] | None = None,
    ) -> Episode:
        """Return the recorded episode; the builder may be thrown away.

        Args:
            terminal_observation: `[obs]`, after the last action.
            terminated: See `Episode`.
            truncated: See `Episode`.
            success: See `Episode`.
            success_source: See `Episode`.
            metrics: See `Episode`.
            timestamp_s: Of the terminal observation; needed if the steps have one.
            images: Of the terminal observation; needed if the steps have some.

        Raises:
            DataError: See `Episode`.
        """
        last: dict[str, Any] = {"observations": terminal_observation}
        if timestamp_s is not None:
            last["timestamps_s"] = timestamp_s
        columns: dict[str, Any] = {
            name: self._with_last(column, last.get(name)) for name, column in self._columns.items()
        }
        return Episode(
            **columns,
            images={
                name: self._with_last(column, (images or {}).get(name))
                for name, column in self._images.items()
            },
            terminated=terminated,
            truncated=truncated,
            success=success,
            success_source=success_source,
            seed=self._seed,
            policy_version=self._policy_version,
            task=self._task,
            metrics=dict(metrics or {}),
        )

    def _allocate(self, given: Mapping[str, Any], images: Mapping[str, np.ndarray]) -> None:
        for name, column in EPISODE_COLUMNS.items():
            if column.optional and name in given:
                size = () if column.ndim == 1 else (self._action_dim,)
                self._columns[name] = np.empty((_INITIAL_STEPS, *size), column.dtype)
        # Of the camera's own type, so that `Episode` can refuse what is not uint8.
        self._images = {
            name: np.empty((_INITIAL_STEPS, *image.shape), image.dtype) for name, image in images.items()
        }

    def _with_last(self, column: np.ndarray, last: Any) -> np.ndarray:
        """Return a copy of the rows recorded so far, followed by `last` if there is one."""
        rows = np.empty((self._steps + (last is not None), *column.shape[1:]), column.dtype)
        rows[: self._steps] = column[: self._steps]
        if last is not None:
            rows[-1] = last
        return rows


def finite_column(name: str, value: Any, dtype: type[np.generic], ndim: int) -> np.ndarray:
    """Return `value` as a contiguous array of `ndim` dimensions and finite numbers, or raise `DataError`."""
    # A number too large for float32 becomes infinite, and is refused below.
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(value, dtype=dtype)
    if array.ndim != ndim:
        raise DataError(f"{name} have shape {array.shape}; expected {ndim} dimensions")
    if dtype is not np.bool_ and not np.isfinite(array).all():
        step = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise DataError(
            f"{name} at step {step} are not finite in {np.dtype(dtype)}; remove or repair the episode",
            step=step,
        )
    return array


def camera_images(name: str, value: Any) -> np.ndarray:
    """Return `value` as contiguous images `[rows, height, width, channels]`, or raise `DataError`."""
    array = np.asarray(value)
    if not name:
        raise DataError("a camera has an empty name; give it one")
    if array.dtype != np.uint8 or array.ndim != 4 or 0 in array.shape[1:]:
        raise DataError(
            f"images of '{name}' are {array.dtype} {array.shape}; expected uint8 [steps + 1, height, width, "
            "channels]"
        )
    return np.ascontiguousarray(array)


def evaluation_result(
    episodes: Sequence[Episode], control_hz: float, score: str | None = None
) -> EvaluationResult:
    """Summarise evaluation episodes.

    Args:
        episodes: At least one episode, in the order in which they were seeded.
        control_hz: Control steps per second.
        score: What ranks policies: `"return"`, `"success"` or the name of a metric of the episodes. None
            takes success where every episode knows it, else the return.

    Raises:
        DataError: No episodes, or an episode lacks the score asked for.
    """
    if score is None:
        score = "return" if any(episode.success is None for episode in episodes) else "success"
    shared = [
        name
        for name in (episodes[0].metrics if episodes else ())
        if all(name in episode.metrics for episode in episodes)
    ]
    return EvaluationResult(
        returns=tuple(episode.return_ for episode in episodes),
        successes=tuple(episode.success for episode in episodes),
        lengths=tuple(episode.length for episode in episodes),
        scores=tuple(_score(episode, score) for episode in episodes),
        metrics={name: tuple(float(episode.metrics[name]) for episode in episodes) for name in shared},
        control_hz=control_hz,
    )


def _score(episode: Episode, score: str) -> float:
    if score == "return":
        return episode.return_
    if score == "success" and episode.success is not None:
        return float(episode.success)
    if score in episode.metrics:
        return float(episode.metrics[score])
    known = ", ".join(["return", "success", *episode.metrics])
    raise DataError(f"an episode has no score '{score}' (success is {episode.success}); known: {known}")
