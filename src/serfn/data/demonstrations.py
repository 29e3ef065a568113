"""A set of demonstrations, and checks of what it can teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from serfn.core.errors import DataError
from serfn.core.rewards import RewardKind
from serfn.core.sides import Side
from serfn.core.spec import ActionSpec, ObservationSpec
from serfn.data.episode import Episode

SATURATION = 0.98
"""Normalised magnitude of a saturated action: beyond it the tanh of a policy has no resolution."""

_BOUND_MARGIN = 0.05
_CONSTANT_HALF_RANGE = 1e-2


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """Episodes of one task with the bounds of their actions.

    Args:
        episodes: At least one episode.
        action_spec: Bounds of the actions; every action of the episodes lies inside.
        notes: What the loader had to assume, one sentence each, to be shown to the user.
        control_hz: Control steps per second, if the data set says.
        observation_names: Name of each dimension of an observation, if the data set says.
        action_names: Name of each dimension of an action, if the data set says.
        guessed_order: Names of the parts of an observation, where their order is a guess.
        left_out: How many bad episodes were left out, and the first of them; None if there were none.

    Raises:
        DataError: There are no episodes, their dimensions differ, or an action leaves the bounds.
    """

    episodes: tuple[Episode, ...]
    action_spec: ActionSpec
    notes: tuple[str, ...] = ()
    control_hz: float | None = None
    observation_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    guessed_order: tuple[str, ...] = ()
    left_out: str | None = None

    def __post_init__(self) -> None:
        if not self.episodes:
            raise DataError("demonstrations need at least one episode, got 0")
        for index, episode in enumerate(self.episodes):
            if episode.observations.shape[1] != self.obs_dim:
                raise DataError(
                    f"episode {index} has {episode.observations.shape[1]} observation dimensions, episode 0 "
                    f"has {self.obs_dim}; use episodes of one task"
                )
            try:
                self.action_spec.check(episode.actions)
            except DataError as error:
                raise DataError(f"episode {index}: {error}") from error

    @property
    def obs_dim(self) -> int:
        """Size of an observation."""
        return self.episodes[0].observations.shape[1]

    def side(self, name: str) -> Side:
        """Return what they say, to be compared with what they meet; `name` is what to call them."""
        spec = self.action_spec
        actions = np.concatenate([episode.actions for episode in self.episodes])
        dim, names = self.obs_dim, self.observation_names
        return Side(
            name=name,
            control_hz=self.control_hz,
            lengths=tuple(episode.length for episode in self.episodes),
            observation=ObservationSpec(dim, names if len(names) == dim else ()),
            action=replace(spec, names=self.action_names if len(self.action_names) == spec.dim else ()),
            used=np.stack([actions.min(axis=0), actions.max(axis=0)]),
            guessed_order=self.guessed_order,
            rewards=RewardKind.of(episode.rewards for episode in self.episodes),
        )

    @property
    def steps(self) -> int:
        """Number of control steps of all episodes."""
        return sum(episode.length for episode in self.episodes)


@dataclass(frozen=True)
class CoverageReport:
    """What demonstrations cover.

    Args:
        constant_dimensions: Action dimensions that never move.
        saturated_fraction: Share of steps with a normalised magnitude above `SATURATION`, per action
            dimension.
        notes: Warnings for the user, one sentence each; empty if nothing is suspicious.
    """

    constant_dimensions: tuple[int, ...]
    saturated_fraction: tuple[float, ...]
    notes: tuple[str, ...]


def infer_action_spec(episodes: Sequence[Episode]) -> ActionSpec:
    """Return bounds that contain the actions of `episodes`.

    The margin beyond the extremes is 5% of the range on either side, so that the extremes are not saturated;
    a dimension that never moves gets ±0.01 or 1% of its magnitude, whichever is larger.
    """
    actions = np.concatenate([episode.actions for episode in episodes]).astype(np.float64)
    low, high = actions.min(axis=0), actions.max(axis=0)
    still = np.maximum(_CONSTANT_HALF_RANGE, _CONSTANT_HALF_RANGE * np.abs(low))
    margin = np.where(high > low, _BOUND_MARGIN * (high - low), still)
    return ActionSpec(low=tuple((low - margin).tolist()), high=tuple((high + margin).tolist()))


def check_coverage(
    demonstrations: Demonstrations, chunk_size: int, *, max_saturated: float = 0.2
) -> CoverageReport:
    """Look for demonstrations that cannot teach chunks well.

    Args:
        demonstrations: Demonstrations to look at.
        chunk_size: Steps of a chunk.
        max_saturated: Share of saturated steps of a dimension from which a warning is given.

    Raises:
        DataError: No episode is as long as one chunk.
    """
    longest = max(episode.length for episode in demonstrations.episodes)
    if longest < chunk_size:
        raise DataError(
            f"the longest demonstration has {longest} steps, fewer than one chunk of {chunk_size}; "
            f"set chunk_size to {longest} or less"
        )
    actions = np.concatenate([episode.actions for episode in demonstrations.episodes])
    spec = demonstrations.action_spec
    constant = tuple(int(i) for i in np.nonzero(np.ptp(actions, axis=0) == 0)[0])
    saturated = (np.abs(spec.normalize(actions)) > SATURATION).mean(axis=0)
    notes = []
    if constant:
        notes.append(f"action dimensions {list(constant)} never move; a policy cannot learn to use them")
    crowded = [i for i in range(spec.dim) if saturated[i] > max_saturated and i not in constant]
    if crowded:
        notes.append(
            f"action dimensions {crowded} are at their bounds in more than {max_saturated:.0%} of the steps; "
            "wider bounds give the policy resolution there"
        )
    if all(episode.success is False for episode in demonstrations.episodes):
        notes.append("no demonstration succeeds; imitation will learn to fail")
    return CoverageReport(
        constant_dimensions=constant,
        saturated_fraction=tuple(float(value) for value in saturated),
        notes=tuple(notes),
    )
