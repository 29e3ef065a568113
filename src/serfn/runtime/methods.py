"""The methods of the literature, and variants of ours, by name: each is a small change of a configuration.

A method starts from a task's preset, which is ours, and keeps everything that it does not define: data,
environment, numbers of episodes and updates, learning rates, gates. Widths of other networks are chosen so
that policy and critic have the parameters of the preset's. `docs/methods.md` says what each changes and where
it departs from its paper.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from serfn.core.config import did_you_mean
from serfn.core.errors import ConfigError
from serfn.core.spec import TaskSpec
from serfn.policies.deterministic import DeterministicConfig
from serfn.policies.diffusion import DiffusionConfig
from serfn.policies.distilled import DistilledFlowConfig
from serfn.policies.factory import PolicyConfig
from serfn.policies.flow import FlowPolicyConfig
from serfn.policies.flow_matching import FlowMatchingConfig
from serfn.policies.gaussian import GaussianConfig
from serfn.policies.gaussian_mixture import GaussianMixtureConfig
from serfn.runtime.capacity import with_equal_size
from serfn.runtime.simulations import Simulations
from serfn.training.config import TrainConfig
from serfn.training.improvement import (
    CloningConfig,
    FqlConfig,
    Improvement,
    ImprovementConfig,
    SacConfig,
    Td3BcConfig,
)
from serfn.training.stages.context import STAGES, StageName

Change = Callable[[TrainConfig], TrainConfig]
replace = dataclasses.replace


@dataclass(frozen=True)
class Method:
    """A method that a study can run.

    Attributes:
        name: Name on the command line and in study files.
        label: What the report calls it.
        summary: What it is, in one sentence.
        citation: Where it comes from.
        changes: What it changes of a task's preset, in this order.
        stages: Stages that it runs.
    """

    name: str
    label: str
    summary: str
    citation: str = "this project"
    changes: tuple[Change, ...] = ()
    stages: tuple[StageName, ...] = field(default=STAGES)

    def configure(self, preset: TrainConfig) -> TrainConfig:
        """Return the configuration of this method for the task of `preset`, with networks of equal size."""
        config = preset
        for change in self.changes:
            config = change(config)
        if (config.policy, config.critic, config.chunk_size) == (
            preset.policy,
            preset.critic,
            preset.chunk_size,
        ):
            return config
        return with_equal_size(config, preset, _task(preset))


def method(name: str) -> Method:
    """Return a method by its name.

    Raises:
        ConfigError: Unknown name; the message suggests one and lists the others.
    """
    if name not in METHODS:
        hint = did_you_mean(name, METHODS)
        raise ConfigError(f"unknown method {name!r}{hint}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def _with_policy(policy: PolicyConfig) -> Change:
    return lambda config: replace(config, policy=_with_data_settings(policy, config.policy))


def _with_data_settings(policy: PolicyConfig, preset: PolicyConfig) -> PolicyConfig:
    """Give a policy what the task's preset says about its data, where the policy has such a setting.

    Without it a task that asks for precision would compare noise levels and not policies.
    """
    floor = preset.flow if isinstance(preset, FlowPolicyConfig) else preset
    settings = {
        name: getattr(source, name)
        for name, source in (
            ("data_limit", preset),
            ("data_noise", preset),
            ("linear_mean", preset),
            ("minimum_std", floor),
        )
        if hasattr(source, name) and hasattr(policy, name)
    }
    return replace(policy, **settings)


def _improved_by(improvement: Improvement) -> Change:
    return lambda config: replace(
        config,
        offline=replace(config.offline, improvement=improvement),
        online=replace(config.online, improvement=improvement),
    )


def _without_anchor(config: TrainConfig) -> TrainConfig:
    """Set λ = 0 in both stages, and let nothing adapt it."""

    def free(improvement: Improvement) -> Improvement:
        if not isinstance(improvement, ImprovementConfig):
            raise ConfigError(f"improvement of type '{improvement.type}' has no likelihood term to leave out")
        return replace(improvement, strength=0.0, target_divergence=None)

    return replace(
        config,
        offline=replace(config.offline, improvement=free(config.offline.improvement)),
        online=replace(config.online, improvement=free(config.online.improvement)),
    )


def _acting(*, candidates: int, temperature: float) -> Change:
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


def _without_candidates(config: TrainConfig) -> TrainConfig:
    return _every_way_of_acting(config, candidates=1)


def _targets(*, candidates: int = 1, temperature: float = 1.0, smallest: bool = False) -> Change:
    """Bootstrap from the best of so many chunks, and from the smaller of both critics if `smallest`."""
    return lambda config: replace(
        config,
        agent=replace(
            config.agent,
            target_candidates=candidates,
            target_temperature=temperature,
            aggregate="min" if smallest else "mean",
        ),
    )


def _half_prior(config: TrainConfig) -> TrainConfig:
    """Learn from demonstrations and own experience half and half."""
    return replace(config, online=replace(config.online, online_fraction=0.5))


def _single_steps(config: TrainConfig) -> TrainConfig:
    """Decide in every control step: chunks of one, so that the chunk critic is the usual one."""
    return replace(_every_way_of_acting(config, n_action_steps=None), chunk_size=1)


def _per_step_critic(config: TrainConfig) -> TrainConfig:
    """Keep chunks, value them by their first action, with n-step returns over the length of a chunk."""
    return replace(config, critic=replace(config.critic, kind="per_step", n_step=None))


def _without_divergence_alarm(config: TrainConfig) -> TrainConfig:
    """Switch the alarm on the divergence off: it belongs to methods that hold the divergence."""
    alarms = replace(config.online.alarms, max_divergence=None)
    return replace(config, online=replace(config.online, alarms=alarms))


def _without_warmup(config: TrainConfig) -> TrainConfig:
    """Give the critic updates of the warm-up to the offline stage, so that their number stays."""
    steps = config.offline.steps + config.critic_warmup.steps
    return replace(config, offline=replace(config.offline, steps=steps))


def _without_offline(config: TrainConfig) -> TrainConfig:
    """Give the critic updates of the offline stage to the warm-up, so that their number stays."""
    steps = config.offline.steps + config.critic_warmup.steps
    return replace(config, critic_warmup=replace(config.critic_warmup, steps=steps))


@lru_cache(maxsize=8)
def _task_of(env: str, options: str) -> TaskSpec:
    simulations = Simulations(env, None, json.loads(options), count=1)
    try:
        return simulations.task
    finally:
        simulations.close()


def _task(config: TrainConfig) -> TaskSpec:
    return _task_of(config.env, json.dumps(config.env_options, sort_keys=True))


_METHODS = (
    Method("ours", "ours", "Normalizing flow, chunk critic, four stages, best of N: the task's preset."),
    Method(
        "rlpd",
        "RLPD",
        "Gaussian policy and critic per control step, SAC on demonstrations and own data half and half.",
        "Ball et al. 2023, arXiv 2302.02948; the learner of HIL-SERL, arXiv 2410.21845",
        (
            _single_steps,
            _with_policy(GaussianConfig()),
            _improved_by(SacConfig()),
            _half_prior,
            _without_divergence_alarm,
            _targets(),
            _acting(candidates=1, temperature=1.0),
        ),
    ),
    Method(
        "rlpd_chunk",
        "RLPD with chunks",
        "Gaussian policy over chunks with a chunk critic, SAC on demonstrations and own experience.",
        "RLPD-AC in Li et al. 2025, arXiv 2507.07969",
        (
            _with_policy(GaussianConfig()),
            _improved_by(SacConfig()),
            _half_prior,
            _without_divergence_alarm,
            _targets(),
            _acting(candidates=1, temperature=1.0),
        ),
    ),
    Method(
        "flow_step_critic",
        "flow, per-step critic",
        "Ours with a critic of first actions on n-step returns in place of the chunk critic.",
        "the n-step baselines of Li et al. 2025, arXiv 2507.07969",
        (_per_step_critic,),
    ),
    Method(
        "qc",
        "QC",
        "Flow matching imitates all data; acting and targets take the best of N under the chunk critic.",
        "Li et al. 2025, Q-chunking, arXiv 2507.07969",
        (
            _with_policy(FlowMatchingConfig(steps=5)),
            _improved_by(CloningConfig()),
            _without_divergence_alarm,
            _targets(candidates=4),
            _acting(candidates=16, temperature=1.0),
        ),
    ),
    Method(
        "qc_fql",
        "QC-FQL",
        "One-step policy distilled from flow matching, improved by the chunk critic's gradient.",
        "Li et al. 2025, arXiv 2507.07969; Park et al. 2025, FQL, arXiv 2502.02538",
        (
            _with_policy(DistilledFlowConfig(steps=5)),
            _improved_by(FqlConfig()),
            _without_divergence_alarm,
            _targets(),
            _acting(candidates=1, temperature=1.0),
        ),
    ),
    Method(
        "diffusion_bc",
        "diffusion BC",
        "Diffusion policy by imitation alone: no critic, no reinforcement learning.",
        "Chi et al. 2023, Diffusion Policy, arXiv 2303.04137",
        (
            _with_policy(DiffusionConfig()),
            _improved_by(CloningConfig()),
            _without_divergence_alarm,
            _acting(candidates=1, temperature=1.0),
        ),
        ("imitation",),
    ),
    Method(
        "td3_bc",
        "TD3+BC",
        "Deterministic policy per control step, held to recorded actions by their squared distance.",
        "Fujimoto and Gu 2021, arXiv 2106.06860; with LayerNorm critics as in ReBRAC, arXiv 2305.09836",
        (
            _single_steps,
            _with_policy(DeterministicConfig()),
            _improved_by(Td3BcConfig()),
            _without_divergence_alarm,
            _targets(smallest=True),
            _acting(candidates=1, temperature=0.5),
        ),
    ),
    Method(
        "gaussian",
        "ours with a Gaussian",
        "Ours with a Gaussian over chunks in place of the flow.",
        changes=(_with_policy(GaussianConfig()),),
    ),
    Method(
        "mixture",
        "ours with a mixture",
        "Ours with a mixture of Gaussians over chunks in place of the flow.",
        changes=(_with_policy(GaussianMixtureConfig()),),
    ),
    Method(
        "q_gradient_nll",
        "Q-gradient + NLL",
        "The critic's gradient through the flow, held by the likelihood of demonstrations.",
        "the operator of SERFN, arXiv 2602.09580",
        (_improved_by(ImprovementConfig(operator="q_gradient", anchor="nll", strength=0.1)),),
    ),
    Method(
        "q_gradient_kl",
        "Q-gradient + exact KL",
        "The critic's gradient through the flow, held by the exact divergence from the clone.",
        changes=(_improved_by(ImprovementConfig(operator="q_gradient", anchor="kl", strength=0.1)),),
    ),
    Method(
        "mpo",
        "MPO",
        "Likelihood of the reference's own chunks, weighted by their value, with a divergence penalty.",
        "Abdolmaleki et al. 2018, arXiv 1806.06920",
        (_improved_by(ImprovementConfig(operator="own_samples", anchor="kl", strength=0.1)),),
    ),
    Method(
        "awr",
        "AWR + exact KL",
        "Likelihood of replayed chunks, weighted by their advantage, with a divergence penalty.",
        "Peng et al. 2019, arXiv 1910.00177; Wang et al. 2020, CRR, arXiv 2006.15134",
        (_improved_by(ImprovementConfig(operator="advantage_weighted", anchor="kl", strength=0.1)),),
    ),
    Method(
        "best_of_n",
        "best of N alone",
        "The flow imitates all data; only the choice among N chunks improves on it.",
        "Ghasemipour et al. 2021, EMaQ, arXiv 2007.11091",
        (_improved_by(CloningConfig()),),
    ),
    Method(
        "unregularized",
        "Q-gradient alone",
        "The critic's gradient through the flow, held by nothing, and with the divergence alarm off.",
        changes=(
            _improved_by(ImprovementConfig(operator="q_gradient", anchor="nll", strength=0.0)),
            _without_divergence_alarm,
        ),
    ),
    Method(
        "no_likelihood",
        "ours without the likelihood term",
        "Ours with λ = 0 on its anchor.",
        changes=(_without_anchor,),
    ),
    Method(
        "no_warmup",
        "ours without warm-up",
        "Ours without the critic's warm-up; its updates go to the offline stage.",
        changes=(_without_warmup,),
        stages=("imitation", "offline", "online"),
    ),
    Method(
        "no_offline",
        "ours without the offline stage",
        "Ours without the offline stage; its critic updates go to the warm-up.",
        changes=(_without_offline,),
        stages=("imitation", "critic_warmup", "online"),
    ),
    Method(
        "no_best_of_n",
        "ours without best of N",
        "Ours acting with one sample.",
        changes=(_without_candidates,),
    ),
)

METHODS: dict[str, Method] = {entry.name: entry for entry in _METHODS}
"""All methods by name, in the order of `docs/methods.md`."""
