"""The contract of all policies over chunks of actions.

Actions are normalised: one chunk is [chunk, action] in (-1, 1). `valid` [batch, chunk] marks the executed
prefix of a chunk; its first column is always True.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serfn.core.registry import PartConfig
from serfn.flows.linear_mean import LinearMean
from serfn.policies.normalizer import ObservationNormalizer

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class PolicyConfig(
    PartConfig,
    ABC,
    kind="policies",
    ours={
        "flow": "serfn.policies.flow:FlowPolicyConfig",
        "flow_matching": "serfn.policies.flow_matching:FlowMatchingConfig",
        "distilled_flow": "serfn.policies.distilled:DistilledFlowConfig",
        "diffusion": "serfn.policies.diffusion:DiffusionConfig",
        "gaussian": "serfn.policies.gaussian:GaussianConfig",
        "gaussian_mixture": "serfn.policies.gaussian_mixture:GaussianMixtureConfig",
        "deterministic": "serfn.policies.deterministic:DeterministicConfig",
    },
    default="flow",
):
    """Configuration of a policy; the key `type` tells them apart in files.

    A policy of one's own is a frozen dataclass derived from this class, and a `ChunkPolicy` that keeps it as
    `self.config`.
    """

    @abstractmethod
    def build(self, obs_dim: int, action_dim: int, chunk_size: int) -> ChunkPolicy:
        """Return the policy with its initial weights, on the CPU in float32; call `make_policy` instead.

        Args:
            obs_dim: observation dimensions.
            action_dim: action dimensions.
            chunk_size: control steps per chunk.

        Raises:
            ValueError: the architecture does not fit these sizes.
        """


class ChunkPolicy(nn.Module, ABC):
    """A conditional distribution over chunks of actions that can be sampled and fitted to demonstrations.

    Args:
        obs_dim: observation dimensions.
        action_dim: action dimensions.
        chunk_size: control steps per chunk.
        mean_limit: bound of the actions that a `LinearMean` predicts; None is without one.
    """

    def __init__(
        self, obs_dim: int, action_dim: int, chunk_size: int, *, mean_limit: float | None = None
    ) -> None:
        super().__init__()
        for name, value in (("obs_dim", obs_dim), ("action_dim", action_dim), ("chunk_size", chunk_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        self.obs_dim = obs_dim
        self.action_dim = action_dim
        self.chunk_size = chunk_size
        self.normalizer = ObservationNormalizer(obs_dim)
        self.linear_mean = (
            None if mean_limit is None else LinearMean(obs_dim, chunk_size, action_dim, mean_limit)
        )

    def fit_inputs(self, observations: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit the normaliser, and the regression if there is one; arguments as of `fit_statistics`."""
        self.normalizer.fit(observations)
        if self.linear_mean is not None:
            self.linear_mean.fit(self.normalizer(observations), actions, valid)

    def frozen(self) -> ChunkPolicy:
        """Return a copy for acting: it draws what this policy draws now, whatever becomes of this one.

        Subclasses work out here what depends on the weights alone; chunks stay equal to rounding error.
        """
        return copy.deepcopy(self).requires_grad_(False)

    @abstractmethod
    def sample(self, obs: Tensor, *, temperature: float = 1.0, generator: torch.Generator) -> Tensor:
        """Draw one chunk per observation.

        Args:
            obs: observations [batch, obs], raw.
            temperature: factor on the base noise; 0 is deterministic.
            generator: source of the noise. A CPU generator gives the same noise on every device.

        Returns:
            Actions [batch, chunk, action] in [-1, 1].
        """

    @abstractmethod
    def sample_candidates(
        self, obs: Tensor, count: int, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Tensor:
        """Draw `count` chunks per observation, [batch, count, chunk, action], encoding each once."""

    @abstractmethod
    def imitation_loss(
        self,
        obs: Tensor,
        actions: Tensor,
        valid: Tensor,
        *,
        generator: torch.Generator,
    ) -> tuple[Tensor, Metrics]:
        """Loss whose minimum is the data's distribution, per valid action dimension.

        Args:
            obs: observations [batch, obs].
            actions: normalised chunks [batch, chunk, action].
            valid: prefix mask [batch, chunk]; what stands behind the prefix has no influence.
            generator: source of the noise the loss draws.

        Returns:
            The scalar loss and detached scalar metrics.
        """

    @abstractmethod
    def fit_statistics(self, observations: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Set the statistics from observations [n, obs], actions [n, chunk, action], valid [n, chunk]."""


class LikelihoodPolicy(ChunkPolicy):
    """A policy with a tractable exact density.

    Densities are over normalised actions, and at temperature 1 where nothing else is said.
    """

    @abstractmethod
    def log_prob(
        self, obs: Tensor, actions: Tensor, valid: Tensor | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        """Log-density [batch] of chunks [batch, chunk, action], or of their valid prefixes.

        It is that of the distribution which `sample` draws from at this temperature.

        Raises:
            ValueError: The temperature is not positive: chunks of temperature 0 have no density.
        """

    @abstractmethod
    def log_prob_candidates(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Log-density [batch, count] of chunks [batch, count, chunk, action]; encodes each observation once.

        `valid` is [batch, count, chunk].
        """

    @abstractmethod
    def rsample_and_log_prob(
        self, obs: Tensor, *, temperature: float = 1.0, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Reparameterised chunks [batch, chunk, action] and their log-density [batch], in one pass.

        The density is that at temperature 1, whatever temperature the chunks were drawn at.
        """


def base_noise(
    leading: tuple[int, ...], chunk_size: int, action_dim: int, *, like: Tensor, generator: torch.Generator
) -> Tensor:
    """Standard normal noise [*leading, chunk, action] of the dtype and on the device of `like`."""
    noise = torch.randn(
        (*leading, chunk_size, action_dim), generator=generator, device=generator.device, dtype=like.dtype
    )
    return noise.to(like.device)


def check_temperature(temperature: float) -> None:
    """Raise `ValueError` unless the temperature is finite and not negative."""
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}: use 0 (deterministic) or a positive number")


def check_density_temperature(temperature: float) -> None:
    """Raise `ValueError` unless chunks of this temperature have a density."""
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}: chunks have a density at positive ones only")


def mean_per_dimension(
    losses: Tensor, valid: Tensor, action_dim: int, weights: Tensor | None = None
) -> Tensor:
    """`Σ wᵢ ℓᵢ / Σ wᵢ dᵢ` with losses ℓ [batch] and dᵢ the number of valid action dimensions of chunk i."""
    dimensions = valid.sum(-1) * action_dim
    if weights is None:
        return losses.sum() / dimensions.sum()
    return (weights * losses).sum() / (weights * dimensions).sum().clamp(min=torch.finfo(losses.dtype).tiny)
