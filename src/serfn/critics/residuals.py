"""How a critic may read chunks: as what a linear regression on the observation leaves of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serfn.flows.linear_mean import LinearMean
from serfn.flows.whitening import ChunkWhitening

RESIDUAL_CLIP = 10.0
"""Residuals are clipped to ± this many standard deviations."""

_LIMIT, _MINIMUM_STD = 1.0, 0.01


class ChunkResiduals(nn.Module):
    """`gain (a - m(x)) / std`, `m` a regression, `std` the spread of what it leaves; fitted, not trained.

    Commands that are absolute targets follow the measured pose: between two chunks for one observation lie
    hundredths of the range of actions, which a network that reads them beside observations of unit size
    hardly sees. Their residuals are of one size.

    Args:
        obs_dim: Size of an observation.
        chunk_size: Steps of a chunk.
        action_dim: Size of an action.
        gain: Size of the residuals.
    """

    def __init__(self, obs_dim: int, chunk_size: int, action_dim: int, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.mean = LinearMean(obs_dim, chunk_size, action_dim, _LIMIT)
        self.whitening = ChunkWhitening(chunk_size, action_dim, _MINIMUM_STD)

    @torch.no_grad()
    def fit(self, x: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit to normalised observations [batch, obs] and valid steps of chunks [batch, chunk, action]."""
        self.mean.fit(x, actions, valid)
        self.whitening.fit(actions - self.mean.actions(x), valid)

    def forward(self, x: Tensor, actions: Tensor) -> Tensor:
        """Map chunks in [-1, 1], or their first steps, [batch, steps, action] to residuals of that shape."""
        steps, spread = actions.shape[1], self.whitening
        left = actions - self.mean.actions(x)[:, :steps]
        return self.gain * ((left - spread.mean[:steps]) / spread.std[:steps]).clamp(
            -RESIDUAL_CLIP, RESIDUAL_CLIP
        )
