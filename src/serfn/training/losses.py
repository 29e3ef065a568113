"""Losses of the four stages: pure functions of networks and batches that return `(loss, metrics)`.

Here, and in `baseline_losses`, policies meet critics. Notation: `s` observation `[batch, obs]`, `a` chunk
`[batch, chunk, action]`, `D = chunk · action`, `π` the policy at base scale 1, `π_ref` its frozen reference,
`λ` the strength of the anchor. Metrics are detached scalar tensors on the device of the batch; reading one
costs a synchronisation, so nobody does before it is time to report.
"""

from __future__ import annotations

import torch
from torch import Tensor

from serfn.critics.base import ChunkCritic
from serfn.critics.targets import Aggregation, aggregate, chunk_target, prefix_targets
from serfn.critics.transformer import TransformerChunkCritic
from serfn.policies.base import ChunkPolicy, LikelihoodPolicy, mean_per_dimension
from serfn.policies.squashed import SquashedPolicy
from serfn.training.batch import TensorBatch
from serfn.training.strength import effective_sample_size, temperature_for_sample_size

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
    how: Aggregation,
    bounds: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Return clipped chunk targets `[batch]`, or `[batch, chunk]` for a critic that values every prefix.

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
    successors = batch.next_obs if batch.window_obs is None else batch.window_obs.flatten(0, 1)
    values = best_of(policy, target_critic, successors, candidates, temperature, how, generator)[1]
    if batch.window_obs is None:
        return chunk_target(*batch.counted_rewards, batch.terminated, values, discount, *bounds)
    values = values.view(batch.valid.shape)
    return prefix_targets(batch.rewards, batch.valid, batch.terminated, values, discount, *bounds)


def critic_loss(critic: ChunkCritic, batch: TensorBatch, targets: Tensor) -> tuple[Tensor, Metrics]:
    """Loss of the critic's head against `targets`, averaged over valid targets and the ensemble.

    Args:
        critic: Critic to fit.
        batch: Transitions.
        targets: `[batch]`, or `[batch, chunk]` for a critic that values every prefix.
    """
    if targets.ndim == 1:
        outputs = critic(batch.obs, batch.actions, batch.valid)
        counted = torch.ones_like(targets)
    else:
        if not isinstance(critic, TransformerChunkCritic):
            raise ValueError(
                f"targets are {tuple(targets.shape)}; {type(critic).__name__} values whole chunks only"
            )
        outputs = critic.prefix_outputs(batch.obs, batch.actions)
        counted = batch.valid.to(targets.dtype)
    count = counted.sum()
    loss = (critic.head.loss(outputs, targets) * counted).sum() / (count * critic.ensemble)
    with torch.no_grad():
        values = critic.head.mean(outputs)
        metrics = {
            "critic/loss": loss.detach(),
            "critic/td_loss": ((values - targets).square() * counted).sum() / (count * critic.ensemble),
            "critic/q_mean": (values * counted).sum() / (count * critic.ensemble),
            "critic/q_max": values.max(),
            "critic/target_max": targets.max(),
        }
    return loss, metrics


