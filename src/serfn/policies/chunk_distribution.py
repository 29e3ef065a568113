"""Distributions over whole chunks as a flow's base: a standard normal, or a mixture given the observation.

A flow is a continuous image of its base. Over one Gaussian it cannot leave the space between two modes empty,
however many layers it has; over a mixture it has a piece of its base for each. The mixture is also the whole
distribution of `GaussianMixturePolicy`.

References: Bishop 1994, "Mixture density networks"; as the base of a flow Izmailov et al. 2020 (FlowGMM,
arXiv 1912.13025); on what the image of one Gaussian cannot be Cornish et al. 2020 (arXiv 1909.13833).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from serfn.policies.base import base_noise
from serfn.policies.gaussian import gaussian_log_density, soft_log_std


@dataclass(frozen=True)
class MixtureDistribution:
    """`p(v) = Σ_k w_k N(v; μ_k, diag σ_k²)` over chunks; one component lasts for a whole chunk.

    Attributes:
        log_weights: `log w` [..., components].
        mean: `μ` [..., components, chunk, action].
        log_std: `log σ`, of the shape of `mean`.
    """

    log_weights: Tensor
    mean: Tensor
    log_std: Tensor

    def draw(self, leading: tuple[int, ...], temperature: float, generator: torch.Generator) -> Tensor:
        """Draw chunks [*leading, chunk, action].

        Components are drawn from `softmax(log w / temperature)` and their noise is scaled by the temperature:
        at a low temperature a chunk lies near the mean of a likely component, never between two. At 0 it is
        the mean of the likeliest one. Chunks are reparameterised within their component; its choice is not
        differentiable, so that gradients through chunks never reach the weights.
        """
        dtype, (components, chunk_size, action_dim) = self.mean.dtype, self.mean.shape[-3:]
        uniform = torch.rand(
            (*leading, components), generator=generator, device=generator.device, dtype=dtype
        )
        gumbel = -(-uniform.clamp(min=torch.finfo(dtype).tiny).log()).log().to(self.mean.device)
        component = (self.log_weights + temperature * gumbel).argmax(-1)
        index = component[..., None, None, None].expand(*leading, 1, chunk_size, action_dim)
        shape = (*leading, components, chunk_size, action_dim)
        mean = self.mean.expand(shape).gather(-3, index).squeeze(-3)
        log_std = self.log_std.expand(shape).gather(-3, index).squeeze(-3)
        noise = base_noise(leading, chunk_size, action_dim, like=self.mean, generator=generator)
        return mean + temperature * log_std.exp() * noise

    def step_log_prob(self, v: Tensor, temperature: float) -> Tensor:
        """Log-density of each step given those before it, [..., chunk, action] → [..., chunk].

        It is that of the distribution which `draw` draws from at this temperature, above 0.
        """
        log_std = self.log_std + math.log(temperature)
        steps = gaussian_log_density(v.unsqueeze(-3), self.mean, log_std).sum(-1)
        return mixture_step_log_prob((self.log_weights / temperature).log_softmax(-1), steps)


def mixture_step_log_prob(log_weights: Tensor, steps: Tensor) -> Tensor:
    """Log-density of each step given those before it, where one component lasts for a whole chunk.

        log p(v_t | v_{<t}) = log Σ_k w_k Π_{s≤t} p_ks - log Σ_k w_k Π_{s<t} p_ks,

    so that the sum over a prefix is the prefix's exact density.

    Args:
        log_weights: `log w` [..., components], normalised.
        steps: `log p_ks` of every step given those before it under each component, [..., components, chunk].

    Returns:
        [..., chunk].
    """
    so_far = (log_weights.unsqueeze(-1) + steps.cumsum(-1)).logsumexp(-2)
    return so_far - functional.pad(so_far[..., :-1], (1, 0))


@dataclass(frozen=True)
class StandardNormalDistribution:
    """`p(v) = N(v; 0, I)` over chunks, whatever the observation.

    Attributes:
        shape: (chunk, action).
        like: a tensor of the dtype and on the device of the chunks.
    """

    shape: tuple[int, int]
    like: Tensor

    def draw(self, leading: tuple[int, ...], temperature: float, generator: torch.Generator) -> Tensor:
        """Draw chunks [*leading, chunk, action] of noise scaled by the temperature."""
        return temperature * base_noise(leading, *self.shape, like=self.like, generator=generator)

    def step_log_prob(self, v: Tensor, temperature: float) -> Tensor:
        """Log-density of each step at a temperature above 0, [..., chunk, action] → [..., chunk]."""
        constant = v.shape[-1] * math.log(2.0 * math.pi * temperature**2)
        return -0.5 * ((v / temperature).square().sum(-1) + constant)


class StandardNormalHead(nn.Module):
    """The distribution that depends on nothing; it has no parameters."""

    def __init__(self, chunk_size: int, action_dim: int) -> None:
        super().__init__()
        self.shape = (chunk_size, action_dim)

    def forward(self, context: Tensor) -> StandardNormalDistribution:
        """Return the distribution, in the dtype and on the device of `context`."""
        return StandardNormalDistribution(self.shape, context)


class MixtureHead(nn.Module):
    """Weights, means and standard deviations from a context, one linear map each.

    Equal components would get equal gradients for ever; each starts as another constant motion.
    """

    def __init__(self, context_dim: int, components: int, chunk_size: int, action_dim: int) -> None:
        super().__init__()
        self.shape = (components, 2, chunk_size, action_dim)
        self.logits = nn.Linear(context_dim, components)
        self.output = nn.Linear(context_dim, 2 * components * chunk_size * action_dim)
        for layer in (self.logits, self.output):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            means = self.output.bias.view(self.shape)[:, 0]
            means.copy_(torch.randn(components, 1, action_dim).expand_as(means))

    def forward(self, context: Tensor) -> MixtureDistribution:
        """Return the distribution for contexts [..., context]."""
        mean, raw = self.output(context).unflatten(-1, self.shape).unbind(-3)
        return MixtureDistribution(self.logits(context).log_softmax(-1), mean, soft_log_std(raw))
