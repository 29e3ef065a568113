"""Small changes of a configuration, of which `methods` are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from serfn.core.errors import ConfigError
from serfn.critics.mlp import MLPCriticConfig
from serfn.critics.per_step import PerStepCriticConfig
from serfn.policies.base import PolicyConfig
from serfn.policies.flow import FlowPolicyConfig
from serfn.training.config import TrainConfig
from serfn.training.improvements.base import ImprovementConfig
from serfn.training.improvements.regularized import RegularizedConfig

Change = Callable[[TrainConfig], TrainConfig]


def with_policy(policy: PolicyConfig) -> Change:
    """Take this policy, with what the preset's says about the data."""
    return lambda config: replace(config, policy=_with_data_settings(policy, config.policy))


def _with_data_settings(policy: PolicyConfig, preset: PolicyConfig) -> PolicyConfig:
    """Give a policy what the task's preset says about its data, where the policy has such a setting.

    Without it a task that asks for precision would compare noise levels and not policies.
    """
    floor = preset.flow if isinstance(preset, FlowPolicyConfig) else preset
    settings = {
        name: getattr(source, name)
        for name, source in (
            ("data_noise", preset),
            ("linear_mean", preset),
            ("minimum_std", floor),
        )
        if hasattr(source, name) and hasattr(policy, name)
    }
    return replace(policy, **settings)


def improved_by(improvement: ImprovementConfig) -> Change:
    """Improve by this in both stages."""
    return lambda config: replace(
        config,
        offline=replace(config.offline, improvement=improvement),
        online=replace(config.online, improvement=improvement),
    )


def without_penalty(config: TrainConfig) -> TrainConfig:
    """Set λ = 0 in both stages, and let nothing adapt it."""

    def free(improvement: ImprovementConfig) -> ImprovementConfig:
        if not isinstance(improvement, RegularizedConfig):
            raise ConfigError(f"improvement of type '{improvement.type}' has no likelihood term to leave out")
        return replace(improvement, coefficient=0.0, target_kl=None)

    return replace(
        config,
        offline=replace(config.offline, improvement=free(config.offline.improvement)),
        online=replace(config.online, improvement=free(config.online.improvement)),
    )


def with_acting(*, candidates: int, temperature: float) -> Change:
    """Act so in collection and evaluation, and at the same temperature after imitation and in targets."""

    def change(config: TrainConfig) -> TrainConfig:
        acting = replace(config.online.acting, candidates=candidates, temperature=temperature)
        return replace(
            config,
            imitation=replace(config.imitation, acting=replace(acting, candidates=1)),
            offline=replace(config.offline, acting=acting),
            online=replace(config.online, acting=acting, collecting=None),
        )

    return change


def _every_way_of_acting(config: TrainConfig, **changes: Any) -> TrainConfig:
    """Change fields of `ActingConfig` in all stages, in evaluation and collection."""
    online, collecting = config.online, config.online.collecting
    return replace(
        config,
        imitation=replace(config.imitation, acting=replace(config.imitation.acting, **changes)),
        offline=replace(config.offline, acting=replace(config.offline.acting, **changes)),
        online=replace(
            online,
            acting=replace(online.acting, **changes),
            collecting=None if collecting is None else replace(collecting, **changes),
        ),
    )


def without_candidates(config: TrainConfig) -> TrainConfig:
    """Act with one sample."""
    return _every_way_of_acting(config, candidates=1)


def with_targets(*, candidates: int = 1, temperature: float = 1.0, smallest: bool = False) -> Change:
    """Bootstrap from the best of so many chunks, and from the smaller of both critics if `smallest`."""
    return lambda config: replace(
        config,
        agent=replace(
            config.agent,
            target_candidates=candidates,
            target_temperature=temperature,
        ),
        critic=replace(config.critic, aggregate="min" if smallest else "mean"),
    )


def half_demonstrations(config: TrainConfig) -> TrainConfig:
    """Learn from demonstrations and online data in equal parts."""
    return replace(config, online=replace(config.online, online_fraction=0.5))


def single_steps(config: TrainConfig) -> TrainConfig:
    """Decide in every control step: chunks of one, so that the chunk critic is the usual one."""
    return replace(_every_way_of_acting(config, n_action_steps=None), chunk_size=1)


def per_step_critic(config: TrainConfig) -> TrainConfig:
    """Keep chunks, value them by their first action, with n-step returns over the length of a chunk."""
    critic = config.critic
    if not isinstance(critic, MLPCriticConfig):
        raise ConfigError(f"a critic of type '{critic.type}' has no per-step counterpart; use type 'mlp'")
    options = {field.name: getattr(critic, field.name) for field in fields(MLPCriticConfig)}
    return replace(config, critic=PerStepCriticConfig(**options))


def without_divergence_alarm(config: TrainConfig) -> TrainConfig:
    """Switch the alarm on the divergence off: it belongs to methods that hold the divergence."""
    alarms = replace(config.online.alarms, max_kl=None)
    return replace(config, online=replace(config.online, alarms=alarms))


def without_warmup(config: TrainConfig) -> TrainConfig:
    """Give the critic updates of the warm-up to the offline stage, so that their number stays."""
    steps = config.offline.steps + config.critic_warmup.steps
    return replace(config, offline=replace(config.offline, steps=steps))


def without_offline(config: TrainConfig) -> TrainConfig:
    """Give the critic updates of the offline stage to the warm-up, so that their number stays."""
    steps = config.offline.steps + config.critic_warmup.steps
    return replace(config, critic_warmup=replace(config.critic_warmup, steps=steps))
