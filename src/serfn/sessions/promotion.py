"""The gate before hardware: which published weights may move the robot.

A candidate is compared with the policy that acts now on held-out probes, chunks that the robot or a
demonstrator really executed. With `D = chunk · action` and `π` at temperature 1:

- finite: every parameter, sample, likelihood and value is a number;
- likelihood shift: median over probes of `(log π_now(a|s) - log π_new(a|s)) / D`, how much less probable what
  worked has become, in nats per dimension;
- divergence: median over probes of `(log π_new(ã|s) - log π_now(ã|s)) / D` with `ã ~ π_new`, the sampled
  exact KL from the policy that acts;
- saturation: share of sampled actions beyond 0.98 of their range;
- jerk: mean change from step to step in sampled chunks, relative to that of the policy that acts;
- drift: largest change of the mean of one action dimension, in normalised units;
- critic: values of probes inside their known bounds.

Medians, because a flow's likelihood of one foreign chunk may be off by orders of magnitude. Only a policy
with an exact density can be checked by the first two; the others serve every policy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.core.words import number
from serfn.data.chunk_batch import ChunkBatch
from serfn.policies.base import ChunkPolicy, LikelihoodPolicy
from serfn.training.acting import BestOfNActor

MAX_LIKELIHOOD_SHIFT = 1.0
"""Nats per dimension by which executed chunks may become less likely."""

MAX_SATURATION_GROWTH = 0.2
"""Share of sampled actions at the end of their range, beyond that of the policy that acts."""

MAX_VALUE_EXCESS = 0.25
"""How far values may leave their bounds, as a fraction of the interval between them."""

MAX_DRIFT = 0.5
"""Change of the mean of one action dimension, in normalised units, whose range is 2."""

FAILURE_WINDOW = 5
"""Latest episodes of one version among which failures are counted."""

_SATURATED = 0.98
_LEAST_JERK = 1e-3


@dataclass(frozen=True)
class PromotionConfig:
    """What a candidate may differ by from the policy that acts.

    Attributes:
        max_kl: Sampled KL / D from the policy that acts. Lower it for a robot that must not change its ways
            abruptly; raise it where every version is refused.
        max_jerk_ratio: Change from step to step, relative to that of the policy that acts; lower it for a
            delicate mechanism.
        failures: Failed episodes among the last `FAILURE_WINDOW` of one version after which the actor returns
            to the version before; None leaves that to people.

    Raises:
        ConfigError: A limit is not positive, or there are more failures than episodes.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"max_divergence": "max_kl"}

    max_kl: float = 1.0
    max_jerk_ratio: float = 3.0
    failures: int | None = 4

    def __post_init__(self) -> None:
        for name in ("max_kl", "max_jerk_ratio"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.failures is not None and not 1 <= self.failures <= FAILURE_WINDOW:
            raise ConfigError(f"failures is {self.failures}; use 1 to {FAILURE_WINDOW}, or none")


@dataclass(frozen=True)
class Promotion:
    """What the gate said about one version.

    Attributes:
        version: Version asked about.
        promoted: Whether it may move the robot.
        reason: One sentence.
        measures: The figures behind it, by name.
    """

    version: int
    promoted: bool
    reason: str
    measures: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def judge(
    version: int,
    candidate: BestOfNActor,
    current: BestOfNActor,
    probes: ChunkBatch,
    config: PromotionConfig,
    *,
    value_bounds: tuple[float, float],
    seed: int,
) -> Promotion:
    """Decide whether `candidate` may replace `current` on the robot.

    Args:
        version: Version of the candidate.
        candidate: New weights.
        current: What acts now.
        probes: Held-out windows of executed chunks, normalised; some tens suffice.
        config: Limits.
        value_bounds: Interval that contains every reachable value.
        seed: Seed of the samples; both policies get the same noise.

    Raises:
        ConfigError: There are no probes.
    """
    if len(probes) == 0:
        raise ConfigError("the promotion gate has no probes; give it executed chunks or demonstrations")
    measures: dict[str, float] = {}
    if broken := _broken_parameter(candidate):
        return Promotion(version, False, f"'{broken}' is not finite", measures)
    obs = torch.from_numpy(probes.obs)
    new, now = (_samples(actor.policy, obs, seed) for actor in (candidate, current))
    measures |= _action_measures(new, now)
    measures |= _likelihood_measures(candidate.policy, current.policy, probes, seed)
    measures |= _value_measures(candidate, obs, probes, value_bounds)
    limits = {
        "likelihood_shift": MAX_LIKELIHOOD_SHIFT,
        "divergence": config.max_kl,
        "saturation_growth": MAX_SATURATION_GROWTH,
        "jerk_ratio": config.max_jerk_ratio,
        "drift": MAX_DRIFT,
        "value_excess": MAX_VALUE_EXCESS,
    }
    for name, limit in limits.items():
        # Written so that NaN is refused.
        if name in measures and not measures[name] <= limit:
            words = name.replace("_", " ")
            return Promotion(
                version, False, f"{words} is {number(measures[name])}, above {limit:g}", measures
            )
    if not all(math.isfinite(value) for value in measures.values()):
        broken = next(name for name, value in measures.items() if not math.isfinite(value))
        return Promotion(version, False, f"{broken.replace('_', ' ')} is not finite", measures)
    return Promotion(version, True, "all checks passed", measures)


def _broken_parameter(actor: BestOfNActor) -> str | None:
    modules = {"policy": actor.policy} | ({} if actor.critic is None else {"critic": actor.critic})
    for part, module in modules.items():
        for name, value in module.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                return f"{part}.{name}"
    return None


def _samples(policy: ChunkPolicy, obs: Tensor, seed: int) -> Tensor:
    return policy.sample(obs, generator=torch.Generator().manual_seed(seed))


def _action_measures(new: Tensor, now: Tensor) -> dict[str, float]:
    def saturation(chunks: Tensor) -> float:
        return float((chunks.abs() > _SATURATED).float().mean())

    measures = {
        "saturation": saturation(new),
        "saturation_growth": saturation(new) - saturation(now),
        "drift": float((new.mean((0, 1)) - now.mean((0, 1))).abs().max()),
    }
    if new.shape[1] > 1:
        jerk, usual = (float(chunks.diff(dim=1).abs().mean()) for chunks in (new, now))
        measures["jerk_ratio"] = jerk / max(usual, _LEAST_JERK)
    return measures


def _likelihood_measures(
    candidate: ChunkPolicy, current: ChunkPolicy, probes: ChunkBatch, seed: int
) -> dict[str, float]:
    if not (isinstance(candidate, LikelihoodPolicy) and isinstance(current, LikelihoodPolicy)):
        return {}
    obs, actions = torch.from_numpy(probes.obs), torch.from_numpy(probes.actions)
    valid = torch.from_numpy(probes.valid)
    steps = valid.sum(-1) * actions.shape[-1]
    lost = (current.log_prob(obs, actions, valid) - candidate.log_prob(obs, actions, valid)) / steps
    generator = torch.Generator().manual_seed(seed)
    own, log_prob = candidate.rsample_and_log_prob(obs, generator=generator)
    divergence = (log_prob - current.log_prob(obs, own)) / own[0].numel()
    return {"likelihood_shift": float(lost.median()), "divergence": float(divergence.median())}


def _value_measures(
    candidate: BestOfNActor, obs: Tensor, probes: ChunkBatch, bounds: tuple[float, float]
) -> dict[str, float]:
    if candidate.critic is None:
        return {}
    actions, valid = torch.from_numpy(probes.actions), torch.from_numpy(probes.valid)
    values = candidate.critic.value(obs, actions, valid).numpy()
    low, high = bounds
    excess = np.maximum(values - high, low - values).max() / (high - low)
    return {"value_mean": float(values.mean()), "value_excess": max(0.0, float(excess))}
