from __future__ import annotations

import math

import pytest
import torch

from serfn.training.coefficient import adapt_coefficient, effective_sample_size, temperature_for_sample_size

BOUNDS = {"target": 0.3, "rate": 0.02, "low": 0.003, "high": 10.0}


@pytest.mark.parametrize(
    ("divergence", "log_change"),
    [
        (0.3, 0.0),
        (0.45, 0.01),
        (0.15, -0.01),
        (100.0, 0.02),
        (-5.0, -0.02),
        (math.inf, 0.02),
        (math.nan, 0.0),
    ],
)
def test_coefficient_follows_the_divergence_with_bounded_steps(divergence: float, log_change: float) -> None:
    coefficient = adapt_coefficient(torch.tensor(0.5), torch.tensor(divergence), **BOUNDS)
    assert math.log(coefficient.item() / 0.5) == pytest.approx(log_change, abs=1e-6)


def test_coefficient_stays_inside_its_bounds() -> None:
    assert adapt_coefficient(torch.tensor(10.0), torch.tensor(9.0), **BOUNDS).item() == 10.0
    assert adapt_coefficient(torch.tensor(0.003), torch.tensor(0.0), **BOUNDS).item() == pytest.approx(0.003)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.9])
def test_temperature_gives_the_wanted_sample_size_at_any_scale(scale: float, fraction: float) -> None:
    advantages = scale * torch.randn(192, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    temperature = temperature_for_sample_size(advantages, fraction)
    size = effective_sample_size(torch.softmax(advantages / temperature, 0))
    assert size.item() == pytest.approx(fraction * 192, rel=1e-3)


def test_temperature_of_two_values_in_closed_form() -> None:
    # The sample size of (p, 1 - p) is 1 / (p² + (1 - p)²): p = 0.75 gives 1.6; and p / (1 - p) = exp(1 / η).
    temperature = temperature_for_sample_size(torch.tensor([1.0, 0.0], dtype=torch.float64), 0.8)
    assert temperature.item() == pytest.approx(1 / math.log(3), rel=1e-4)


def test_equal_advantages_give_equal_weights() -> None:
    advantages = torch.full((10,), 0.7)
    temperature = temperature_for_sample_size(advantages, 0.25)
    torch.testing.assert_close(torch.softmax(advantages / temperature, 0), torch.full((10,), 0.1))
