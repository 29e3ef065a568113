"""What policies share whose density is known before the tanh: `a = tanh(m(obs) + v)`, v of known density.

The flow, the Gaussian and the mixture differ in that alone. A subclass says how it draws `v` and what
each step adds to the log-density; this class makes actions, likelihoods and the imitation loss of it. `m` is
a linear regression, or 0.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.flows.transforms import atanh_clipped, tanh_log_slope
from serfn.policies.base import (
    LikelihoodPolicy,
    Metrics,
    base_noise,
    check_density_temperature,
    check_temperature,
    mean_per_dimension,
)

DENSITY_LIMIT = 1.0 - 1e-6
"""Densities are evaluated at |a| ≤ this: beyond it, float32 soon leaves atanh no digits and then no value."""

DATA_LIMIT = 0.98
"""Imitated actions are clipped to ±this before atanh. Close to one, saturated actions become far outliers in
pre-tanh space, and the density spends itself on them."""


@dataclass(frozen=True, eq=False)
class Context:
    """Observations with what a policy works out of them alone: one serves many samples and densities.

    Attributes:
        obs: observations [..., obs], raw.
        shift: `m(obs)` [..., chunk, action], or 0.
        parts: what else the policy keeps, tensors [..., features] with the leading axes of `obs`.
    """

    obs: Tensor
    shift: Tensor | float
    parts: tuple[Tensor, ...]

    def for_candidates(self) -> Context:
        """The same for several chunks per observation: an axis of one in front of what is last."""
        shift = self.shift.unsqueeze(-3) if isinstance(self.shift, Tensor) else self.shift
        return Context(self.obs.unsqueeze(-2), shift, tuple(part.unsqueeze(-2) for part in self.parts))


Observed = Tensor | Context
"""Raw observations [..., obs], or what `SquashedPolicy.context` made of them."""

StepLogDensity = Callable[[Context, Tensor], Tensor]
"""Context and v [..., chunk, action] to a value per step [..., chunk]."""


class SquashedConfig(Protocol):
    """What a configuration says to a `SquashedPolicy`, whichever distribution it has."""

    @property
    def data_noise(self) -> float:
        """Standard deviation of the dequantisation noise on imitated actions."""
        ...

    @property
    def linear_mean(self) -> bool:
        """Whether `m` is a `LinearMean`; otherwise it is 0."""
        ...


class SquashedPolicy(LikelihoodPolicy):
    """The distribution of `a = tanh(u)`, `u = m(obs) + v`, whose density follows from that of v.

        log π(a | obs) = Σ_t [ log p(v_t | v_{<t}, obs) - Σ_dims log(1 - tanh² u_t) ],

    the sum over the valid steps: the density of a prefix is exact and does not depend on what stands behind.

    Args:
        config: how data are prepared, and whether there is an `m`.
        obs_dim: observation dimensions.
        action_dim: action dimensions.
        chunk_size: control steps per chunk.
    """

    def __init__(self, config: SquashedConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        mean_limit = DATA_LIMIT if config.linear_mean else None
        super().__init__(obs_dim, action_dim, chunk_size, mean_limit=mean_limit)
        self.data_noise = config.data_noise

    def context(self, obs: Observed) -> Context:
        """Return what all methods below need of observations; several calls for the same ones share it.

        Gradients of every call flow into it, so that it serves one backward pass.
        """
        return obs if isinstance(obs, Context) else Context(obs, self._shift(obs), self.parts(obs))

    def parts(self, obs: Tensor) -> tuple[Tensor, ...]:
        """Return what `draw` and `step_log_prob` read of observations [..., obs] besides themselves."""
        return ()

    @abstractmethod
    def draw(
        self, context: Context, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Draw v [*leading, chunk, action]; the observations broadcast against `leading`."""

    @abstractmethod
    def step_log_prob(self, context: Context, v: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-density of each step given those before it, [..., chunk], over v [..., chunk, action].

        It is that of the distribution which `draw` draws from at this temperature, above 0.
        """

    def imitation_step_log_prob(self, context: Context, v: Tensor) -> Tensor:
        """What imitation raises at each step [..., chunk]: the log-density, or a bound below it."""
        return self.step_log_prob(context, v)

    @abstractmethod
    def fit_whitening(self, v: Tensor, valid: Tensor) -> None:
        """Set the whitening of v from values [n, chunk, action] and their mask [n, chunk]."""

    def draw_with_density(
        self, context: Context, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw as `draw` does, with the log-density of each step [*leading, chunk] at temperature 1."""
        v = self.draw(context, leading, temperature, generator)
        return v, self.step_log_prob(context, v)

    @torch.no_grad()
    def fit_statistics(self, observations: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit the normaliser, the regression if there is one, and the whitening of what it leaves."""
        self.fit_inputs(observations, actions, valid)
        self.fit_whitening(atanh_clipped(actions, DATA_LIMIT) - self._shift(observations), valid)

    def sample(self, obs: Observed, *, temperature: float = 1.0, generator: torch.Generator) -> Tensor:
        """Draw chunks [batch, chunk, action]."""
        check_temperature(temperature)
        context = self.context(obs)
        return (self.draw(context, context.obs.shape[:-1], temperature, generator) + context.shift).tanh()

    def sample_candidates(
        self, obs: Observed, count: int, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Tensor:
        """Draw chunks [batch, count, chunk, action]."""
        check_temperature(temperature)
        context = self.context(obs).for_candidates()
        leading = (len(context.obs), count)
        return (self.draw(context, leading, temperature, generator) + context.shift).tanh()

    def rsample_and_log_prob(
        self, obs: Observed, *, temperature: float = 1.0, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Reparameterised chunks and their log-density at temperature 1, free of atanh's round-off."""
        u, log_prob = self.rsample_pre_tanh(obs, temperature=temperature, generator=generator)
        return u.tanh(), log_prob - tanh_log_slope(u).sum((-2, -1))

    def rsample_pre_tanh(
        self, obs: Observed, *, temperature: float = 1.0, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Reparameterised pre-tanh chunks u [batch, chunk, action] and their log-density over u [batch].

        With `log_prob_pre_tanh` of a reference this gives the exact Kullback–Leibler integrand
        `log π(u) - log π_ref(u)`: the tanh Jacobian is the same in both and cancels, and no atanh is taken of
        saturated actions.
        """
        check_temperature(temperature)
        context = self.context(obs)
        leading = context.obs.shape[:-1]
        v, step_log_prob = self.draw_with_density(context, leading, temperature, generator)
        return v + context.shift, step_log_prob.sum(-1)

    def log_prob_pre_tanh(self, obs: Observed, u: Tensor, valid: Tensor | None = None) -> Tensor:
        """Log-density over u [batch] of pre-tanh chunks [batch, chunk, action] or their valid prefixes."""
        return _sum_valid(self._of_chunks(self.step_log_prob, obs, _cleared(u, valid)), valid)

    def log_prob(
        self, obs: Observed, actions: Tensor, valid: Tensor | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        """Log-density [batch] of chunks; finite, with finite gradients, for all actions in [-1, 1]."""
        check_density_temperature(temperature)
        return self._squashed(partial(self.step_log_prob, temperature=temperature), obs, actions, valid)

    def log_prob_candidates(self, obs: Observed, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Log-density [batch, count] of chunks [batch, count, chunk, action]."""
        context = self.context(obs).for_candidates()
        return self._squashed(self.step_log_prob, context, actions, valid)

    def imitation_loss(
        self,
        obs: Tensor,
        actions: Tensor,
        valid: Tensor,
        *,
        generator: torch.Generator,
    ) -> tuple[Tensor, Metrics]:
        """Negative log-likelihood of dequantised, clipped actions, per valid action dimension.

        A policy that imitates by a bound (`imitation_step_log_prob`) reports that in `nll_per_dim`.
        """
        prepared = self.prepare_data(actions, generator=generator)
        log_prob = self._squashed(self.imitation_step_log_prob, obs, prepared, valid)
        loss = mean_per_dimension(-log_prob, valid, self.action_dim)
        saturated = (prepared.abs() >= DATA_LIMIT).float().mean(-1)
        metrics = {
            "nll_per_dim": loss.detach(),
            "saturated_fraction": (saturated * valid).sum() / valid.sum(),
        }
        return loss, metrics

    def prepare_data(self, actions: Tensor, *, generator: torch.Generator) -> Tensor:
        """`clip(a + ε, ±DATA_LIMIT)`, `ε ~ N(0, data_noise²)`: what imitation takes the likelihood of."""
        if self.data_noise:
            shape = actions.shape[:-2]
            noise = base_noise(shape, self.chunk_size, self.action_dim, like=actions, generator=generator)
            actions = actions + self.data_noise * noise
        return actions.clamp(-DATA_LIMIT, DATA_LIMIT)

    def _squashed(
        self, step_log_density: StepLogDensity, obs: Observed, actions: Tensor, valid: Tensor | None
    ) -> Tensor:
        u = atanh_clipped(_cleared(actions, valid), DENSITY_LIMIT)
        return _sum_valid(self._of_chunks(step_log_density, obs, u) - tanh_log_slope(u).sum(-1), valid)

    def _of_chunks(self, step_log_density: StepLogDensity, obs: Observed, u: Tensor) -> Tensor:
        if u.shape[-2:] != (self.chunk_size, self.action_dim):
            raise ValueError(
                f"chunks have shape {tuple(u.shape)}: "
                f"the last axes must be [{self.chunk_size}, {self.action_dim}]"
            )
        context = self.context(obs)
        return step_log_density(context, u - context.shift)

    def _shift(self, obs: Tensor) -> Tensor | float:
        return 0.0 if self.linear_mean is None else self.linear_mean(self.normalizer(obs))


def check_data_noise(data_noise: float) -> None:
    """Raise `ConfigError` unless the value of a configuration makes sense."""
    if not 0.0 <= data_noise < 1.0:
        raise ConfigError(f"data_noise is {data_noise}: use a number in [0, 1), 0.05 is usual")


def _cleared(chunks: Tensor, valid: Tensor | None) -> Tensor:
    """Chunks with zeros behind the valid prefix: without effect on the density, but 0 · NaN is NaN."""
    return chunks if valid is None else torch.where(valid.unsqueeze(-1), chunks, torch.zeros_like(chunks))


def _sum_valid(steps: Tensor, valid: Tensor | None) -> Tensor:
    return (steps if valid is None else torch.where(valid, steps, torch.zeros_like(steps))).sum(-1)
