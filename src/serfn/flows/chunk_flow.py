"""The conditional normalizing flow over whole action chunks, in pre-tanh space.

`forward` maps base → data, `z → u`; `inverse` maps `u → z`. Both are causal in time: `u` at step t depends on
`z` at steps ≤ t and on the context only. Two things follow. The Jacobian is block lower triangular, and
log-determinants are returned per step, [..., chunk]. And the density of a chunk's first h steps is exact: it
is the sum over those steps, whatever stands behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from serfn.core.errors import ConfigError
from serfn.flows.conditioners import CausalMLP, ConditionerShape
from serfn.flows.coupling import ActionCoupling, Coupling, TimeCoupling
from serfn.flows.mixing import CausalMixing
from serfn.flows.transforms import AffineTransform, ElementwiseTransform, SplineTransform
from serfn.flows.whitening import ChunkWhitening, check_minimum_std

DEPTH = 2
"""Hidden layers of each conditioner."""

_PERMUTATION_SEED = 0
"""Which halves the couplings transform is the same for every flow of equal size."""


@dataclass(frozen=True)
class FlowConfig:
    """Size of a `ConditionalChunkFlow`.

    Attributes:
        couplings: Coupling layers, an even number; every action dimension is transformed by half of them, and
            each pair is followed by a `CausalMixing`. 4 suffice; try 6 where imitation does not get as low a
            loss as it should.
        width: Hidden units of each conditioner, shared by all steps of a chunk; raise it for many dimensions
            and much data, lower it for speed.
        minimum_std: Floor of the whitening's standard deviation, in pre-tanh units; lower it for commands
            whose precision is finer than that.

    Raises:
        ConfigError: A size is out of range.
    """

    REMOVED: ClassVar[Mapping[str, str]] = {
        "kind": "maps are affine, and splines where there is one action dimension; leave it out",
        "conditioner": "conditioners are masked perceptrons; leave it out",
    }

    couplings: int = 4
    width: int = 192
    minimum_std: float = 0.05

    def __post_init__(self) -> None:
        if self.couplings < 2 or self.couplings % 2:
            raise ConfigError(f"couplings is {self.couplings}: use an even number ≥ 2, 4 to 6 suffice")
        if self.width < 1:
            raise ConfigError(f"width is {self.width}: it must be at least 1")
        check_minimum_std(self.minimum_std)


class ConditionalChunkFlow(nn.Module):
    """Invertible map between base noise `z` and pre-tanh chunks `u`, both [..., chunk, action].

    Contexts have shape [..., context] with leading axes that broadcast against the chunk's: a context
    [batch, 1, context] serves chunks [batch, count, chunk, action] and is projected once per observation.
    """

    def __init__(self, config: FlowConfig, context_dim: int, action_dim: int, chunk_size: int) -> None:
        super().__init__()
        for name, value in (
            ("context_dim", context_dim),
            ("action_dim", action_dim),
            ("chunk_size", chunk_size),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        self.config = config
        self.action_dim = action_dim
        self.chunk_size = chunk_size
        self.whitening = ChunkWhitening(chunk_size, action_dim, config.minimum_std)
        self.couplings = nn.ModuleList(_make_couplings(config, context_dim, action_dim, chunk_size))
        self.mixings = nn.ModuleList(
            CausalMixing(chunk_size, action_dim) for _ in range(config.couplings // 2)
        )

    def condition(self, context: Tensor) -> list[Tensor]:
        """What depends on the context alone, one tensor per coupling; input of `forward` and `inverse`."""
        return [self._coupling(index).condition(context) for index in range(len(self.couplings))]

    def forward(self, z: Tensor, conditions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Base → data: `(u [..., chunk, action], log|det ∂u/∂z| [..., chunk])`."""
        log_det = z.new_zeros(z.shape[:-1])
        for index, condition in enumerate(conditions):
            z, step_log_det = self._coupling(index)(z, condition)
            log_det = log_det + step_log_det
            if index % 2:
                z = self._mixing(index // 2)(z)
        u, scale_log_det = self.whitening(z)
        return u, log_det + scale_log_det

    def inverse(self, u: Tensor, conditions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Data → base: `(z [..., chunk, action], log|det ∂z/∂u| [..., chunk])`."""
        z, scale_log_det = self.whitening.inverse(u)
        log_det = scale_log_det.expand(z.shape[:-1])
        for index in reversed(range(len(self.couplings))):
            if index % 2:
                z = self._mixing(index // 2).inverse(z)
            z, step_log_det = self._coupling(index).inverse(z, conditions[index])
            log_det = log_det + step_log_det
        return z, log_det

    # A ModuleList forgets the type of its items.
    def _coupling(self, index: int) -> Coupling:
        return cast(Coupling, self.couplings[index])

    def _mixing(self, index: int) -> CausalMixing:
        return cast(CausalMixing, self.mixings[index])


def _make_couplings(config: FlowConfig, context_dim: int, action_dim: int, chunk_size: int) -> list[Coupling]:
    # The first step of one action dimension sees the context alone: affine maps would leave it a Gaussian.
    transform: ElementwiseTransform = AffineTransform() if action_dim > 1 else SplineTransform()

    def conditioner(passive: int, active: int) -> CausalMLP:
        shape = ConditionerShape(chunk_size, passive, active, transform.num_parameters, context_dim)
        return CausalMLP(shape, config.width, DEPTH)

    if action_dim == 1:
        return [
            TimeCoupling(transform, conditioner(1, 1), chunk_size, parity=index % 2)
            for index in range(config.couplings)
        ]
    generator = torch.Generator().manual_seed(_PERMUTATION_SEED)
    couplings: list[Coupling] = []
    for _ in range(config.couplings // 2):
        # A new permutation for each pair: dimensions that share a half in one pair meet in another.
        first, second = torch.randperm(action_dim, generator=generator).split(
            [action_dim // 2, -(-action_dim // 2)]
        )
        for passive, active in ((first, second), (second, first)):
            couplings.append(
                ActionCoupling(transform, conditioner(len(passive), len(active)), passive, active)
            )
    return couplings
