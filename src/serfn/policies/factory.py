"""From a configuration to a policy."""

from __future__ import annotations

import torch

from serfn.policies.base import ChunkPolicy
from serfn.policies.deterministic import DeterministicConfig, DeterministicPolicy
from serfn.policies.diffusion import DiffusionConfig, DiffusionPolicy
from serfn.policies.distilled import DistilledFlowConfig, DistilledFlowPolicy
from serfn.policies.flow import FlowPolicy, FlowPolicyConfig
from serfn.policies.flow_ensemble import FlowEnsemblePolicy
from serfn.policies.flow_matching import FlowMatchingConfig, FlowMatchingPolicy
from serfn.policies.gaussian import GaussianConfig, GaussianPolicy
from serfn.policies.gaussian_mixture import GaussianMixtureConfig, GaussianMixturePolicy

PolicyConfig = (
    FlowPolicyConfig
    | FlowMatchingConfig
    | DistilledFlowConfig
    | DiffusionConfig
    | GaussianConfig
    | GaussianMixtureConfig
    | DeterministicConfig
)
"""Configurations of all policies; their field `type` tells them apart in files."""

CONFIG_TYPES: dict[str, type[PolicyConfig]] = {
    "flow": FlowPolicyConfig,
    "flow_matching": FlowMatchingConfig,
    "distilled_flow": DistilledFlowConfig,
    "diffusion": DiffusionConfig,
    "gaussian": GaussianConfig,
    "gaussian_mixture": GaussianMixtureConfig,
    "deterministic": DeterministicConfig,
}
"""Name of each policy type on disk."""


def make_policy(
    config: PolicyConfig, obs_dim: int, action_dim: int, chunk_size: int, *, seed: int = 0
) -> ChunkPolicy:
    """Build the policy of this configuration, on the CPU in float32.

    The initial weights depend on `seed` alone; the process-wide random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        match config:
            case FlowPolicyConfig():
                kind = FlowPolicy if config.members == 1 else FlowEnsemblePolicy
                return kind(config, obs_dim, action_dim, chunk_size)
            case FlowMatchingConfig():
                return FlowMatchingPolicy(config, obs_dim, action_dim, chunk_size)
            case DistilledFlowConfig():
                return DistilledFlowPolicy(config, obs_dim, action_dim, chunk_size)
            case DiffusionConfig():
                return DiffusionPolicy(config, obs_dim, action_dim, chunk_size)
            case GaussianConfig():
                return GaussianPolicy(config, obs_dim, action_dim, chunk_size)
            case GaussianMixtureConfig():
                return GaussianMixturePolicy(config, obs_dim, action_dim, chunk_size)
            case DeterministicConfig():
                return DeterministicPolicy(config, obs_dim, action_dim, chunk_size)
    known = ", ".join(cls.__name__ for cls in CONFIG_TYPES.values())
    raise ValueError(f"no policy for a {type(config).__name__}: use one of {known}")
