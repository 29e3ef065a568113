"""What a task looks like from outside: dimensions, action bounds and rates.

A specification travels with every policy bundle and data set, so that a policy can refuse a robot it does not
fit. Normalised actions lie in [-1, 1] per dimension; physical ones in `[low, high]`, in the actuator's unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import ConfigError, DataError

BOUND_TOLERANCE = 1e-4
"""Fraction of a dimension's range by which a recorded action may leave its bounds (float32 round-off)."""


@dataclass(frozen=True)
class ActionSpec:
    """Bounds of one action, per dimension, in physical units.

    Args:
        low: Lower bounds `[action]`, finite.
        high: Upper bounds `[action]`, finite and above `low`.
        names: Names of the dimensions, or empty.
        units: Units of the dimensions, such as `rad`, or empty; an empty unit is unknown.

    Raises:
        ConfigError: No dimensions, lengths differ, or a bound is not finite or not ordered.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high):
            raise ConfigError(
                f"action bounds need equal lengths above 0, got {len(self.low)} low and {len(self.high)} high"
            )
        if self.names and len(self.names) != len(self.low):
            raise ConfigError(
                f"got {len(self.names)} action names for {len(self.low)} dimensions; name all of them or none"
            )
        if self.units and len(self.units) != len(self.low):
            raise ConfigError(
                f"got {len(self.units)} action units for {len(self.low)} dimensions; give all of them or none"
            )
        for index, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ConfigError(
                    f"action dimension {self._name(index)} has bounds [{low}, {high}]; give finite low < high"
                )

    @property
    def dim(self) -> int:
        """Number of action dimensions."""
        return len(self.low)

    def normalize(self, actions: np.ndarray) -> np.ndarray:
        """Map physical actions `[..., action]` affinely, `[low, high]` to `[-1, 1]`; float32, no clipping."""
        center, half_range = self._center_and_half_range
        return ((np.asarray(actions, dtype=np.float64) - center) / half_range).astype(np.float32)

    def denormalize(self, actions: np.ndarray) -> np.ndarray:
        """Inverse of `normalize`: `[..., action]` in [-1, 1] to physical units; float32, no clipping."""
        center, half_range = self._center_and_half_range
        return (np.asarray(actions, dtype=np.float64) * half_range + center).astype(np.float32)

    def check(self, actions: np.ndarray) -> None:
        """Raise unless all physical actions `[..., action]` are finite and inside the bounds.

        Raises:
            DataError: Wrong last dimension, or a value that is not finite or lies outside the bounds by more
                than `BOUND_TOLERANCE` of the range; the message gives the first one and its index.
        """
        actions = np.asarray(actions)
        if actions.ndim == 0 or actions.shape[-1] != self.dim:
            raise DataError(f"actions have shape {actions.shape}; the last dimension must be {self.dim}")
        low, high = np.array(self.low), np.array(self.high)
        slack = BOUND_TOLERANCE * (high - low)
        # Written so that NaN counts as outside.
        inside = (actions >= low - slack) & (actions <= high + slack)
        if inside.all():
            return
        index = tuple(int(i) for i in np.argwhere(~inside)[0])
        dimension = index[-1]
        raise DataError(
            f"action at index {list(index[:-1])}, dimension {self._name(dimension)} is {actions[index]:g}, "
            f"outside [{self.low[dimension]:g}, {self.high[dimension]:g}]; clip the data or widen the bounds",
            step=index[0] if len(index) == 2 else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping that JSON can write."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> ActionSpec:
        """Inverse of `to_dict`; strict, see `serfn.core.config.from_dict`."""
        return from_dict(cls, mapping)

    @cached_property
    def _center_and_half_range(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.array(self.low), np.array(self.high)
        return (low + high) / 2, (high - low) / 2

    def _name(self, index: int) -> str:
        return f"{index} ('{self.names[index]}')" if self.names else str(index)


@dataclass(frozen=True)
class ObservationSpec:
    """Size of one flat observation, with optional names and units of its dimensions.

    Raises:
        ConfigError: `dim` is below 1 or the number of names or units differs from it.
    """

    dim: int
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"observation dim is {self.dim}; it must be at least 1")
        if self.names and len(self.names) != self.dim:
            raise ConfigError(
                f"got {len(self.names)} observation names for {self.dim} dimensions; name all or none"
            )
        if self.units and len(self.units) != self.dim:
            raise ConfigError(
                f"got {len(self.units)} observation units for {self.dim} dimensions; give all or none"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping that JSON can write."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> ObservationSpec:
        """Inverse of `to_dict`; strict, see `serfn.core.config.from_dict`."""
        return from_dict(cls, mapping)


@dataclass(frozen=True)
class TaskSpec:
    """Everything a policy must know about the task it acts in.

    Args:
        id: Name of the task in the registry, or of the data set.
        observation: Size of the observation.
        action: Bounds of the action.
        control_hz: Control steps per second.
        max_episode_steps: Time limit of an episode in control steps.

    Raises:
        ConfigError: The id is empty, or a rate or limit is not positive.
    """

    id: str
    observation: ObservationSpec
    action: ActionSpec
    control_hz: float
    max_episode_steps: int

    def __post_init__(self) -> None:
        if not self.id:
            raise ConfigError("the task id is empty; give the name of the task")
        if not (math.isfinite(self.control_hz) and self.control_hz > 0):
            raise ConfigError(
                f"control_hz is {self.control_hz}; it must be a positive number of steps per second"
            )
        if self.max_episode_steps < 1:
            raise ConfigError(f"max_episode_steps is {self.max_episode_steps}; it must be at least 1")

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping that JSON can write."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> TaskSpec:
        """Inverse of `to_dict`; strict, see `serfn.core.config.from_dict`."""
        return from_dict(cls, mapping)