def q_gradient_kl(
    policy: SquashedPolicy,
    reference: SquashedPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    *,
    strength: Tensor,
    how: Aggregation,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Ascend the critic through the flow, tied to the reference by the exact divergence on the same sample.

    ``L = -E_z Q(s, f(z; s)) + λ · KL(π ‖ π_ref) / D``, ``KL = E_z[log π - log π_ref]`` at `f(z; s)`.
    """
    actions, divergence = sample_with_divergence(policy, reference, batch.obs, generator)
    values = aggregate(critic.value(batch.obs, actions), how)
    divergence = divergence.mean()
    loss = -values.mean() + strength * divergence
    return loss, {**policy_values(values), "policy/kl": divergence.detach()}


def q_gradient_nll(
    policy: SquashedPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    demonstrations: TensorBatch,
    *,
    strength: Tensor,
    how: Aggregation,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Ascend the critic through the flow, tied to data only by likelihood; kept for comparison.

    ``L = -E_z Q(s, f(z; s)) - λ · E_data[log π(a | s)] / D``. The likelihood of data is no trust region: it
    bounds neither the divergence nor the critic's error off the data.

    Reference: arXiv 2602.09580, policy objective.
    """
    actions, _ = policy.rsample_and_log_prob(batch.obs, generator=generator)
    values = aggregate(critic.value(batch.obs, actions), how)
    nll, metrics = imitation_loss(policy, demonstrations, generator=generator)
    return -values.mean() + strength * nll, {**policy_values(values), **metrics}


def advantage_weighted_likelihood(
    policy: SquashedPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    *,
    baseline_samples: int,
    sample_fraction: float,
    temperature: float,
    how: Aggregation,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Raise the likelihood of replayed chunks that were better than what the policy does on average.

    ``L = -Σ_i w_i log π(a_i | s_i) / Σ_i w_i D_i`` (`D_i` valid dimensions) with ``w = softmax(A / η)`` over
    the batch and ``A_i = Q(s_i, a_i) - mean_k Q(s_i, a_k)``, ``a_k ~ π``; η gives an effective sample size of
    `sample_fraction`. The critic is never differentiated with respect to actions, so its errors off the data
    are not exploited.

    π is the law at `temperature` here, and the likelihood that of the steps `batch.planned`. Where those were
    drawn from that law, equal weights leave π where it is, on average; to the law at temperature 1 calmer
    chunks say, good or bad, that it is too wide.

    References: AWR (arXiv 1910.00177), Eq. 5; CRR (arXiv 2006.15134), Eq. 4.
    """
    with torch.no_grad():
        own = policy.sample_candidates(
            batch.obs, baseline_samples, temperature=temperature, generator=generator
        )
        baseline = aggregate(candidate_values(critic, batch.obs, own), how).mean(1)
        values = aggregate(critic.value(batch.obs, batch.actions, batch.valid), how)
        advantages = values - baseline
        sharpness = temperature_for_sample_size(advantages, sample_fraction)
        weights = torch.softmax(advantages / sharpness, dim=0)
    actions = policy.prepare_data(batch.actions, generator=generator)
    log_prob = policy.log_prob(batch.obs, actions, batch.planned, temperature=temperature)
    loss = mean_per_dimension(-log_prob, batch.planned, policy.action_dim, weights)
    return loss, {
        **policy_values(baseline),
        "policy/weighted_nll_per_dim": loss.detach(),
        "policy/advantage": advantages.mean(),
        "policy/temperature": sharpness,
        "policy/sample_size": effective_sample_size(weights),
    }


def weighted_own_samples(
    policy: SquashedPolicy,
    proposal: SquashedPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    *,
    samples: int,
    sample_fraction: float,
    how: Aggregation,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Distil best-of-N into one sample: imitate those of the proposal's chunks that the critic prefers.

    ``L = -E_s Σ_i w_i log π(a_i | s) / D``, ``a_i ~ proposal(s)``, ``w = softmax(Q / η)`` over the samples of
    a state. Needs an anchor besides the proposal, or it drifts.

    Reference: MPO (arXiv 1806.06920), Eqs. 7-10, with η from the effective sample size instead of its dual.
    """
    with torch.no_grad():
        actions = proposal.sample_candidates(batch.obs, samples, generator=generator)
        values = aggregate(candidate_values(critic, batch.obs, actions), how)
        temperature = temperature_for_sample_size(values, sample_fraction)
        weights = torch.softmax(values / temperature, dim=1)
    log_prob = policy.log_prob_candidates(batch.obs, actions) / actions[0, 0].numel()
    return -(weights * log_prob).sum(1).mean(), {
        **policy_values(values),
        "policy/temperature": temperature,
        "policy/sample_size": effective_sample_size(weights).mean(),
    }


def sample_with_divergence(
    policy: SquashedPolicy, reference: SquashedPolicy, obs: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sample one chunk per observation with the sampled divergence from the reference.

    Both densities are evaluated before the tanh, on the very values the flow produced: the squash is shared,
    so it cancels in ``log π - log π_ref``, and no atanh has to recover what the float32 tanh rounded away.

    Returns:
        Actions `[batch, chunk, action]` in (-1, 1) and ``(log π - log π_ref) / D`` `[batch]`, both
        differentiable.
    """
    latent, log_prob = policy.rsample_pre_tanh(obs, generator=generator)
    divergence = log_prob - reference.log_prob_pre_tanh(obs, latent)
    return torch.tanh(latent), divergence / latent[0].numel()


def best_of(
    policy: ChunkPolicy,
    critic: ChunkCritic,
    obs: Tensor,
    candidates: int,
    temperature: float,
    how: Aggregation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Sample `candidates` chunks per observation and choose the one that the critic values most.

    Returns:
        Actions `[batch, chunk, action]` and their values `[batch]`.
    """
    if candidates == 1:
        actions = policy.sample(obs, temperature=temperature, generator=generator)
        return actions, aggregate(critic.value(obs, actions), how)
    actions = policy.sample_candidates(obs, candidates, temperature=temperature, generator=generator)
    values, choice = aggregate(candidate_values(critic, obs, actions), how).max(1)
    return actions[torch.arange(obs.shape[0], device=obs.device), choice], values


def candidate_values(critic: ChunkCritic, obs: Tensor, actions: Tensor) -> Tensor:
    """Values `[ensemble, batch, count]` of chunks `[batch, count, chunk, action]`."""
    count = actions.shape[1]
    return critic.value(obs.repeat_interleave(count, 0), actions.flatten(0, 1)).unflatten(1, (-1, count))


def policy_values(values: Tensor) -> Metrics:
    """Mean and extremes of the values that the critic gives to the policy's own chunks."""
    values = values.detach()
    return {"policy/q_mean": values.mean(), "policy/q_max": values.max(), "policy/q_min": values.min()}
