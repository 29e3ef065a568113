"""A linear regression of chunks on observations: policies begin from it, critics may leave it out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serfn.flows.transforms import atanh_clipped

_RIDGE = 1e-4


class LinearMean(nn.Module):
    """`m(x) = clip(W x + b, ±limit)` or its atanh, [..., obs] → [..., chunk, action]; fitted, not trained.

    Commands that are absolute targets follow the measured pose: a wrist is told to go some millimetres from
    where it stands, wherever within a metre that is. What is left after the regression has the size of those
    millimetres, so that a network of equal relative accuracy is that much more accurate in absolute terms. A
    shift that depends on the observation alone leaves every density exact: its log-determinant is 0.

    Reference: ridge regression, Hoerl and Kennard, Technometrics 12 (1970), eq. 2.1.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, obs_dim: int, chunk_size: int, action_dim: int, limit: float) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("weight", torch.zeros(chunk_size, action_dim, obs_dim))
        self.register_buffer("bias", torch.zeros(chunk_size, action_dim))

    @torch.no_grad()
    def fit(self, x: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit to normalised observations [batch, obs] and actions [batch, chunk, action].

        A step of the chunk is fitted to the windows that reach it; one that none reaches is predicted as 0.
        """
        x, actions = x.double(), actions.double()
        for step in range(len(self.bias)):
            rows = valid[:, step]
            if not rows.any():
                self.weight[step], self.bias[step] = 0.0, 0.0
                continue
            inputs, targets = x[rows], actions[rows, step]
            centre, mean = inputs.mean(0), targets.mean(0)
            inputs = inputs - centre
            gram = inputs.T @ inputs / len(inputs)
            ridge = _RIDGE * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
            slopes = torch.linalg.solve(gram + ridge, inputs.T @ (targets - mean) / len(inputs))
            self.weight[step] = slopes.T.to(self.weight.dtype)
            self.bias[step] = (mean - centre @ slopes).to(self.bias.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Pre-tanh predictions [..., chunk, action] for normalised observations [..., obs]."""
        return atanh_clipped(self._predict(x), self.limit)

    def actions(self, x: Tensor) -> Tensor:
        """Predicted actions [..., chunk, action] in ±limit for normalised observations [..., obs]."""
        return self._predict(x).clamp(-self.limit, self.limit)

    def _predict(self, x: Tensor) -> Tensor:
        return torch.einsum("cao,...o->...ca", self.weight, x) + self.bias
