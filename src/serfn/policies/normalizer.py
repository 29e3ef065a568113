"""Observation normalisation that travels with the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MINIMUM_STD = 1e-3
"""Floor of the standard deviation: a constant input is centred, not blown up."""


class ObservationNormalizer(nn.Module):
    """`(obs - mean) / std`, clipped to ±`limit`: one broken sensor cannot drive the networks anywhere."""

    mean: Tensor
    std: Tensor

    def __init__(self, obs_dim: int, limit: float = 5.0) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(obs_dim))
        self.register_buffer("std", torch.ones(obs_dim))

    @torch.no_grad()
    def fit(self, observations: Tensor) -> None:
        """Set mean and standard deviation from observations [batch, obs].

        Raises:
            ValueError: no observations, another width, or a value that is not finite.
        """
        if observations.ndim != 2 or observations.shape[1] != self.mean.shape[0] or not len(observations):
            raise ValueError(
                f"observations have shape {tuple(observations.shape)}: "
                f"pass at least one row of {self.mean.shape[0]} values"
            )
        if not observations.isfinite().all():
            raise ValueError("observations contain NaN or infinity: remove these rows before fitting")
        # Sums over long recordings lose float32 digits when the mean is large against the spread.
        values = observations.double()
        self.mean.copy_(values.mean(0))
        self.std.copy_(values.std(0, correction=0).clamp(min=MINIMUM_STD))

    def forward(self, obs: Tensor) -> Tensor:
        """Normalise observations [..., obs]."""
        return ((obs - self.mean) / self.std).clamp(-self.limit, self.limit)
