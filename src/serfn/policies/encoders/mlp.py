"""The encoder of state observations: a perceptron."""

from __future__ import annotations

from dataclasses import dataclass

from serfn.policies.encoders.base import EncoderConfig
from serfn.policies.networks import ObservationEncoder, check_sizes


@dataclass(frozen=True)
class MLPEncoderConfig(EncoderConfig):
    """Configuration of an `ObservationEncoder`.

    Attributes:
        width: units of every layer, and size of the context.
        depth: layers.

    Raises:
        ConfigError: A size is below 1.
    """

    width: int = 192
    depth: int = 2

    def __post_init__(self) -> None:
        check_sizes(encoder_width=self.width, encoder_depth=self.depth)

    @property
    def context_dim(self) -> int:
        """The width."""
        return self.width

    def build(self, obs_dim: int) -> ObservationEncoder:
        """Return the encoder with its initial weights."""
        return ObservationEncoder(obs_dim, self.width, self.depth)
