"""The likelihood gate: chunks that the reference policy finds implausible are caught before execution.

A flow knows the exact log-likelihood of any chunk. Calibrated on demonstrations, the range between two
quantiles says what is ordinary; a chunk outside is flagged, drawn again, or refused. The likelihood itself
comes from a callable that `runtime` builds from a policy, since this layer knows no torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from serfn.core.errors import ConfigError, DataError

LogLikelihood = Callable[[np.ndarray, np.ndarray], float]
"""Exact log-likelihood of a chunk `[chunk, action]` in physical units, given the observation `[obs]`."""

GateAction = Literal["flag", "resample", "refuse"]


@dataclass(frozen=True)
class LikelihoodRange:
    """Log-likelihoods that count as ordinary.

    Raises:
        ConfigError: The bounds are not ordered.
    """

    low: float
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"the likelihood range is [{self.low}, {self.high}]; give low < high")

    def contains(self, log_likelihood: float) -> bool:
        """Whether a log-likelihood is ordinary; NaN is not."""
        return self.low <= log_likelihood <= self.high


def calibrate_range(
    log_likelihoods: np.ndarray,
    *,
    low_quantile: float = 0.001,
    high_quantile: float = 1.0,
    slack: float = 0.0,
) -> LikelihoodRange:
    """Return the range between two quantiles of the log-likelihoods of demonstrated chunks.

    Args:
        log_likelihoods: `[n]`, under the reference policy; values that are not finite count as lowest.
        low_quantile: Fraction of demonstrated chunks that may lie below.
        high_quantile: Fraction that lies below the upper bound; 1 has no upper bound.
        slack: Widens the range on both sides, in nats.

    Raises:
        DataError: Fewer finite values than the quantile needs.
        ConfigError: The quantiles are not ordered in [0, 1].

    >>> calibrate_range(np.arange(1000.0), low_quantile=0.1)
    LikelihoodRange(low=99.9, high=inf)
    """
    if not 0.0 <= low_quantile < high_quantile <= 1.0:
        raise ConfigError(f"quantiles are {low_quantile} and {high_quantile}; order them in [0, 1]")
    finite = log_likelihoods[np.isfinite(log_likelihoods)]
    if len(finite) < max(2.0, low_quantile and 1.0 / low_quantile):
        raise DataError(
            f"{len(finite)} finite log-likelihoods cannot give the quantile {low_quantile:g}; use more "
            "demonstrated chunks or a larger quantile"
        )
    low = float(np.quantile(finite, low_quantile)) - slack
    high = math.inf if high_quantile == 1.0 else float(np.quantile(finite, high_quantile)) + slack
    return LikelihoodRange(low, high)


@dataclass(frozen=True, eq=False)
class GateResult:
    """What the gate lets through: the chunk `[chunk, action]` or None, its log-likelihood, its flag."""

    actions: np.ndarray | None
    log_likelihood: float
    flagged: bool


class LikelihoodGate:
    """Lets ordinary chunks pass.

    `counts` has the numbers of chunks that passed, were flagged, drawn again and refused.

    Args:
        log_likelihood: Of a chunk under the reference policy.
        ordinary: Range that passes.
        on_violation: `flag` executes the chunk and marks it; `resample` draws again, and refuses when no
            draw passes; `refuse` gives no chunk, so that the robot holds.
        max_draws: Chunks drawn at most per decision when drawing again.

    Raises:
        ConfigError: `max_draws` is below 1.
    """

    def __init__(
        self,
        log_likelihood: LogLikelihood,
        ordinary: LikelihoodRange,
        on_violation: GateAction = "flag",
        max_draws: int = 4,
    ) -> None:
        if max_draws < 1:
            raise ConfigError(f"max_draws is {max_draws}; it must be at least 1")
        self.counts: Counter[str] = Counter()
        self._log_likelihood = log_likelihood
        self._ordinary = ordinary
        self._on_violation = on_violation
        self._max_draws = max_draws

    def decide(self, observation: np.ndarray, draw: Callable[[], np.ndarray]) -> GateResult:
        """Draw a chunk and judge it.

        Args:
            observation: `[obs]` that the chunk is drawn for.
            draw: Returns a chunk `[chunk, action]`; called again for another one.
        """
        draws = self._max_draws if self._on_violation == "resample" else 1
        value, flagged = math.nan, False
        for attempt in range(draws):
            chunk = draw()
            value = float(self._log_likelihood(observation, chunk)) if np.isfinite(chunk).all() else math.nan
            if self._ordinary.contains(value):
                self.counts["passed"] += 1
                return GateResult(chunk, value, flagged)
            flagged = True
            self.counts["flagged"] += 1
            if self._on_violation == "flag":
                return GateResult(chunk, value, flagged)
            if attempt + 1 < draws:
                self.counts["resampled"] += 1
        self.counts["refused"] += 1
        return GateResult(None, value, flagged)
