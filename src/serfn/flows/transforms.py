"""Elementwise invertible maps of the real line and the tanh squash: stateless mathematics.

A map turns `x` into `y` under unconstrained parameters `raw` [..., parameters] that a conditioner predicts.
All raw parameters equal to zero give the identity, so zero-initialised heads start a flow at its base
distribution. Both directions return `(value, log|d value / d argument|)`, elementwise and of the argument's
shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

LOG_SCALE_LIMIT = 2.0
"""An affine map scales by at most e² either way, which keeps latents finite far off the data's support."""


class ElementwiseTransform(Protocol):
    """A monotone map of the real line, one parameter vector per element."""

    @property
    def num_parameters(self) -> int:
        """Length of the last axis of `raw`."""
        ...

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map base to data: `(y, log dy/dx)`."""
        ...

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to base: `(x, log dx/dy)`."""
        ...


@dataclass(frozen=True)
class AffineTransform:
    """`y = x · exp(s) + b`, softly clamped `s = 2 tanh(raw_s / 2)` (Dinh et al., arXiv 1605.08803, eq. 7)."""

    @property
    def num_parameters(self) -> int:
        """Shift and raw log-scale."""
        return 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Scale, then shift."""
        shift, log_scale = _shift_and_log_scale(raw)
        return x * log_scale.exp() + shift, log_scale.expand_as(x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the shift, then the scale."""
        shift, log_scale = _shift_and_log_scale(raw)
        return (y - shift) * (-log_scale).exp(), -log_scale.expand_as(y)


@dataclass(frozen=True)
class SplineTransform:
    """Monotone rational-quadratic spline on [-bound, bound], the identity outside.

    Knots come from softmaxed widths and heights, inner slopes from a softplus shifted so that zero means
    slope one; the outer slopes are one, hence the map is continuously differentiable on the whole line.

    Reference: Durkan et al. 2019, arXiv 1906.04032, eqs. 4–8 (forward, derivative, inverse).
    """

    bins: int = 8
    bound: float = 5.0
    minimum_bin: float = 1e-3
    minimum_slope: float = 1e-3

    @property
    def num_parameters(self) -> int:
        """Widths, heights and the inner knots' slopes."""
        return 3 * self.bins - 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the spline (eq. 4) and its log-slope (eq. 5)."""
        inside = x.abs() < self.bound
        knots_x, knots_y, slopes = self.knots(raw)
        clamped = x.clamp(-self.bound, self.bound)
        segment = _Segment.at(clamped, knots_x, knots_x, knots_y, slopes)
        xi = (clamped - segment.x) / segment.width
        y, log_slope = segment.evaluate(xi)
        return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(x))

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Solve the segment's quadratic in the form without cancellation (eqs. 6–8 and 29)."""
        inside = y.abs() < self.bound
        knots_x, knots_y, slopes = self.knots(raw)
        clamped = y.clamp(-self.bound, self.bound)
        segment = _Segment.at(clamped, knots_y, knots_x, knots_y, slopes)
        rise = clamped - segment.y
        bend = segment.slope_right + segment.slope_left - 2 * segment.slope
        a = segment.height * (segment.slope - segment.slope_left) + rise * bend
        b = segment.height * segment.slope_left - rise * bend
        c = -segment.slope * rise
        # The discriminant is positive in exact arithmetic; the floor keeps the root's gradient finite in
        # float32.
        root = (b.square() - 4 * a * c).clamp(min=torch.finfo(y.dtype).tiny).sqrt()
        xi = (2 * c / (-b - root)).clamp(0.0, 1.0)
        _, log_slope = segment.evaluate(xi)
        x = segment.x + xi * segment.width
        return torch.where(inside, x, y), torch.where(inside, -log_slope, torch.zeros_like(y))

    def knots(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Knot abscissae, ordinates and slopes, each [..., bins + 1]."""
        widths, heights, inner = raw.split([self.bins, self.bins, self.bins - 1], dim=-1)
        shift = math.log(math.expm1(1.0 - self.minimum_slope))
        slopes = self.minimum_slope + functional.softplus(inner + shift)
        return self._edges(widths), self._edges(heights), functional.pad(slopes, (1, 1), value=1.0)

    def _edges(self, raw: Tensor) -> Tensor:
        sizes = self.minimum_bin + (1.0 - self.minimum_bin * self.bins) * raw.softmax(-1)
        # The last edge is set rather than summed, or round-off would leave a gap before the identity tail.
        inner = 2.0 * self.bound * sizes[..., :-1].cumsum(-1) - self.bound
        return functional.pad(functional.pad(inner, (1, 0), value=-self.bound), (0, 1), value=self.bound)


@dataclass(frozen=True)
class _Segment:
    """The spline's piece that holds each element; every field has the element's shape."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    slope_left: Tensor
    slope_right: Tensor

    @classmethod
    def at(cls, value: Tensor, edges: Tensor, knots_x: Tensor, knots_y: Tensor, slopes: Tensor) -> _Segment:
        index = (value.unsqueeze(-1) >= edges[..., 1:-1]).sum(-1, keepdim=True)

        def pick(table: Tensor, at: Tensor) -> Tensor:
            return table.expand(*value.shape, table.shape[-1]).gather(-1, at).squeeze(-1)

        left_x, left_y = pick(knots_x, index), pick(knots_y, index)
        return cls(
            x=left_x,
            y=left_y,
            width=pick(knots_x, index + 1) - left_x,
            height=pick(knots_y, index + 1) - left_y,
            slope_left=pick(slopes, index),
            slope_right=pick(slopes, index + 1),
        )

    @property
    def slope(self) -> Tensor:
        return self.height / self.width

    def evaluate(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        slope, mixed = self.slope, xi * (1 - xi)
        denominator = slope + (self.slope_right + self.slope_left - 2 * slope) * mixed
        y = self.y + self.height * (slope * xi.square() + self.slope_left * mixed) / denominator
        numerator = self.slope_right * xi.square() + 2 * slope * mixed + self.slope_left * (1 - xi).square()
        return y, 2 * slope.log() + numerator.log() - 2 * denominator.log()


def tanh_log_slope(u: Tensor) -> Tensor:
    """`log(1 - tanh²u) = 2 (log 2 - u - softplus(-2u))`: exact where `1 - tanh²u` underflows."""
    return 2.0 * (math.log(2.0) - u - functional.softplus(-2.0 * u))


def atanh_clipped(actions: Tensor, limit: float) -> Tensor:
    """`atanh(clip(a, ±limit))` with `0 < limit < 1`: finite for every finite action."""
    return torch.atanh(actions.clamp(-limit, limit))


def _shift_and_log_scale(raw: Tensor) -> tuple[Tensor, Tensor]:
    shift, raw_scale = raw.unbind(-1)
    return shift, LOG_SCALE_LIMIT * torch.tanh(raw_scale / LOG_SCALE_LIMIT)
