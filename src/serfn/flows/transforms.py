"""Elementwise invertible maps of the real line and the tanh squash: stateless mathematics.

A map turns `x` into `y` under unconstrained parameters `raw` [..., parameters] that a conditioner predicts.
All raw parameters equal to zero give the identity, so zero-initialised heads start a flow at its base
distribution. Both directions return `(value, log|d value / d argument|)`, elementwise and of the argument's
shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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
        clamped = x.clamp(-self.bound, self.bound)
        segment = self._segment(clamped, raw, axis=0)
        xi = ((clamped - segment.x) / segment.width).clamp(0.0, 1.0)
        y, log_slope = segment.evaluate(xi)
        return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(x))

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Solve the segment's quadratic in the form without cancellation (eqs. 6–8 and 29)."""
        inside = y.abs() < self.bound
        clamped = y.clamp(-self.bound, self.bound)
        segment = self._segment(clamped, raw, axis=1)
        rise = clamped - segment.y
        bend = segment.slope_right + segment.slope_left - 2 * segment.slope
        a = segment.height * (segment.slope - segment.slope_left) + rise * bend
        b = segment.height * segment.slope_left - rise * bend
        c = -segment.slope * rise
        # Positive in exact arithmetic; the floor keeps the root's gradient finite in float32.
        root = (b.square() - 4 * a * c).clamp(min=torch.finfo(y.dtype).tiny).sqrt()
        xi = (2 * c / (-b - root)).clamp(0.0, 1.0)
        _, log_slope = segment.evaluate(xi)
        x = segment.x + xi * segment.width
        return torch.where(inside, x, y), torch.where(inside, -log_slope, torch.zeros_like(y))

    def knots(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Knot abscissae, ordinates and slopes, each [..., bins + 1]."""
        sizes, raw_slopes = self._sizes_and_raw_slopes(raw)
        edges = functional.pad(sizes.cumsum(-1), (1, 0)) - self.bound
        return edges[..., 0, :], edges[..., 1, :], self._slope(raw_slopes)

    def _segment(self, value: Tensor, raw: Tensor, axis: int) -> _Segment:
        """The segment that holds each value, looked up among abscissae (axis 0) or ordinates (axis 1)."""
        sizes, raw_slopes = self._sizes_and_raw_slopes(raw)
        right_edges = sizes.cumsum(-1) - self.bound
        index = (value.unsqueeze(-1) >= right_edges[..., axis, :-1]).sum(-1, keepdim=True)
        # Only the two slopes in use pass through the softplus: the spline's cost is memory traffic.
        slopes = self._slope(
            raw_slopes.expand(*value.shape, -1).gather(-1, torch.cat([index, index + 1], dim=-1))
        )
        pair = index.unsqueeze(-2).expand(*value.shape, 2, 1)
        size = sizes.expand(*value.shape, 2, -1).gather(-1, pair).squeeze(-1)
        left = right_edges.expand(*value.shape, 2, -1).gather(-1, pair).squeeze(-1) - size
        return _Segment(*left.unbind(-1), *size.unbind(-1), *slopes.unbind(-1))

    def _sizes_and_raw_slopes(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Widths and heights [..., 2, bins]; raw slopes of the knots [..., bins + 1], zero at both ends."""
        shares = raw[..., : 2 * self.bins].unflatten(-1, (2, self.bins)).softmax(-1)
        sizes = 2.0 * self.bound * (self.minimum_bin + (1.0 - self.minimum_bin * self.bins) * shares)
        return sizes, functional.pad(raw[..., 2 * self.bins :], (1, 1))

    def _slope(self, raw: Tensor) -> Tensor:
        shift = math.log(math.expm1(1.0 - self.minimum_slope))
        return self.minimum_slope + functional.softplus(raw + shift)


class _Segment(NamedTuple):
    """The spline's piece that holds each element; every field has the element's shape."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    slope_left: Tensor
    slope_right: Tensor

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
