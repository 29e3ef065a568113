"""Policies over chunks of actions: the normalizing flow and two iterative baselines behind one contract."""

from __future__ import annotations

from serfn.policies.base import ChunkPolicy, LikelihoodPolicy
from serfn.policies.bundle import PolicyBundle, load_bundle, save_bundle
from serfn.policies.diffusion import DiffusionConfig, DiffusionPolicy
from serfn.policies.factory import PolicyConfig, make_policy
from serfn.policies.flow import FlowPolicy, FlowPolicyConfig
from serfn.policies.flow_matching import FlowMatchingConfig, FlowMatchingPolicy

__all__ = [
    "ChunkPolicy",
    "DiffusionConfig",
    "DiffusionPolicy",
    "FlowMatchingConfig",
    "FlowMatchingPolicy",
    "FlowPolicy",
    "FlowPolicyConfig",
    "LikelihoodPolicy",
    "PolicyBundle",
    "PolicyConfig",
    "load_bundle",
    "make_policy",
    "save_bundle",
]
