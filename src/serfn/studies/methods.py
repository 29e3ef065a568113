"""The methods of the literature, and variants of ours, by name: each is a small change of a configuration.

A method starts from a task's preset, which is ours, and keeps everything that it does not define: data,
environment, numbers of episodes and updates, learning rates, gates. Widths of other networks are chosen so
that policy and critic have the parameters of the preset's. `docs/methods.md` says what each changes and where
it departs from its paper.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache

from serfn.core.errors import ConfigError
from serfn.core.spec import TaskSpec
from serfn.core.words import did_you_mean
from serfn.policies.deterministic import DeterministicConfig
from serfn.policies.diffusion import DiffusionConfig
from serfn.policies.distilled import DistilledFlowConfig
from serfn.policies.flow_matching import FlowMatchingConfig
from serfn.policies.gaussian import GaussianConfig
from serfn.policies.gaussian_mixture import GaussianMixtureConfig
from serfn.rollout.simulations import Simulations
from serfn.studies.capacity import with_equal_size
from serfn.studies.method_changes import (
    Change,
    half_demonstrations,
    improved_by,
    per_step_critic,
    single_steps,
    with_acting,
    with_policy,
    with_targets,
    without_candidates,
    without_divergence_alarm,
    without_offline,
    without_penalty,
    without_warmup,
)
from serfn.training.config import TrainConfig
from serfn.training.improvements.bc import BcConfig
from serfn.training.improvements.fql import FqlConfig
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.improvements.sac import SacConfig
from serfn.training.improvements.td3_bc import Td3BcConfig
from serfn.training.stages.state import STAGES, StageName


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
        "Gaussian policy and critic per control step, SAC on demonstrations and online data half and half.",
        "Ball et al. 2023, arXiv 2302.02948; the learner of HIL-SERL, arXiv 2410.21845",
        (
            single_steps,
            with_policy(GaussianConfig()),
            improved_by(SacConfig()),
            half_demonstrations,
            without_divergence_alarm,
            with_targets(),
            with_acting(candidates=1, temperature=1.0),
        ),
    ),
    Method(
        "rlpd_chunk",
        "RLPD with chunks",
        "Gaussian policy over chunks with a chunk critic, SAC on demonstrations and online data.",
        "RLPD-AC in Li et al. 2025, arXiv 2507.07969",
        (
            with_policy(GaussianConfig()),
            improved_by(SacConfig()),
            half_demonstrations,
            without_divergence_alarm,
            with_targets(),
            with_acting(candidates=1, temperature=1.0),
        ),
    ),
    Method(
        "flow_step_critic",
        "flow, per-step critic",
        "Ours with a critic of first actions on n-step returns in place of the chunk critic.",
        "the n-step baselines of Li et al. 2025, arXiv 2507.07969",
        (per_step_critic,),
    ),
    Method(
        "qc",
        "QC",
        "Flow matching imitates all data; acting and targets take the best of N under the chunk critic.",
        "Li et al. 2025, Q-chunking, arXiv 2507.07969",
        (
            with_policy(FlowMatchingConfig(steps=5)),
            improved_by(BcConfig()),
            without_divergence_alarm,
            with_targets(candidates=4),
            with_acting(candidates=16, temperature=1.0),
        ),
    ),
    Method(
        "qc_fql",
        "QC-FQL",
        "One-step policy distilled from flow matching, improved by the chunk critic's gradient.",
        "Li et al. 2025, arXiv 2507.07969; Park et al. 2025, FQL, arXiv 2502.02538",
        (
            with_policy(DistilledFlowConfig(steps=5)),
            improved_by(FqlConfig()),
            without_divergence_alarm,
            with_targets(),
            with_acting(candidates=1, temperature=1.0),
        ),
    ),
    Method(
        "diffusion_bc",
        "diffusion BC",
        "Diffusion policy by imitation alone: no critic, no reinforcement learning.",
        "Chi et al. 2023, Diffusion Policy, arXiv 2303.04137",
        (
            with_policy(DiffusionConfig()),
            improved_by(BcConfig()),
            without_divergence_alarm,
            with_acting(candidates=1, temperature=1.0),
        ),
        ("imitation",),
    ),
    Method(
        "td3_bc",
        "TD3+BC",
        "Deterministic policy per control step, held to recorded actions by their squared distance.",
        "Fujimoto and Gu 2021, arXiv 2106.06860; with LayerNorm critics as in ReBRAC, arXiv 2305.09836",
        (
            single_steps,
            with_policy(DeterministicConfig()),
            improved_by(Td3BcConfig()),
            without_divergence_alarm,
            with_targets(smallest=True),
            with_acting(candidates=1, temperature=0.5),
        ),
    ),
    Method(
        "gaussian",
        "ours with a Gaussian",
        "Ours with a Gaussian over chunks in place of the flow.",
        changes=(with_policy(GaussianConfig()),),
    ),
    Method(
        "mixture",
        "ours with a mixture",
        "Ours with a mixture of Gaussians over chunks in place of the flow.",
        changes=(with_policy(GaussianMixtureConfig()),),
    ),
    Method(
        "q_gradient_nll",
        "Q-gradient + NLL",
        "The critic's gradient through the flow, regularised by the likelihood of demonstrations.",
        "the operator of SERFN, arXiv 2602.09580",
        (improved_by(RegularizedConfig(operator="q_gradient", penalty="nll", coefficient=0.1)),),
    ),
    Method(
        "q_gradient_kl",
        "Q-gradient + exact KL",
        "The critic's gradient through the flow, regularised by the exact KL divergence from the BC policy.",
        changes=(improved_by(RegularizedConfig(operator="q_gradient", penalty="kl", coefficient=0.1)),),
    ),
    Method(
        "mpo",
        "MPO",
        "Likelihood of the reference's chunks, weighted by their value, with a divergence penalty.",
        "Abdolmaleki et al. 2018, arXiv 1806.06920",
        (improved_by(RegularizedConfig(operator="mpo", penalty="kl", coefficient=0.1)),),
    ),
    Method(
        "awr",
        "AWR + exact KL",
        "Likelihood of replayed chunks, weighted by their advantage, with a divergence penalty.",
        "Peng et al. 2019, arXiv 1910.00177; Wang et al. 2020, CRR, arXiv 2006.15134",
        (improved_by(RegularizedConfig(operator="advantage_weighted", penalty="kl", coefficient=0.1)),),
    ),
    Method(
        "best_of_n",
        "best of N alone",
        "The flow imitates all data; only the choice among N chunks improves on it.",
        "Ghasemipour et al. 2021, EMaQ, arXiv 2007.11091",
        (improved_by(BcConfig()),),
    ),
    Method(
        "unregularized",
        "Q-gradient alone",
        "The critic's gradient through the flow, held by nothing, and with the divergence alarm off.",
        changes=(
            improved_by(RegularizedConfig(operator="q_gradient", penalty="nll", coefficient=0.0)),
            without_divergence_alarm,
        ),
    ),
    Method(
        "no_likelihood",
        "ours without the likelihood term",
        "Ours with λ = 0 on its penalty.",
        changes=(without_penalty,),
    ),
    Method(
        "no_warmup",
        "ours without warm-up",
        "Ours without the critic's warm-up; its updates go to the offline stage.",
        changes=(without_warmup,),
        stages=("imitation", "offline", "online"),
    ),
    Method(
        "no_offline",
        "ours without the offline stage",
        "Ours without the offline stage; its critic updates go to the warm-up.",
        changes=(without_offline,),
        stages=("imitation", "critic_warmup", "online"),
    ),
    Method(
        "no_best_of_n",
        "ours without best of N",
        "Ours acting with one sample.",
        changes=(without_candidates,),
    ),
)

METHODS: dict[str, Method] = {entry.name: entry for entry in _METHODS}
"""All methods by name, in the order of `docs/methods.md`."""
