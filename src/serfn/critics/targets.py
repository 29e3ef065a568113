"""Targets of chunk values, as pure functions.

A window of h ≤ H executed steps from s_t teaches

    Q(s_t, a_{t:t+h}) ← Σ_{k<h} γ^k r_{t+k} + γ^h (1 - terminated) V(s_{t+h})

with γ per control step (Q-chunking, arXiv 2507.07969, with windows that may end early). A
truncated episode bootstraps at its last observation; a terminated one does not. `valid [batch, chunk]` marks
the h executed steps.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["mean", "min"]


def chunk_return(rewards: Tensor, valid: Tensor, discount: float) -> Tensor:
    """Return `Σ_{k<h} γ^k r_{t+k}`.

    Args:
        rewards: `[batch, chunk]`.
        valid: `[batch, chunk]` bool; rewards elsewhere do not count.
        discount: γ per control step, in [0, 1].

    Returns:
        `[batch]`.
    """
    steps = torch.arange(rewards.shape[1], device=rewards.device, dtype=rewards.dtype)
    # The last of the running sums: another order of additions would be another float32 value.
    return (torch.pow(discount, steps) * rewards.masked_fill(~valid, 0.0)).cumsum(dim=1)[:, -1]


def bootstrap_discount(valid: Tensor, terminated: Tensor, discount: float) -> Tensor:
    """Return `γ^h (1 - terminated)`, the weight of the value after the window.

    Args:
        valid: `[batch, chunk]` bool, h true entries in each row.
        terminated: `[batch]` bool, whether the episode terminated at the end of the window.
        discount: γ per control step, in [0, 1].

    Returns:
        `[batch]` float32.
    """
    weight = torch.pow(discount, valid.sum(dim=1).to(torch.float32))
    return weight.masked_fill(terminated, 0.0)


def chunk_target(
    rewards: Tensor,
    valid: Tensor,
    terminated: Tensor,
    next_value: Tensor,
    discount: float,
    v_min: float | None = None,
    v_max: float | None = None,
) -> Tensor:
    """Return the target of a window, `Σ_{k<h} γ^k r_{t+k} + γ^h (1 - terminated) V(s_{t+h})`.

    Args:
        rewards: `[batch, chunk]`.
        valid: `[batch, chunk]` bool.
        terminated: `[batch]` bool.
        next_value: `[batch]`, V at the observation after the window.
        discount: γ per control step, in [0, 1].
        v_min: Least possible value, to which the target is clipped; None does not clip.
        v_max: Greatest possible value.

    Returns:
        `[batch]`, without gradient.
    """
    bootstrap = bootstrap_discount(valid, terminated, discount)
    # A where, not a product: the value after a termination may be anything, even not finite.
    future = torch.where(bootstrap > 0, bootstrap * next_value, torch.zeros_like(next_value))
    return _clip(chunk_return(rewards, valid, discount) + future, v_min, v_max).detach()


def aggregate(values: Tensor, how: Aggregation) -> Tensor:
    """Return the mean or the minimum over the ensemble: `[ensemble, ...]` to `[...]`.

    Raises:
        ValueError: `how` is neither `"mean"` nor `"min"`.
    """
    if how == "mean":
        return values.mean(dim=0)
    if how == "min":
        return values.amin(dim=0)
    raise ValueError(f"aggregation is {how!r}; choose 'mean' or 'min'")


def _clip(target: Tensor, v_min: float | None, v_max: float | None) -> Tensor:
    return target if v_min is None and v_max is None else target.clamp(v_min, v_max)
