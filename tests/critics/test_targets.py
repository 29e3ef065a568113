"""Chunk targets against numbers worked out by hand, with γ = 0.5."""

from __future__ import annotations

import math

import pytest
import torch

from serfn.critics.targets import (
    aggregate,
    bootstrap_discount,
    chunk_return,
    chunk_target,
)

REWARDS = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 9.0], [8.0, 9.0, 9.0]])
VALID = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
ALIVE = torch.zeros(3, dtype=torch.bool)


def test_the_return_discounts_per_step_and_ignores_padding() -> None:
    # 1 + 2/2 + 4/4; 1 + 2/2; 8
    assert chunk_return(REWARDS, VALID, 0.5).tolist() == [3.0, 2.0, 8.0]


def test_the_bootstrap_is_discounted_by_the_executed_steps() -> None:
    assert bootstrap_discount(VALID, ALIVE, 0.5).tolist() == [0.125, 0.25, 0.5]


def test_truncation_bootstraps_and_termination_does_not() -> None:
    values = torch.tensor([8.0, 8.0, 8.0])
    truncated = chunk_target(REWARDS, VALID, ALIVE, values, 0.5)
    assert truncated.tolist() == [3.0 + 1.0, 2.0 + 2.0, 8.0 + 4.0]
    terminated = chunk_target(REWARDS, VALID, torch.tensor([False, True, True]), values, 0.5)
    assert terminated.tolist() == [4.0, 2.0, 8.0]


def test_the_value_after_a_termination_cannot_matter() -> None:
    values = torch.tensor([8.0, math.nan, math.inf])
    terminated = torch.tensor([False, True, True])
    assert chunk_target(REWARDS, VALID, terminated, values, 0.5).tolist() == [4.0, 2.0, 8.0]


def test_targets_are_clipped_to_known_bounds_and_carry_no_gradient() -> None:
    values = torch.full((3,), 8.0, requires_grad=True)
    target = chunk_target(REWARDS, VALID, ALIVE, values, 0.5, v_min=0.0, v_max=5.0)
    assert target.tolist() == [4.0, 4.0, 5.0]
    assert not target.requires_grad
    assert chunk_target(-REWARDS, VALID, ALIVE, values, 0.5, v_min=0.0).tolist() == [0.0, 0.0, 0.0]


def test_aggregation() -> None:
    values = torch.tensor([[1.0, 5.0], [3.0, 1.0]])
    assert aggregate(values, "mean").tolist() == [2.0, 3.0]
    assert aggregate(values, "min").tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="'max'"):
        aggregate(values, "max")  # pyright: ignore[reportArgumentType]
