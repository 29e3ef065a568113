"""Timing calls in turns, so that whatever else the machine does meets all contestants."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Figures = dict[str, float]
"""Figures of one contestant: `least_ms`, `median_ms`, `p99_ms`, and others of its group."""

Group = dict[str, Figures]
"""Figures by contestant."""


@dataclass(frozen=True)
class Setting:
    """How much is measured, and where.

    Attributes:
        quick: Everything once or twice on tiny networks, to see that it works; the figures mean nothing.
        device: Where networks run.
        seconds: Control time of each contestant in the control loop.
    """

    quick: bool = False
    device: str = "cpu"
    seconds: float = 30.0

    def rounds(self, usual: int) -> int:
        """Return how often each contestant has its turn."""
        return 2 if self.quick else usual


def alternate(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    per_call: int = 1,
    warm_up: int = 2,
    drain: Callable[[], object] = lambda: None,
) -> Group:
    """Time calls that take turns.

    Args:
        calls: Contestants by name.
        rounds: Timed calls of each.
        per_call: What one call does so many times; figures are for one of them.
        warm_up: Calls of each before.
        drain: Waits for what a call leaves running, such as on a GPU.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            drain()
            start = time.perf_counter()
            call()
            drain()
            spent[name].append(1e3 * (time.perf_counter() - start) / per_call)
    return {
        name: {
            "least_ms": min(values),
            "median_ms": float(np.median(values)),
            "p99_ms": float(np.quantile(values, 0.99)),
        }
        for name, values in spent.items()
    }
