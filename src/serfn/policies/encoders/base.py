"""The contract of observation encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from serfn.core.registry import PartConfig


@dataclass(frozen=True)
class EncoderConfig(
    PartConfig,
    ABC,
    kind="encoders",
    ours={"mlp": "serfn.policies.encoders.mlp:MLPEncoderConfig"},
    default="mlp",
):
    """Configuration of an observation encoder; the key `type` tells them apart in files.

    An encoder of one's own is a frozen dataclass derived from this class, and a module that it builds.
    """

    @property
    @abstractmethod
    def context_dim(self) -> int:
        """Size of the context that the encoder returns."""

    @abstractmethod
    def build(self, obs_dim: int) -> nn.Module:
        """Return the encoder, from normalised observations `[..., obs]` to contexts `[..., context_dim]`.

        Args:
            obs_dim: Size of an observation.

        Raises:
            ValueError: The architecture does not fit this size.
        """
