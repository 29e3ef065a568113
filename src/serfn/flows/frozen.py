"""A flow whose weights no longer change, with everything constant worked out once: what acting costs.

Drawing a chunk is a few small matrix products, and in a training flow most of the time goes into what stands
around them: masks are multiplied onto weights, dimensions are gathered and put back for every coupling, the
mixing is a triangular solve. None of it depends on the chunk. Here masks are part of the weights, the mixing
is its inverse, the order of dimensions is folded into it, and the contexts of all couplings are one product.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from serfn.flows.chunk_flow import ConditionalChunkFlow
from serfn.flows.coupling import INPUT_LIMIT, ActionCoupling
from serfn.flows.mixing import CausalMixing
from serfn.flows.transforms import LOG_SCALE_LIMIT, AffineTransform


class FrozenChunkFlow(nn.Module):
    """The direction base → data of a `ConditionalChunkFlow`, for drawing: the same map to rounding error.

    `condition` and `forward` are called as those of the flow. Weights are copies, so that training may go on
    beside it.

    Args:
        flow: Flow of affine couplings of action dimensions, as every one is of two dimensions or more.
    """

    def __init__(self, flow: ConditionalChunkFlow) -> None:
        super().__init__()
        self.shape = (flow.chunk_size, flow.action_dim)
        couplings = [cast(ActionCoupling, coupling) for coupling in flow.couplings]
        conditioners = [coupling.conditioner for coupling in couplings]
        self.context = _merged([conditioner.context for conditioner in conditioners])
        self.widths = [width for conditioner in conditioners for width in conditioner.widths]
        self.depth = len(conditioners[0].widths)
        orders = [self._order(coupling) for coupling in couplings[::2]]
        self.register_buffer("entry", orders[0])
        self.sizes = [
            (len(coupling.passive_index) * flow.chunk_size, len(coupling.active_index) * flow.chunk_size)
            for coupling in couplings
        ]
        self.layers = nn.ParameterList()
        offset = 0
        for conditioner, (_, active) in zip(conditioners, self.sizes, strict=True):
            # The conditioner interleaves shift and log-scale; here they stand in two blocks.
            blocks = torch.arange(2 * active).view(active, 2).T.reshape(-1)
            weights = [weight.detach().T for weight in conditioner.masked_weights()]
            weights[0] = weights[0] * INPUT_LIMIT
            weights[-1] = weights[-1][:, blocks]
            self.layers.extend(_constant(weight) for weight in weights)
            end = offset + sum(conditioner.widths)
            last = slice(end - 2 * active, end)
            self.context.weight.data[last] = self.context.weight.data[last][blocks]
            self.context.bias.data[last] = self.context.bias.data[last][blocks]
            offset = end
        self.mixings = nn.ParameterList()
        leave = [*orders[1:], torch.arange(flow.chunk_size * flow.action_dim)]
        scale = flow.whitening.std.flatten()
        for index, (mixing, order, following) in enumerate(zip(flow.mixings, orders, leave, strict=True)):
            inverse = cast(CausalMixing, mixing).solved()[order][:, following]
            last_one = index == len(orders) - 1
            self.mixings.append(_constant(inverse * scale if last_one else inverse))
        self.register_buffer("mean", flow.whitening.mean.flatten().clone())
        self.register_buffer("scale_log_det", flow.whitening.std.log().sum(-1))

    def condition(self, context: Tensor) -> list[Tensor]:
        """What depends on the context [..., context] alone: the share of every layer of every coupling."""
        return list(self.context(context).split(self.widths, dim=-1))

    def forward(self, z: Tensor, conditions: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Base → data: `(u [..., chunk, action], log|det ∂u/∂z| [..., chunk])`."""
        x = z.flatten(-2).index_select(-1, cast(Tensor, self.entry))
        log_det = cast(Tensor, self.scale_log_det)
        passive, active = x.split(self.sizes[0], dim=-1)
        for index in range(len(self.sizes)):
            shift, log_scale = self._predict(index, passive, conditions)
            active = active * log_scale.exp() + shift
            log_det = log_det + log_scale.unflatten(-1, (self.shape[0], -1)).sum(-1)
            passive, active = active, passive
            if index % 2:
                x = torch.cat([passive, active], dim=-1) @ self.mixings[index // 2]
                if index + 1 < len(self.sizes):
                    passive, active = x.split(self.sizes[index + 1], dim=-1)
        return (x + cast(Tensor, self.mean)).unflatten(-1, self.shape), log_det

    def _predict(self, index: int, passive: Tensor, conditions: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Shift and log-scale of coupling `index`, each [..., active elements of the chunk]."""
        first = index * self.depth
        hidden = torch.tanh(passive / INPUT_LIMIT)
        for place in range(first, first + self.depth - 1):
            hidden = functional.silu(hidden @ self.layers[place] + conditions[place])
        last = first + self.depth - 1
        raw = hidden @ self.layers[last] + conditions[last]
        shift, raw_scale = raw.chunk(2, dim=-1)
        return shift, LOG_SCALE_LIMIT * torch.tanh(raw_scale / LOG_SCALE_LIMIT)

    def _order(self, coupling: ActionCoupling) -> Tensor:
        """Places in the flat chunk of the passive elements, then of the active ones, step by step."""
        chunk_size, action_dim = self.shape
        steps = torch.arange(chunk_size).unsqueeze(-1) * action_dim
        halves = (coupling.passive_index, coupling.active_index)
        return torch.cat([(steps + half.cpu()).flatten() for half in halves]).to(
            coupling.passive_index.device
        )


def freeze(flow: ConditionalChunkFlow) -> FrozenChunkFlow | ConditionalChunkFlow:
    """Return the fast form of a flow for drawing, or a copy where there is none (one action dimension)."""
    affine = all(
        isinstance(coupling, ActionCoupling) and isinstance(coupling.transform, AffineTransform)
        for coupling in flow.couplings
    )
    return FrozenChunkFlow(flow) if affine else copy.deepcopy(flow).requires_grad_(False)


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone().contiguous(), requires_grad=False)


def _merged(layers: list[nn.Linear]) -> nn.Linear:
    """One linear layer whose outputs are those of all `layers`, one after the other."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    merged = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    merged.weight = _constant(weight)
    merged.bias = _constant(torch.cat([layer.bias.detach() for layer in layers]))
    return merged
