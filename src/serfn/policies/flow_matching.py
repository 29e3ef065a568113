"""Flow-matching policy: a learned velocity field integrated by Euler's method. A baseline without a density.

Reference: Lipman et al. 2022, arXiv 2210.02747, eqs. 20–23 with σ_min = 0 (straight paths).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from serfn.flows.whitening import check_minimum_std
from serfn.policies.base import Metrics, PolicyConfig, base_noise, mean_per_dimension
from serfn.policies.denoising import DenoisingPolicy
from serfn.policies.networks import check_sizes


@dataclass(frozen=True)
class FlowMatchingConfig(PolicyConfig):
    """Configuration of a `FlowMatchingPolicy`.

    Attributes:
        steps: Euler steps per sample.
        width: hidden units of encoder and network.
        linear_mean: begin from a linear regression of actions on observations (see `LinearMean`).
        minimum_std: floor of the whitening's standard deviation, in normalised actions.
    """

    steps: int = 10
    width: int = 192
    linear_mean: bool = False
    minimum_std: float = 0.05

    def __post_init__(self) -> None:
        check_sizes(steps=self.steps, width=self.width)
        check_minimum_std(self.minimum_std)

    def build(self, obs_dim: int, action_dim: int, chunk_size: int) -> FlowMatchingPolicy:
        """Return the policy with its initial weights."""
        return FlowMatchingPolicy(self, obs_dim, action_dim, chunk_size)


class FlowMatchingPolicy(DenoisingPolicy):
    """`dx/dt = v(x, t; obs)` from noise at t = 0 to a whitened chunk at t = 1."""

    def __init__(self, config: FlowMatchingConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(
            obs_dim,
            action_dim,
            chunk_size,
            width=config.width,
            linear_mean=config.linear_mean,
            minimum_std=config.minimum_std,
        )
        self.config = config

    def imitation_loss(
        self,
        obs: Tensor,
        actions: Tensor,
        valid: Tensor,
        *,
        generator: torch.Generator,
    ) -> tuple[Tensor, Metrics]:
        """Conditional flow matching (eq. 23): squared error against the straight path's velocity."""
        mask = valid.unsqueeze(-1)
        end = torch.where(mask, self.whiten(actions, self.center(obs)), torch.zeros_like(actions))
        start = base_noise(
            actions.shape[:-2], self.chunk_size, self.action_dim, like=actions, generator=generator
        )
        time = torch.rand(
            (len(actions), 1), generator=generator, device=generator.device, dtype=actions.dtype
        )
        time = time.to(actions.device)
        point = torch.lerp(start, end, time.unsqueeze(-1))
        output = self.network(point, time, self.condition(obs))
        error = torch.where(mask, (output - (end - start)).square(), torch.zeros_like(output))
        loss = mean_per_dimension(error.sum((-2, -1)), valid, self.action_dim)
        return loss, {"flow_matching_mse": loss.detach()}

    def generate(self, noise: Tensor, obs: Tensor) -> Tensor:
        """Integrate the field from t = 0 to 1 by Euler's method."""
        x, condition = noise, self.condition(obs)
        step = 1.0 / self.config.steps
        for index in range(self.config.steps):
            x = x + step * self.network(x, x.new_full((1,), index * step), condition)
        return x
