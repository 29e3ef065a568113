"""Elementwise maps: identity at zero, inverse, slopes, and agreement with an independent implementation."""

from __future__ import annotations

import math

import pytest
import torch
import zuko
from torch import Tensor

from serfn.flows.transforms import (
    AffineTransform,
    ElementwiseTransform,
    SplineTransform,
    atanh_clipped,
    tanh_log_slope,
)

TRANSFORMS = [
    pytest.param(AffineTransform(), id="affine"),
    pytest.param(SplineTransform(bins=8, bound=5.0), id="spline"),
    pytest.param(SplineTransform(bins=2, bound=1.0), id="spline-small"),
]


def random_parameters(transform: ElementwiseTransform, *shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return scale * torch.randn(*shape, transform.num_parameters, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_zero_parameters_are_the_identity(transform: ElementwiseTransform) -> None:
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)
    y, log_slope = transform.forward(x, torch.zeros(101, transform.num_parameters, dtype=torch.float64))
    torch.testing.assert_close(y, x, atol=1e-12, rtol=0)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_inverse_undoes_forward(
    transform: ElementwiseTransform, dtype: torch.dtype, tolerance: float
) -> None:
    x = torch.linspace(-7, 7, 401, dtype=dtype)
    # Flat segments amplify round-off by their inverse slope: keep slopes away from the floor.
    raw = random_parameters(transform, 401, scale=0.5).to(dtype)
    y, forward_log = transform.forward(x, raw)
    back, inverse_log = transform.inverse(y, raw)
    torch.testing.assert_close(back, x, atol=tolerance, rtol=0)
    torch.testing.assert_close(inverse_log, -forward_log, atol=10 * tolerance, rtol=0)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_log_slope_is_the_derivative(transform: ElementwiseTransform) -> None:
    x = torch.linspace(-6, 6, 97, dtype=torch.float64, requires_grad=True)
    raw = random_parameters(transform, 97)
    y, log_slope = transform.forward(x, raw)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope > 0).all()
    torch.testing.assert_close(log_slope, slope.log())


def test_affine_scale_is_softly_clamped() -> None:
    raw = torch.tensor([[0.0, 1e6], [0.0, -1e6]])
    y, log_slope = AffineTransform().forward(torch.ones(2), raw)
    torch.testing.assert_close(log_slope, torch.tensor([2.0, -2.0]))
    torch.testing.assert_close(y, torch.tensor([math.e**2, math.e**-2]))


def test_spline_stays_finite_under_extreme_parameters() -> None:
    transform = SplineTransform()
    for scale in (30.0, 1e4):
        raw = random_parameters(transform, 200, scale=scale).float().requires_grad_()
        value = torch.linspace(-6, 6, 200)
        for direction in (transform.forward, transform.inverse):
            out, log_slope = direction(value, raw)
            (gradient,) = torch.autograd.grad((out + log_slope).sum(), raw)
            assert out.isfinite().all() and log_slope.isfinite().all() and gradient.isfinite().all()


def test_spline_agrees_with_zuko() -> None:
    """Zuko parametrises its knots otherwise: its soft clip is inverted to feed it the same knots."""
    ours = SplineTransform(bins=6, bound=3.0)
    raw = random_parameters(ours, 64, scale=0.7)
    knots_x, knots_y, slopes = ours.knots(raw)
    limit = abs(math.log(1e-4))

    def unclip(log_value: Tensor, divisor: float) -> Tensor:
        return log_value / (1 - (divisor * log_value / limit).abs())

    theirs = zuko.transforms.MonotonicRQSTransform(
        unclip(_centred_log(knots_x.diff(dim=-1)), 2.0),
        unclip(_centred_log(knots_y.diff(dim=-1)), 2.0),
        unclip(slopes[..., 1:-1].log(), 1.0),
        bound=3.0,
        slope=1e-4,
    )
    x = torch.linspace(-4, 4, 64, dtype=torch.float64)
    expected, expected_log = theirs.call_and_ladj(x)
    y, log_slope = ours.forward(x, raw)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(log_slope, expected_log)
    torch.testing.assert_close(ours.inverse(y, raw)[0], theirs.inv(expected))


def test_affine_agrees_with_zuko() -> None:
    raw = random_parameters(AffineTransform(), 50)
    shift, raw_scale = raw.unbind(-1)
    log_scale = 2 * torch.tanh(raw_scale / 2)
    limit = abs(math.log(1e-3))
    theirs = zuko.transforms.MonotonicAffineTransform(shift, log_scale / (1 - (log_scale / limit).abs()))
    x = torch.linspace(-4, 4, 50, dtype=torch.float64)
    expected = shift + x * log_scale.exp()
    torch.testing.assert_close(theirs(x), expected)
    expected_log = theirs.log_abs_det_jacobian(x, expected)
    y, log_slope = AffineTransform().forward(x, raw)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(log_slope, expected_log)


def test_tanh_log_slope_where_the_naive_form_underflows() -> None:
    u = torch.tensor([-50.0, -3.0, 0.0, 0.5, 3.0, 50.0])
    exact = -2.0 * torch.log(torch.cosh(u.double()))
    torch.testing.assert_close(tanh_log_slope(u).double(), exact, atol=1e-5, rtol=1e-6)


def test_atanh_clipped_is_finite_everywhere() -> None:
    u = atanh_clipped(torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]), 0.98)
    torch.testing.assert_close(u.tanh(), torch.tensor([-0.98, -0.98, 0.0, 0.98, 0.98]))


def _centred_log(sizes: Tensor) -> Tensor:
    log_sizes = sizes.log()
    return log_sizes - (log_sizes.amax(-1, keepdim=True) + log_sizes.amin(-1, keepdim=True)) / 2
