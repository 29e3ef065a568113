"""Learned linear mixing across time, volume preserving and causal."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CausalMixing(nn.Module):
    """`v_t = y_t + Σ_{s<t} W_ts y_s`: step t of the base side is what earlier steps do not predict linearly.

    The data side is `y`, so that a density costs one matrix product and a sample one triangular solve. The
    matrix is unit lower triangular in blocks of one step, its log-determinant zero. Couplings see only part
    of the past unaltered; this layer removes the strong linear dependence between neighbouring steps of
    smooth motion, which they would spend their capacity on. It starts as the identity.
    """

    mask: Tensor

    def __init__(self, chunk_size: int, action_dim: int) -> None:
        super().__init__()
        steps = torch.arange(chunk_size).repeat_interleave(action_dim)
        self.weight = nn.Parameter(torch.zeros(len(steps), len(steps)))
        self.register_buffer("mask", (steps[None, :] < steps[:, None]).float(), persistent=False)

    def forward(self, v: Tensor) -> Tensor:
        """Base → data, [..., chunk, action]: solve for y step after step."""
        flat = v.flatten(-2).reshape(-1, len(self.weight))
        # The diagonal counts as one and the zeros in the step's own block keep the matrix triangular.
        upper = (self.weight * self.mask).mT
        y = torch.linalg.solve_triangular(upper, flat, upper=True, left=False, unitriangular=True)
        return y.reshape(v.shape)

    @torch.no_grad()
    def solved(self) -> Tensor:
        """The matrix `R` [flat, flat] of the direction base → data, `y = v R` for rows v."""
        identity = torch.eye(len(self.weight), dtype=self.weight.dtype, device=self.weight.device)
        return self(identity.unflatten(-1, (-1, 1))).flatten(-2)

    def inverse(self, y: Tensor) -> Tensor:
        """Data → base, [..., chunk, action]."""
        flat = y.flatten(-2)
        return (flat + flat @ (self.weight * self.mask).mT).reshape(y.shape)
