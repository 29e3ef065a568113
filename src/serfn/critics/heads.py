"""What the last layer of a critic means: a number, or a histogram over values.

A head reads `size` outputs per value. Every function accepts any dimensions between the ensemble and the
outputs, so that one head serves values `[ensemble, batch]` and prefix values `[ensemble, batch, chunk]`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


class ValueHead(nn.Module, ABC):
    """Reads values from network outputs and says how far they are from a target."""

    size: int
    """Network outputs per value."""

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """Return values `[...]` from outputs `[..., size]`."""

    @abstractmethod
    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of every value, without reduction.

        Args:
            outputs: `[ensemble, ..., size]`.
            target: `[...]`, shared by the members of the ensemble; it receives no gradient.

        Returns:
            `[ensemble, ...]`.

        Raises:
            ValueError: The shape of `target` is not that of the values of one member.
        """

    def _check(self, outputs: Tensor, target: Tensor) -> None:
        # [batch, 1] against [batch] would broadcast to [batch, batch] and train silently on nonsense.
        if outputs.shape[1:-1] != target.shape:
            raise ValueError(
                f"target has shape {tuple(target.shape)}; one member has values {tuple(outputs.shape[1:-1])}"
            )


class ScalarHead(ValueHead):
    """One output, the value itself; the loss is the squared error."""

    size = 1

    def mean(self, outputs: Tensor) -> Tensor:
        """Return values `[...]` from outputs `[..., 1]`."""
        return outputs.squeeze(-1)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return (Q - y)², see `ValueHead.loss`."""
        self._check(outputs, target)
        return (self.mean(outputs) - target.detach()).square()


class HLGaussHead(ValueHead):
    """Categorical value trained towards a histogram of a Gaussian around the target.

    The target y becomes the histogram `p_i ∝ Φ((e_{i+1} - y)/σ) - Φ((e_i - y)/σ)` over bins with edges e and
    width w, σ = 0.75 w; the loss is the cross entropy to it, and the value is `Σ p_i · centre_i`. The bins
    reach 4σ beyond `[v_min, v_max]` on either side, so that the histogram of a target at a bound is not cut
    off and keeps its mean.

    Reference: Farebrother et al., arXiv 2403.03950 (HL-Gauss).

    Args:
        v_min: Least value.
        v_max: Greatest value, above `v_min`.
        bins: Number of bins, those beyond the bounds included.

    Raises:
        ValueError: The bounds are not finite and ordered, or there are too few bins.
    """

    SIGMA_IN_BINS: ClassVar[float] = 0.75
    MARGIN_IN_BINS: ClassVar[float] = 4 * SIGMA_IN_BINS
    MIN_BINS: ClassVar[int] = 11

    edges: Tensor
    centers: Tensor

    def __init__(self, v_min: float, v_max: float, bins: int) -> None:
        super().__init__()
        if not (math.isfinite(v_min) and math.isfinite(v_max) and v_min < v_max):
            raise ValueError(f"value bounds are [{v_min}, {v_max}]; give finite v_min < v_max")
        if bins < self.MIN_BINS:
            raise ValueError(f"bins is {bins}; it must be at least {self.MIN_BINS}")
        self.size = bins
        self.v_min = v_min
        self.v_max = v_max
        width = (v_max - v_min) / (bins - 2 * self.MARGIN_IN_BINS)
        self.sigma = self.SIGMA_IN_BINS * width
        margin = self.MARGIN_IN_BINS * width
        edges = torch.linspace(v_min - margin, v_max + margin, bins + 1, dtype=torch.float64)
        # Constants of the configuration, not of training: they stay out of checkpoints.
        self.register_buffer("edges", edges.float(), persistent=False)
        self.register_buffer("centers", ((edges[1:] + edges[:-1]) / 2).float(), persistent=False)

    def mean(self, outputs: Tensor) -> Tensor:
        """Return `Σ p_i · centre_i` `[...]` from logits `[..., bins]`."""
        return outputs.softmax(-1) @ self.centers

    def project(self, target: Tensor) -> Tensor:
        """Return the histogram `[..., bins]` of targets `[...]`, which are clipped to the bounds first."""
        distance = (self.edges - target.clamp(self.v_min, self.v_max).unsqueeze(-1)) / self.sigma
        cumulative = torch.special.ndtr(distance)
        mass = cumulative[..., 1:] - cumulative[..., :-1]
        return mass / (cumulative[..., -1:] - cumulative[..., :1])

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the cross entropy to `project(target)`, see `ValueHead.loss`."""
        self._check(outputs, target)
        return -(self.project(target.detach()) * functional.log_softmax(outputs, dim=-1)).sum(-1)
