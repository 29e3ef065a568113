"""Coefficients that adapt themselves: those of a penalty, and a temperature from the effective sample size.

Both replace a coefficient that would have to be tuned to the scale of the advantage. They run on the device
without a host synchronisation, so that an update that contains them can be captured into a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BISECTION_STEPS = 24
_LOG_LOW, _LOG_HIGH = -7.0, 7.0


def adapt_coefficient(
    coefficient: Tensor, kl: Tensor, *, target: float, rate: float, low: float, high: float
) -> Tensor:
    """Move the coefficient of a KL penalty so that the divergence approaches its target.

    ``λ ← clip(λ · exp(rate · clip(KL / target - 1, -1, 1)), low, high)``; a divergence that is not finite
    leaves λ as it is. This is multiplicative dual ascent on the constraint KL ≤ target with bounded steps.

    Args:
        coefficient: λ, scalar tensor above 0.
        kl: Estimate of KL / D, scalar tensor.
        target: Wanted divergence, above 0.
        rate: Largest change of log λ in one step.
        low: Smallest λ.
        high: Largest λ.
    """
    error = torch.nan_to_num(kl / target - 1.0, nan=0.0, posinf=1.0, neginf=-1.0).clamp(-1.0, 1.0)
    return (coefficient * torch.exp(rate * error)).clamp(low, high)


def adapt_temperature(
    temperature: Tensor, entropy: Tensor, *, target: float, rate: float, low: float, high: float
) -> Tensor:
    """Move the weight of an entropy bonus so that the entropy approaches its target.

    ``λ ← clip(λ · exp(-rate · clip(H - H̄, -1, 1)), low, high)``: descent on SAC's ``J(λ) = λ (H - H̄)`` in log
    λ with bounded steps; an entropy that is not finite leaves λ as it is.

    Reference: SAC (arXiv 1812.05905), Eq. 18.

    Args:
        temperature: λ, scalar tensor above 0.
        entropy: Estimate of the entropy per action dimension, scalar tensor.
        target: Wanted entropy H̄ per action dimension.
        rate: Largest change of log λ in one step.
        low: Smallest λ.
        high: Largest λ.
    """
    error = torch.nan_to_num(entropy - target, nan=0.0, posinf=0.0, neginf=0.0).clamp(-1.0, 1.0)
    return (temperature * torch.exp(-rate * error)).clamp(low, high)


def effective_sample_size(weights: Tensor) -> Tensor:
    """Effective sample size `1 / Σ w²` of normalised weights over the last dimension."""
    return 1.0 / weights.square().sum(-1)


def temperature_for_sample_size(advantages: Tensor, fraction: float) -> Tensor:
    """Temperature η that gives `softmax(advantages / η)` the wanted effective sample size.

    The mean effective sample size over the leading dimensions grows monotonically with η, so a bisection in
    log η finds it. The search covers seven decades of e around the spread of the advantages; constant
    advantages give equal weights at any temperature.

    Args:
        advantages: `[..., samples]`.
        fraction: Wanted effective sample size as a fraction of `samples`, in (0, 1).

    Returns:
        Scalar tensor η above 0, without a gradient.
    """
    advantages = advantages.detach()
    shifted = advantages - advantages.amax(-1, keepdim=True)
    spread = advantages.std(-1, correction=0).mean().clamp_min(torch.finfo(advantages.dtype).tiny ** 0.5)
    low = torch.full_like(spread, _LOG_LOW)
    high = torch.full_like(spread, _LOG_HIGH)
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        weights = torch.softmax(shifted / (middle.exp() * spread), dim=-1)
        too_sharp = effective_sample_size(weights).mean() < fraction * advantages.shape[-1]
        low = torch.where(too_sharp, middle, low)
        high = torch.where(too_sharp, high, middle)
    return ((low + high) / 2).exp() * spread
