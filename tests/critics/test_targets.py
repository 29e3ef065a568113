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
    prefix_targets,
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


def test_prefix_targets_by_hand() -> None:
    values_after = torch.tensor([[8.0, 4.0, 8.0], [8.0, 4.0, math.nan], [2.0, math.nan, math.nan]])
    targets = prefix_targets(REWARDS, VALID, torch.tensor([False, True, False]), values_after, 0.5)
    assert targets[0].tolist() == [1.0 + 4.0, 2.0 + 1.0, 3.0 + 1.0]
    # The second window terminates at its second step: its first prefix still bootstraps.
    assert targets[1, :2].tolist() == [5.0, 2.0]
    assert targets[2, 0].item() == 9.0


def test_the_longest_prefix_has_the_target_of_the_window() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values_after = (torch.rand(20, 5, generator=generator) for _ in range(2))
    steps = torch.randint(1, 6, (20,), generator=generator)
    valid = torch.arange(5) < steps[:, None]
    terminated = torch.rand(20, generator=generator) < 0.5
    rows = torch.arange(20)
    prefixes = prefix_targets(rewards, valid, terminated, values_after, 0.9, 0.2, 2.0)[rows, steps - 1]
    whole = chunk_target(rewards, valid, terminated, values_after[rows, steps - 1], 0.9, 0.2, 2.0)
    torch.testing.assert_close(prefixes, whole)


def test_aggregation() -> None:
    values = torch.tensor([[1.0, 5.0], [3.0, 1.0]])
    assert aggregate(values, "mean").tolist() == [2.0, 3.0]
    assert aggregate(values, "min").tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="'max'"):
        aggregate(values, "max")  # pyright: ignore[reportArgumentType]
