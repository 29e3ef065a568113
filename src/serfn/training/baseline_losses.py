"""Policy losses of the methods that ours is compared with, each as in its paper; notation as in `losses`."""

from __future__ import annotations

import torch
from torch import Tensor

from serfn.critics.base import ChunkCritic
from serfn.critics.targets import Aggregation, aggregate
from serfn.policies.deterministic import DeterministicPolicy
from serfn.policies.distilled import DistilledFlowPolicy
from serfn.policies.squashed import SquashedPolicy
from serfn.training.batch import TensorBatch
from serfn.training.losses import Metrics, policy_values


def sac_loss(
    policy: SquashedPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    *,
    strength: Tensor,
    how: Aggregation,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Maximise value and entropy.

    ``L = E_a[λ · log π(a | s) / D - Q(s, a)]``, ``a ~ π``; the paper's temperature is α = λ / D.

    Reference: SAC (arXiv 1812.05905), Eq. 7; with prior data and LayerNorm critics it is RLPD (arXiv
    2302.02948).
    """
    actions, log_prob = policy.rsample_and_log_prob(batch.obs, generator=generator)
    values = aggregate(critic.value(batch.obs, actions), how)
    entropy = -log_prob.mean() / actions[0].numel()
    return -strength * entropy - values.mean(), {**policy_values(values), "policy/entropy": entropy.detach()}


def td3_bc_loss(
    policy: DeterministicPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    *,
    strength: Tensor,
    how: Aggregation,
) -> tuple[Tensor, Metrics]:
    """Ascend the critic, held to the recorded actions by their squared distance.

    ``L = -E_s[Q(s, π(s))] / E|Q| + λ · E[(π(s) - a)²]``, the mean over valid action dimensions; the paper's
    weight of the critic is α = 1 / λ (2.5 there).

    References: TD3+BC (arXiv 2106.06860), Eqs. 3 and 5; ReBRAC (arXiv 2305.09836), Eq. 4.
    """
    actions = policy.mean(batch.obs)
    values = aggregate(critic.value(batch.obs, actions), how)
    mask = batch.valid.unsqueeze(-1)
    squares = torch.where(mask, (actions - batch.actions).square(), torch.zeros_like(actions))
    distance = squares.sum() / (mask.sum() * policy.action_dim)
    loss = -values.mean() / mean_magnitude(values) + strength * distance
    return loss, {**policy_values(values), "policy/action_mse": distance.detach()}


def fql_loss(
    policy: DistilledFlowPolicy,
    critic: ChunkCritic,
    batch: TensorBatch,
    *,
    strength: Tensor,
    how: Aggregation,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """Ascend the critic through the one-step student, held to its teacher, which imitates the batch.

    ``L = L_flow-matching(φ) - E_z[Q(s, μ(z; s))] / E|Q| + λ · E_z‖μ(z; s) - φ(z; s)‖² / D``.

    References: FQL (arXiv 2502.02538), Eqs. 6 and 8, with the normalised critic of its code; over chunks it
    is QC-FQL (arXiv 2507.07969), section 4.2.
    """
    cloning, metrics = policy.teacher.imitation_loss(
        batch.obs, batch.actions, batch.valid, generator=generator
    )
    actions, distances = policy.sample_with_distance(batch.obs, generator=generator)
    values = aggregate(critic.value(batch.obs, actions), how)
    distance = distances.mean()
    loss = cloning - values.mean() / mean_magnitude(values) + strength * distance
    return loss, {
        **policy_values(values),
        **{f"policy/{name}": value for name, value in metrics.items()},
        "policy/distillation_mse": distance.detach(),
    }


def mean_magnitude(values: Tensor) -> Tensor:
    """`E|Q|` without a gradient, above 0: makes a weight independent of the scale of rewards."""
    return values.detach().abs().mean().clamp(min=torch.finfo(values.dtype).eps)
