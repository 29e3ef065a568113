"""Fixed per-dimension whitening of a chunk, the outermost affine layer of a flow."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serfn.core.errors import ConfigError


class ChunkWhitening(nn.Module):
    """`u = mean + std · v` with constants of shape [chunk, action], fitted once and not trained.

    A step or dimension that hardly moves keeps the floor `minimum_std`: without it the density of a constant
    dimension would be unbounded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, chunk_size: int, action_dim: int, minimum_std: float = 0.05) -> None:
        super().__init__()
        check_minimum_std(minimum_std)
        self.minimum_std = minimum_std
        self.register_buffer("mean", torch.zeros(chunk_size, action_dim))
        self.register_buffer("std", torch.ones(chunk_size, action_dim))

    @torch.no_grad()
    def fit(self, values: Tensor, valid: Tensor | None = None) -> None:
        """Set the constants from values [batch, chunk, action]; only steps in `valid` [batch, chunk] count.

        Steps that no chunk reaches keep the statistics of the identity.
        """
        weight = _weights(values, valid)
        values = torch.where(weight > 0, values, torch.zeros_like(values))
        count = weight.sum(0)
        mean = (values * weight).sum(0) / count.clamp(min=1.0)
        variance = ((values - mean).square() * weight).sum(0) / count.clamp(min=1.0)
        seen = count > 0
        self.mean.copy_(torch.where(seen, mean, torch.zeros_like(mean)))
        self.std.copy_(torch.where(seen, variance.sqrt().clamp(min=self.minimum_std), torch.ones_like(mean)))

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """White → data: `(u, log_det [chunk])`; the log-determinant is the same for every chunk."""
        return self.mean + self.std * v, self.std.log().sum(-1)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Data → white: `(v, log_det [chunk])`."""
        return (u - self.mean) / self.std, -self.std.log().sum(-1)


def check_minimum_std(value: float) -> None:
    """Raise `ConfigError` unless the floor is positive."""
    if not value > 0.0:
        raise ConfigError(f"minimum_std is {value}: it must be positive")


def _weights(values: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return torch.ones_like(values[..., :1])
    if valid.shape != values.shape[:-1]:
        raise ValueError(
            f"valid has shape {tuple(valid.shape)}: for values {tuple(values.shape)} "
            f"pass {tuple(values.shape[:-1])}"
        )
    return valid.unsqueeze(-1).to(values.dtype)
