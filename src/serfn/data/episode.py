"""One recorded episode, and a builder that records one step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serfn.core.errors import DataError
from serfn.core.results import EvaluationResult

_INITIAL_STEPS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """Observations, actions and rewards of one episode of T control steps, validated on construction.

    Step t observes `observations[t]`, executes `actions[t]`, receives `rewards[t]` and leads to
    `observations[t + 1]`; the terminal observation is therefore always kept.

    Args:
        observations: `[T + 1, obs]`, stored as float32, with the observation after the last step.
        actions: `[T, action]`, stored as float32, physical units, as executed.
        rewards: `[T]`, stored as float32.
        terminated: The task ended by itself (goal, failure); the value of the terminal observation is 0.
            Takes precedence when both ends are set.
        truncated: The recording ended from outside (time limit, operator); values are bootstrapped.
        success: Whether the task was solved; None if nobody said.
        seed: Seed of the reset, if known.
        policy_version: Number of the policy that acted; 0 for demonstrations.
        metrics: Numbers of the task about this episode, such as `rev_per_min`.
        chunk_starts: `[T]` bool, True where a new chunk was decided. All True for recordings without chunks,
            where every step is a decision of its own.

    Raises:
        DataError: Shapes disagree, a value is not finite (the step is named), there are no steps, or the
            episode has no end.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    truncated: bool
    success: bool | None = None
    seed: int | None = None
    policy_version: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    chunk_starts: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype, ndim in (
            ("observations", np.float32, 2),
            ("actions", np.float32, 2),
            ("rewards", np.float32, 1),
            ("chunk_starts", np.bool_, 1),
        ):
            # A number too large for float32 becomes infinite, and is refused below.
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(getattr(self, name), dtype=dtype)
            if array.ndim != ndim:
                raise DataError(f"{name} have shape {array.shape}; expected {ndim} dimensions")
            if dtype is np.float32 and not np.isfinite(array).all():
                step = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise DataError(
                    f"{name} at step {step} are not finite in float32; remove or repair the episode"
                )
            object.__setattr__(self, name, array)
        steps = len(self.actions)
        if steps == 0:
            raise DataError("an episode needs at least one step, got 0 actions; drop it")
        expected = {"observations": steps + 1, "rewards": steps, "chunk_starts": steps}
        for name, length in expected.items():
            if len(getattr(self, name)) != length:
                raise DataError(
                    f"{name} have {len(getattr(self, name))} rows for {steps} actions; expected {length}"
                )
        if not (self.terminated or self.truncated):
            raise DataError("the episode neither terminated nor truncated; set truncated for a cut recording")

    @property
    def length(self) -> int:
        """Number of control steps T."""
        return len(self.actions)

    @property
    def return_(self) -> float:
        """Undiscounted sum of rewards."""
        return float(self.rewards.sum(dtype=np.float64))


class EpisodeBuilder:
    """Records one episode step by step into storage that grows geometrically.

    Args:
        obs_dim: Size of an observation.
        action_dim: Size of an action.
        seed: Seed of the reset, if known.
        policy_version: Number of the policy that acts.
    """

    def __init__(
        self, obs_dim: int, action_dim: int, *, seed: int | None = None, policy_version: int = 0
    ) -> None:
        self._seed = seed
        self._policy_version = policy_version
        self._steps = 0
        self._observations = np.empty((_INITIAL_STEPS, obs_dim), np.float32)
        self._actions = np.empty((_INITIAL_STEPS, action_dim), np.float32)
        self._rewards = np.empty(_INITIAL_STEPS, np.float32)
        self._chunk_starts = np.empty(_INITIAL_STEPS, np.bool_)

    @property
    def length(self) -> int:
        """Number of steps recorded so far."""
        return self._steps

    def append(
        self, observation: np.ndarray, action: np.ndarray, reward: float, *, chunk_start: bool
    ) -> None:
        """Record one step.

        Args:
            observation: `[obs]`, before the action.
            action: `[action]`, physical units, as executed.
            reward: Reward received for it.
            chunk_start: True if a new chunk was decided at this step.
        """
        step = self._steps
        if step == len(self._actions):
            self._grow()
        self._observations[step] = observation
        self._actions[step] = action
        self._rewards[step] = reward
        self._chunk_starts[step] = chunk_start
        self._steps = step + 1

    def finish(
        self,
        terminal_observation: np.ndarray,
        *,
        terminated: bool,
        truncated: bool,
        success: bool | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Episode:
        """Return the recorded episode; the builder may be thrown away.

        Args:
            terminal_observation: `[obs]`, after the last action.
            terminated: See `Episode`.
            truncated: See `Episode`.
            success: See `Episode`.
            metrics: See `Episode`.

        Raises:
            DataError: See `Episode`.
        """
        steps = self._steps
        return Episode(
            observations=np.concatenate(
                [self._observations[:steps], np.asarray(terminal_observation, np.float32)[None]]
            ),
            actions=self._actions[:steps].copy(),
            rewards=self._rewards[:steps].copy(),
            chunk_starts=self._chunk_starts[:steps].copy(),
            terminated=terminated,
            truncated=truncated,
            success=success,
            seed=self._seed,
            policy_version=self._policy_version,
            metrics=dict(metrics or {}),
        )

    def _grow(self) -> None:
        for name in ("_observations", "_actions", "_rewards", "_chunk_starts"):
            array: np.ndarray[Any, Any] = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.empty_like(array)]))


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
