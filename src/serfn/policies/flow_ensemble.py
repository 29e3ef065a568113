"""Several flows as one policy: the mixture of distributions that were learnt independently of each other."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from serfn.policies.chunk_distribution import mixture_step_log_prob
from serfn.policies.flow import FlowPolicy, FlowPolicyConfig
from serfn.policies.squashed import Context, SquashedPolicy


class FlowEnsemblePolicy(SquashedPolicy):
    """`π(a | obs) = 1/K Σ_k π_k(a | obs)`: each chunk is one member's, drawn anew at every decision.

    The members learn from the same data and differ where these say little. There a single BC policy may come
    to a stand, in a state that its own chunk leads back to; another member's chunk may lead out of it.
    Density, divergence and the density of a prefix are exact, as for one flow.

    Imitation raises `1/K Σ_k log π_k`, a bound below the mixture's log-likelihood (Jensen): every member
    learns all data, which the likelihood of the mixture itself would divide among them.

    Reference: Lakshminarayanan et al. 2017 (arXiv 1612.01474), section 2.4.
    """

    def __init__(self, config: FlowPolicyConfig, obs_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__(config, obs_dim, action_dim, chunk_size)
        self.config = config
        single = replace(config, members=1, linear_mean=False)
        self.members = nn.ModuleList(
            FlowPolicy(single, obs_dim, action_dim, chunk_size) for _ in range(config.members)
        )

    @property
    def flows(self) -> list[FlowPolicy]:
        """The members; what they describe is v, since the regression is the ensemble's."""
        return [cast(FlowPolicy, member) for member in self.members]

    def frozen(self) -> FlowEnsemblePolicy:
        """Return a copy whose members are frozen."""
        policy = cast(FlowEnsemblePolicy, super().frozen())
        policy.members = nn.ModuleList(flow.frozen() for flow in self.flows)
        return policy

    def draw(
        self, context: Context, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Chunks of members drawn with equal probability; at temperature 0 the first member's.

        Where the members divide the last of the `leading` dimensions, each gives an equal share of it: a
        random shift says which, so that every single chunk is any member's with the same probability.
        """
        # Each member encodes its share alone, which is less work than a context of everything for each.
        obs = context.obs
        if temperature == 0:
            return _draw(self.flows[0], obs, leading, temperature, generator)
        if leading and leading[-1] % len(self.members) == 0:
            return self._draw_shares(obs, leading, temperature, generator)
        drawn = torch.stack([_draw(flow, obs, leading, temperature, generator) for flow in self.flows])
        member = torch.randint(len(drawn), leading, generator=generator, device=generator.device)
        index = member.to(drawn.device)[None, ..., None, None].expand(1, *drawn.shape[1:])
        return drawn.gather(0, index).squeeze(0)

    def _draw_shares(
        self, obs: Tensor, leading: tuple[int, ...], temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Chunk i along the last of the `leading` dimensions is member `(i + shift) mod K`'s."""
        members, count = len(self.members), leading[-1]
        shift = torch.randint(count, (1,), generator=generator, device=generator.device).to(obs.device)
        places = torch.arange(count, device=obs.device)
        if obs.shape[-2] == 1:
            shares = [obs] * members
        else:
            ordered = obs[..., (places - shift) % count, :]
            shares = [ordered[..., index::members, :] for index in range(members)]
        each = (*leading[:-1], count // members)
        drawn = [
            _draw(flow, share, each, temperature, generator)
            for flow, share in zip(self.flows, shares, strict=True)
        ]
        return torch.stack(drawn, -3).flatten(-4, -3)[..., (places + shift) % count, :, :]

    def step_log_prob(self, context: Context, v: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-density of each step given those before it, [..., chunk]."""
        steps = self._member_steps(context, v, temperature)
        weights = steps.new_full((len(self.members),), -math.log(len(self.members)))
        return mixture_step_log_prob(weights, steps)

    def imitation_step_log_prob(self, context: Context, v: Tensor) -> Tensor:
        """Mean of the members' log-densities of each step, [..., chunk]."""
        return self._member_steps(context, v, 1.0).mean(-2)

    def fit_inputs(self, observations: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Fit the regression, and everybody's normaliser."""
        super().fit_inputs(observations, actions, valid)
        for flow in self.flows:
            flow.normalizer.fit(observations)

    def fit_whitening(self, v: Tensor, valid: Tensor) -> None:
        """Set the outermost layer of every member."""
        for flow in self.flows:
            flow.fit_whitening(v, valid)

    def _member_steps(self, context: Context, v: Tensor, temperature: float) -> Tensor:
        """Log-densities [..., members, chunk] of steps given those before them."""
        obs = context.obs
        return torch.stack([flow.step_log_prob(flow.context(obs), v, temperature) for flow in self.flows], -2)


def _draw(
    flow: FlowPolicy, obs: Tensor, leading: tuple[int, ...], temperature: float, generator: torch.Generator
) -> Tensor:
    return flow.draw(flow.context(obs), leading, temperature, generator)
