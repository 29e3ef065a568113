"""Losses that all methods share: pure functions of networks and batches that return `(loss, metrics)`.

Here, and in `improvements`, policies meet critics. Notation: `s` observation `[batch, obs]`, `a` chunk
`[batch, chunk, action]`, `D = chunk · action`, `π` the policy at base scale 1, `π_ref` its frozen reference,
`λ` the coefficient of a penalty. Metrics are detached scalar tensors on the device of the batch; reading one
costs a synchronisation, so nobody does before it is time to report.
"""

from __future__ import annotations

import torch
from torch import Tensor

from serfn.critics.base import ChunkCritic
from serfn.critics.targets import chunk_target
from serfn.policies.base import ChunkPolicy, LikelihoodPolicy
from serfn.policies.squashed import Observed, SquashedPolicy
from serfn.training.batch import TensorBatch

Metrics = dict[str, Tensor]


def imitation_loss(
    policy: ChunkPolicy, batch: TensorBatch, *, generator: torch.Generator
) -> tuple[Tensor, Metrics]:
    """Negative log-likelihood of demonstrated chunks per valid action dimension.

    A policy without a density has a loss of its own in its place (see `ChunkPolicy.imitation_loss`).
    """
    loss, metrics = policy.imitation_loss(batch.obs, batch.actions, batch.valid, generator=generator)
    name = "nll" if isinstance(policy, LikelihoodPolicy) else "imitation_loss"
    return loss, {
        f"policy/{name}": loss.detach(),
        **{f"policy/{key}": value for key, value in metrics.items()},
    }


@torch.no_grad()
def critic_targets(
    policy: ChunkPolicy,
    target_critic: ChunkCritic,
    batch: TensorBatch,
    *,
    discount: float,
    candidates: int,
    temperature: float,
    bounds: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Return clipped chunk targets `[batch]`.

    ``y = Σ_{k<h} γ^k r_{t+k} + γ^h (1 - terminated) Q̄(s_{t+h}, a')`` with `h` valid steps, clipped to
    `bounds`. `a'` is the best under the target critic of `candidates` chunks that the policy samples at
    `temperature`. A critic with fewer `target_steps` than the chunk has gets n-step returns: h is at most
    that. A batch that carries rewards after the chunk gives n-step returns over both: the actions after the
    chunk are then those of the data, which leaves less room for values that the policy made up.

    References: Q-chunking (arXiv 2507.07969), with best-of-N backups as in its QC variant; uncorrected n-step
    returns as in Rainbow (arXiv 1710.02298), section 3.
    """
    if target_critic.target_steps < target_critic.chunk_size:
        batch = batch.first_steps(target_critic.target_steps)
    values = best_of(policy, target_critic, batch.next_obs, candidates, temperature, generator)[1]
    return chunk_target(*batch.counted_rewards, batch.terminated, values, discount, *bounds)


def critic_loss(critic: ChunkCritic, batch: TensorBatch, targets: Tensor) -> tuple[Tensor, Metrics]:
    """Loss of the critic's head against `targets`, averaged over the batch and the ensemble.

    Args:
        critic: Critic to fit.
        batch: Transitions.
        targets: `[batch]`.
    """
    outputs = critic(batch.obs, batch.actions, batch.valid)
    errors = critic.head.loss(outputs, targets)
    loss = errors.sum() / errors.numel()
    with torch.no_grad():
        values = critic.head.mean(outputs)
        metrics = {
            "critic/loss": loss.detach(),
            "critic/td_loss": (values - targets).square().sum() / values.numel(),
            "critic/q_mean": values.sum() / values.numel(),
            "critic/q_max": values.max(),
            "critic/target_max": targets.max(),
        }
    return loss, metrics


def sample_with_kl(
    policy: SquashedPolicy, reference: SquashedPolicy, observed: Observed, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sample one chunk per observation with the sampled divergence from the reference.

    Both densities are evaluated before the tanh, on the very values the flow produced: the squash is shared,
    so it cancels in ``log π - log π_ref``, and no atanh has to recover what the float32 tanh rounded away.

    Returns:
        Actions `[batch, chunk, action]` in (-1, 1) and ``(log π - log π_ref) / D`` `[batch]`, both
        differentiable.
    """
    context = policy.context(observed)
    latent, log_prob = policy.rsample_pre_tanh(context, generator=generator)
    divergence = log_prob - reference.log_prob_pre_tanh(context.obs, latent)
    return torch.tanh(latent), divergence / latent[0].numel()


def best_of(
    policy: ChunkPolicy,
    critic: ChunkCritic,
    obs: Tensor,
    candidates: int,
    temperature: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Sample `candidates` chunks per observation and choose the one that the critic values most.

    Returns:
        Actions `[batch, chunk, action]` and their values `[batch]`.
    """
    if candidates == 1:
        actions = policy.sample(obs, temperature=temperature, generator=generator)
        return actions, critic.value(obs, actions)
    actions = policy.sample_candidates(obs, candidates, temperature=temperature, generator=generator)
    values, choice = critic.candidate_values(obs, actions).max(1)
    return actions[torch.arange(obs.shape[0], device=obs.device), choice], values


def policy_values(values: Tensor) -> Metrics:
    """Mean and extremes of the values that the critic gives to the policy's chunks."""
    values = values.detach()
    return {"policy/q_mean": values.mean(), "policy/q_max": values.max(), "policy/q_min": values.min()}


def mean_magnitude(values: Tensor) -> Tensor:
    """`E|Q|` without a gradient, above 0: makes a weight independent of the scale of rewards."""
    return values.detach().abs().mean().clamp(min=torch.finfo(values.dtype).eps)
