"""What demonstrations tell of a task: time scale, rewards, actions, amount of data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from serfn.core.rewards import RewardKind
from serfn.data.demonstrations import SATURATION, Demonstrations
from serfn.data.episode import Episode

Rewards = Literal["sparse", "momentary", "step_cost", "dense", "none"]
"""`sparse` pays where the task is solved, `momentary` does so at steps that pass again, `step_cost` takes
until it is solved, `dense` pays all along, `none` was never paid."""

_FEW = 0.2
_RIDGE = 1e-3
_LONGEST_LAG = 64


@dataclass(frozen=True)
class Facts:
    """Figures of a data set; times are in control steps.

    Attributes:
        episodes: Number of episodes.
        steps: Steps of all of them.
        control_hz: Control steps per second; None if nobody said.
        length: Median length of an episode.
        time_to_success: Median steps until success is paid or ends an episode; None if that never happens.
        success_rate: Share of successful episodes; None if nobody said.
        success_ends: Whether success ends an episode.
        failure_ends: Whether an episode also ends by itself without success.
        rewards: Kind of the rewards.
        reward_low: Smallest reward of a step.
        reward_high: Largest reward of a step.
        obs_dim: Size of an observation.
        action_dim: Size of an action.
        memory: Steps until the autocorrelation of the actions has halved, noise of single steps left out.
        change: Root mean square of an action's change in one step, where -1 to 1 is the whole range.
        follows: Share of the actions' variance that a linear regression on the observation explains in
            episodes it was not fitted to: near 1 for absolute targets, low for relative commands.
        saturated: Share of action entries at a bound.
    """

    episodes: int
    steps: int
    control_hz: float | None
    length: int
    time_to_success: int | None
    success_rate: float | None
    success_ends: bool
    failure_ends: bool
    rewards: Rewards
    reward_low: float
    reward_high: float
    obs_dim: int
    action_dim: int
    memory: int
    change: float
    follows: float
    saturated: float


def facts(demonstrations: Demonstrations) -> Facts:
    """Return what is to be known of demonstrations before a policy learns from them; a pure function."""
    episodes = demonstrations.episodes
    kind = _rewards(episodes)
    span = RewardKind.of(episode.rewards for episode in episodes)
    told = [episode.success for episode in episodes if episode.success is not None]
    times = [time for episode in episodes if (time := _time_to_success(episode, kind, span.high))]
    actions = [
        demonstrations.action_spec.normalize(episode.actions).astype(np.float64) for episode in episodes
    ]
    changes = [np.diff(action, axis=0) for action in actions if len(action) > 1]
    entries = np.concatenate(actions)
    return Facts(
        episodes=len(episodes),
        steps=len(entries),
        control_hz=demonstrations.control_hz,
        length=_median([episode.length for episode in episodes]),
        time_to_success=_median(times) if times else None,
        success_rate=float(np.mean(told)) if told else None,
        success_ends=any(episode.terminated and episode.success for episode in episodes),
        failure_ends=any(episode.terminated and episode.success is False for episode in episodes),
        rewards=kind,
        reward_low=span.low,
        reward_high=span.high,
        obs_dim=demonstrations.obs_dim,
        action_dim=entries.shape[1],
        memory=_memory(actions),
        change=float(np.sqrt(np.mean(np.concatenate(changes) ** 2))) if changes else 0.0,
        follows=_follows([episode.observations[:-1].astype(np.float64) for episode in episodes], actions),
        saturated=float(np.mean(np.abs(entries) > SATURATION)),
    )


def _rewards(episodes: tuple[Episode, ...]) -> Rewards:
    values = np.unique(np.concatenate([episode.rewards for episode in episodes]))
    kind = RewardKind(float(values[0]), float(values[-1]), 0.0)
    if kind.low == kind.high == 0:
        return "none"
    if len(values) <= 2 and kind.high <= 0:
        return "step_cost"
    paid = np.mean(np.concatenate([episode.rewards for episode in episodes]) != 0)
    if kind.low < 0 or (len(values) > 2 and paid > _FEW) or kind.low > 0:
        return "dense"
    # Paid at some step, yet not at the last one of an episode that goes on.
    passed = [bool(e.rewards.any()) and e.rewards[-1] == 0 and not e.terminated for e in episodes]
    return "momentary" if any(passed) else "sparse"


def _time_to_success(episode: Episode, kind: Rewards, high: float) -> int | None:
    if kind in ("sparse", "momentary") or (kind == "step_cost" and high == 0):
        paid = np.flatnonzero(episode.rewards if kind != "step_cost" else episode.rewards == 0)
        if len(paid):
            return int(paid[0]) + 1
    return episode.length if episode.terminated and episode.success else None


def _memory(actions: list[np.ndarray]) -> int:
    """Steps until the autocorrelation is half of that at one step: white noise on top does not count."""
    mean = np.concatenate(actions).mean(axis=0)
    centred = [action - mean for action in actions]

    def correlation(lag: int) -> float | None:
        pairs = [(action[:-lag], action[lag:]) for action in centred if len(action) > lag]
        if not pairs:
            return None
        first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
        size = float(np.sqrt((first**2).sum() * (second**2).sum()))
        return float((first * second).sum()) / size if size > 0 else 0.0

    at_one = correlation(1)
    if at_one is None or at_one < _FEW:
        return 1
    for lag in range(2, _LONGEST_LAG):
        now = correlation(lag)
        if now is None or now < at_one / 2:
            return lag - 1
    return _LONGEST_LAG


def _follows(observations: list[np.ndarray], actions: list[np.ndarray]) -> float:
    """Explained variance in every fifth episode of a ridge regression on the others."""
    if len(actions) < 5:
        return 0.0
    held = [index % 5 == 4 for index in range(len(actions))]

    def part(items: list[np.ndarray], wanted: bool) -> np.ndarray:
        return np.concatenate([item for item, out in zip(items, held, strict=True) if out == wanted])

    inputs, targets = part(observations, False), part(actions, False)
    centre, spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
    mean = targets.mean(axis=0)
    design = (inputs - centre) / spread
    gram = design.T @ design + _RIDGE * len(design) * np.eye(design.shape[1])
    weights = np.linalg.solve(gram, design.T @ (targets - mean))
    found, expected = part(actions, True), mean + (part(observations, True) - centre) / spread @ weights
    total = float(((found - mean) ** 2).sum())
    return max(0.0, 1 - float(((found - expected) ** 2).sum()) / total) if total > 0 else 0.0


def _median(values: list[int]) -> int:
    return int(np.median(values))
