"""One-step policy distilled from a flow-matching teacher: samples in one pass, trained by FQL.

Reference: Park et al. 2025, Flow Q-learning, arXiv 2502.02538, eqs. 6 and 8; over chunks it is QC-FQL, arXiv
2507.07969, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from serfn.flows.whitening import check_minimum_std
from serfn.policies.base import ChunkPolicy, Metrics, PolicyConfig, base_noise, check_temperature
from serfn.policies.flow_matching import FlowMatchingConfig, FlowMatchingPolicy
from serfn.policies.networks import (
    DENOISER_ENCODER_DEPTH,
    ChunkDenoiser,
    ObservationEncoder,
    check_sizes,
    encode,
)


@dataclass(frozen=True)
class DistilledFlowConfig(PolicyConfig):
    """Configuration of a `DistilledFlowPolicy`: two networks of equal size.

    Attributes:
        steps: Euler steps of the teacher.
        width: hidden units of each network.
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

    def build(self, obs_dim: int, action_dim: int, chunk_size: int) -> DistilledFlowPolicy:
        """Return the policy with its initial weights."""
        return DistilledFlowPolicy(self, obs_dim, action_dim, chunk_size)


class DistilledFlowPolicy(ChunkPolicy):
    """A student `μ(z; obs)` that acts, and a flow-matching teacher `φ(z; obs)` that models the data.

    The teacher learns by flow matching alone; the student follows the teacher's image of the same noise, and
    the critic where a loss adds it.
    """

    def __init__(self, config: DistilledFlowConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(obs_dim, action_dim, chunk_size)
        self.config = config
        teacher = FlowMatchingConfig(
            steps=config.steps,
            width=config.width,
            linear_mean=config.linear_mean,
            minimum_std=config.minimum_std,
        )
        self.teacher = FlowMatchingPolicy(teacher, obs_dim, action_dim, chunk_size)
        self.encoder = ObservationEncoder(obs_dim, config.width, DENOISER_ENCODER_DEPTH)
        self.student = ChunkDenoiser(config.width, action_dim, chunk_size, config.width)

    def sample(self, obs: Tensor, *, temperature: float = 1.0, generator: torch.Generator) -> Tensor:
        """Student's chunks [batch, chunk, action], clipped to [-1, 1]."""
        return self._draw(obs, obs.shape[:-1], temperature, generator)

    def sample_candidates(
        self, obs: Tensor, count: int, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Tensor:
        """Student's chunks [batch, count, chunk, action]."""
        return self._draw(obs.unsqueeze(-2), (len(obs), count), temperature, generator)

    def imitation_loss(
        self,
        obs: Tensor,
        actions: Tensor,
        valid: Tensor,
        *,
        generator: torch.Generator,
    ) -> tuple[Tensor, Metrics]:
        """Flow matching of the teacher plus the student's distance from it; no parameter is in both."""
        loss, metrics = self.teacher.imitation_loss(obs, actions, valid, generator=generator)
        distance = self.sample_with_distance(obs, generator=generator)[1].mean()
        return loss + distance, {**metrics, "distillation_mse": distance.detach()}

    def sample_with_distance(self, obs: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Student's chunks [batch, chunk, action] and `‖μ(z) - φ(z)‖² / D` [batch] from the same noise.

        The distance is one of whitened chunks. Both are differentiable in the student alone (eq. 6).
        """
        noise = base_noise(obs.shape[:-1], self.chunk_size, self.action_dim, like=obs, generator=generator)
        with torch.no_grad():
            target = self.teacher.generate(noise, obs)
        white = self._student(noise, obs)
        return self.teacher.unwhiten(white, self.teacher.center(obs)), (white - target).square().mean(
            (-2, -1)
        )

    @torch.no_grad()
    def fit_statistics(self, observations: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit the normalisers of both networks and what they share, the regression and the whitening."""
        self.normalizer.fit(observations)
        self.teacher.fit_statistics(observations, actions, valid)

    def _draw(
        self, obs: Tensor, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        check_temperature(temperature)
        noise = base_noise(leading, self.chunk_size, self.action_dim, like=obs, generator=generator)
        return self.teacher.unwhiten(self._student(temperature * noise, obs), self.teacher.center(obs))

    def _student(self, noise: Tensor, obs: Tensor) -> Tensor:
        context = encode(self.normalizer, self.encoder, obs)
        return self.student(noise, noise.new_zeros(1), self.student.condition(context))
