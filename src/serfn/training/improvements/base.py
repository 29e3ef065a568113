"""The contract of improvements: what turns a policy, a critic and a batch into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from serfn.core.errors import ConfigError
from serfn.core.registry import PartConfig
from serfn.critics.base import ChunkCritic
from serfn.policies.base import ChunkPolicy
from serfn.training.batch import TensorBatch
from serfn.training.losses import Metrics

PolicyT = TypeVar("PolicyT", bound=ChunkPolicy)


@dataclass(frozen=True)
class ImprovementConfig(
    PartConfig,
    ABC,
    kind="improvements",
    ours={
        "regularized": "serfn.training.improvements.regularized:RegularizedConfig",
        "sac": "serfn.training.improvements.sac:SacConfig",
        "td3_bc": "serfn.training.improvements.td3_bc:Td3BcConfig",
        "fql": "serfn.training.improvements.fql:FqlConfig",
        "bc": "serfn.training.improvements.bc:BcConfig",
    },
    default="regularized",
):
    """How the policy improves; the key `type` tells the configurations apart in files.

    An improvement of one's own is a frozen dataclass derived from this class.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "type=anchored": "type=regularized",
        "type=cloning": "type=bc",
        "strength": "coefficient",
    }
    REMOVED: ClassVar[Mapping[str, str]] = {
        name: "it is a constant; leave it out"
        for name in ("strength_rate", "min_strength", "max_strength", "sample_fraction")
    }

    policy_type: ClassVar[type[ChunkPolicy]] = ChunkPolicy
    """The policies that this loss can train."""

    @property
    def initial_coefficient(self) -> float:
        """λ at the start of a stage: the option `coefficient`, or 0 for a loss that has none."""
        return getattr(self, "coefficient", 0.0)

    @property
    def imitates_demonstrations(self) -> bool:
        """Whether the loss reads demonstrations beside its batch."""
        return False

    @abstractmethod
    def loss(
        self,
        policy: ChunkPolicy,
        reference: ChunkPolicy,
        critic: ChunkCritic,
        batch: TensorBatch,
        demonstrations: TensorBatch,
        *,
        coefficient: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Metrics]:
        """Return the loss of one policy step, with its metrics.

        Args:
            policy: Policy to improve.
            reference: Frozen policy that a penalty keeps it close to.
            critic: Judge of chunks; gets no gradient from here.
            batch: Transitions to improve on.
            demonstrations: Transitions to imitate where `imitates_demonstrations`.
            coefficient: λ, scalar.
            generator: Source of noise on the device of the policy.

        Raises:
            ConfigError: The loss is not one for this kind of policy.
        """

    def adapted(self, coefficient: Tensor, metrics: Metrics) -> Tensor:
        """Return λ for the next step, given what the loss measured in this one; it stays by default."""
        return coefficient

    def check_policy(self, policy: ChunkPolicy) -> None:
        """Raise `ConfigError` unless this loss can train this kind of policy."""
        self.required(policy, self.policy_type)

    def required(self, policy: ChunkPolicy, kind: type[PolicyT]) -> PolicyT:
        """Return `policy` as one of this kind.

        Raises:
            ConfigError: It is of another kind.
        """
        if not isinstance(policy, kind):
            raise ConfigError(
                f"improvement of type '{self.type}' cannot train a {type(policy).__name__}, only a "
                f"{kind.__name__}; change policy.type or improvement.type"
            )
        return policy


def check_coefficient(value: float, usual: float) -> None:
    """Raise `ConfigError` unless λ is 0 or more; `usual` goes into the message."""
    if not value >= 0:
        raise ConfigError(f"coefficient is {value}; it must be 0 or more, {usual:g} is usual")


def check_adapted(value: float, low: float, high: float) -> None:
    """Raise `ConfigError` unless a λ that adapts starts within its bounds."""
    if not low <= value <= high:
        raise ConfigError(
            f"coefficient is {value}; one that adapts to a target starts between {low:g} and {high:g}"
        )
