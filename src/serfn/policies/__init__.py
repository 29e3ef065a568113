"""Policies over chunks of actions: the normalizing flow and its baselines behind one contract."""

from __future__ import annotations

from serfn.policies.base import ChunkPolicy, LikelihoodPolicy, PolicyConfig
from serfn.policies.bundle import PolicyBundle, load_bundle, save_bundle
from serfn.policies.deterministic import DeterministicConfig, DeterministicPolicy
from serfn.policies.diffusion import DiffusionConfig, DiffusionPolicy
from serfn.policies.distilled import DistilledFlowConfig, DistilledFlowPolicy
from serfn.policies.factory import make_policy
from serfn.policies.flow import FlowPolicy, FlowPolicyConfig
from serfn.policies.flow_ensemble import FlowEnsemblePolicy
from serfn.policies.flow_matching import FlowMatchingConfig, FlowMatchingPolicy
from serfn.policies.gaussian import GaussianConfig, GaussianPolicy
from serfn.policies.gaussian_mixture import GaussianMixtureConfig, GaussianMixturePolicy
from serfn.policies.squashed import SquashedPolicy

__all__ = [
    "ChunkPolicy",
    "DeterministicConfig",
    "DeterministicPolicy",
    "DiffusionConfig",
    "DiffusionPolicy",
    "DistilledFlowConfig",
    "DistilledFlowPolicy",
    "FlowEnsemblePolicy",
    "FlowMatchingConfig",
    "FlowMatchingPolicy",
    "FlowPolicy",
    "FlowPolicyConfig",
    "GaussianConfig",
    "GaussianMixtureConfig",
    "GaussianMixturePolicy",
    "GaussianPolicy",
    "LikelihoodPolicy",
    "PolicyBundle",
    "PolicyConfig",
    "SquashedPolicy",
    "load_bundle",
    "make_policy",
    "save_bundle",
]
