"""Methods by name: each keeps what it does not define, and its networks have equal size."""

from __future__ import annotations

import dataclasses
import json

import pytest

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import ConfigError
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.policies.flow import FlowPolicyConfig
from serfn.policies.gaussian import GaussianConfig
from serfn.runs.presets import preset
from serfn.studies.capacity import critic_parameters, policy_parameters
from serfn.studies.methods import METHODS, method
from serfn.training.build import make_agent, make_stages
from serfn.training.config import TrainConfig
from serfn.training.improvements.fql import FqlConfig
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.improvements.sac import SacConfig
from serfn.training.improvements.td3_bc import Td3BcConfig

pytestmark = pytest.mark.slow

BASE = preset("diagnostic", "demo")
TASK = TaskSpec("point", ObservationSpec(4), ActionSpec((-1.0,) * 2, (1.0,) * 2), 10.0, 80)


@pytest.fixture(scope="module")
def configs() -> dict[str, TrainConfig]:
    return {name: entry.configure(BASE) for name, entry in METHODS.items()}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_can_be_built_stored_and_told_from_others(
    name: str, configs: dict[str, TrainConfig]
) -> None:
    config, entry = configs[name], METHODS[name]
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert entry.label and entry.summary.endswith(".") and entry.citation
    make_stages(config, entry.stages)
    make_agent(config, TASK)
    others = [(configs[key], METHODS[key].stages) for key in METHODS if key != name]
    assert (config, entry.stages) not in others


@pytest.mark.parametrize("name", METHODS)
def test_networks_have_the_parameters_of_ours_within_a_tenth(
    name: str, configs: dict[str, TrainConfig]
) -> None:
    config = configs[name]
    policy = policy_parameters(config.policy, TASK, config.chunk_size)
    critic = critic_parameters(config.critic, TASK, config.chunk_size)
    assert policy == pytest.approx(policy_parameters(BASE.policy, TASK, BASE.chunk_size), rel=0.1)
    assert critic == pytest.approx(critic_parameters(BASE.critic, TASK, BASE.chunk_size), rel=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_budgets_are_equal(name: str, configs: dict[str, TrainConfig]) -> None:
    config, stages = configs[name], METHODS[name].stages
    assert config.imitation.steps == BASE.imitation.steps
    assert config.online.episodes == BASE.online.episodes
    assert config.online.updates_per_round == BASE.online.updates_per_round
    if stages != ("imitation",):
        warmup = config.critic_warmup.steps if "critic_warmup" in stages else 0
        offline = config.offline.steps if "offline" in stages else 0
        assert warmup + offline == BASE.critic_warmup.steps + BASE.offline.steps
    for field in ("env", "plant", "demos", "demo_episodes", "rewards", "seed", "evaluation", "enforce_gates"):
        assert getattr(config, field) == getattr(BASE, field)


@pytest.mark.parametrize("name", METHODS)
def test_policies_get_the_precision_that_the_task_asks_for(name: str) -> None:
    base = preset("scissors", "demo")
    assert isinstance(base.policy, FlowPolicyConfig)
    policy = method(name).configure(base).policy
    assert getattr(policy, "linear_mean")  # noqa: B009 - foreign policies may have none
    assert getattr(policy, "data_noise", base.policy.data_noise) == base.policy.data_noise == 0.003
    floor = policy.flow if isinstance(policy, FlowPolicyConfig) else policy
    assert getattr(floor, "minimum_std", 0.01) == base.policy.flow.minimum_std == 0.01


def test_rlpd_learns_from_demonstrations_and_own_experience_half_and_half() -> None:
    cube = preset("cube", "demo")
    assert cube.online.online_fraction != 0.5
    assert method("rlpd").configure(cube).online.online_fraction == 0.5
    assert method("rlpd_chunk").configure(cube).online.online_fraction == 0.5


def test_ours_is_the_preset() -> None:
    assert method("ours").configure(BASE) == BASE


def test_methods_are_what_their_papers_say(configs: dict[str, TrainConfig]) -> None:
    rlpd = configs["rlpd"]
    assert isinstance(rlpd.policy, GaussianConfig) and rlpd.chunk_size == 1
    assert isinstance(rlpd.online.improvement, SacConfig) and rlpd.online.online_fraction == 0.5
    assert configs["rlpd_chunk"].chunk_size == BASE.chunk_size
    # SAC leaves the clone by design; an alarm on the divergence would undo every update.
    assert rlpd.online.alarms.max_kl is configs["rlpd_chunk"].online.alarms.max_kl is None
    assert configs["mpo"].online.alarms.max_kl is not None
    assert configs["flow_step_critic"].critic.type == "per_step"
    assert configs["flow_step_critic"].policy == BASE.policy
    assert configs["qc"].agent.target_candidates > 1 and configs["qc"].online.acting.candidates > 1
    assert isinstance(configs["qc_fql"].offline.improvement, FqlConfig)
    assert configs["td3_bc"].critic.aggregate == "min"
    assert isinstance(configs["td3_bc"].online.improvement, Td3BcConfig)
    assert METHODS["diffusion_bc"].stages == ("imitation",)
    assert configs["no_best_of_n"].online.acting.candidates == 1
    for name in ("no_best_of_n", "rlpd", "td3_bc"):
        collecting = configs[name].online.collecting
        assert collecting is None or collecting.candidates == 1
    for name in ("no_likelihood", "unregularized"):
        improvement = configs[name].online.improvement
        assert isinstance(improvement, RegularizedConfig) and improvement.coefficient == 0


def test_without_the_likelihood_each_stage_keeps_the_rest_of_its_improvement() -> None:
    base = preset("scissors", "smoke")
    bare = method("no_likelihood").configure(base)
    for before, after in ((base.offline, bare.offline), (base.online, bare.online)):
        assert isinstance(before.improvement, RegularizedConfig)
        free = dataclasses.replace(before.improvement, coefficient=0.0, target_kl=None)
        assert after.improvement == free
    assert bare.offline.improvement != bare.online.improvement


def test_what_has_no_likelihood_term_cannot_lose_it() -> None:
    base = dataclasses.replace(BASE, offline=dataclasses.replace(BASE.offline, improvement=SacConfig()))
    with pytest.raises(ConfigError, match="type 'sac' has no likelihood term"):
        method("no_likelihood").configure(base)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'rldp' \(did you mean 'rlpd'\?\)"):
        method("rldp")
