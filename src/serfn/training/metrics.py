"""Averages of step metrics that stay on the device until they are reported."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class MetricAverages:
    """Running means of scalar tensors; part of a checkpoint, so that a resumed report is the same."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add one value per name."""
        for name, value in metrics.items():
            # Sums of thousands of float32 values would lose digits.
            value = value.detach().to(torch.float64)
            if name in self._sums:
                self._sums[name] += value
                self._counts[name] += 1
            else:
                self._sums[name] = value.clone()
                self._counts[name] = 1

    def pop(self) -> dict[str, float]:
        """Return the means since the last call and start again."""
        names = list(self._sums)
        if not names:
            return {}
        sums = torch.stack([self._sums[name] for name in names]).tolist()
        means = {name: total / self._counts[name] for name, total in zip(names, sums, strict=True)}
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, dict[str, Tensor | int]]:
        """Return sum and count per name."""
        return {name: {"sum": total, "count": self._counts[name]} for name, total in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor | int]]) -> None:
        """Inverse of `state_dict`."""
        self._sums = {name: torch.as_tensor(entry["sum"]).clone() for name, entry in state.items()}
        self._counts = {name: int(entry["count"]) for name, entry in state.items()}
