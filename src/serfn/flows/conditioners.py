"""The conditioner: the network that predicts the parameters of a coupling, causal in time.

It maps the untouched ("passive") elements of a chunk [..., chunk, passive] and an observation context to the
raw parameters of the transformed ("active") elements [..., chunk, active, parameters]. The parameters of step
t depend on passive elements of steps ≤ t only. The part that depends on the context alone is a separate
method, so that many chunks for one observation share it by broadcasting.

The output layer starts at zero: a fresh coupling is the identity.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConditionerShape(NamedTuple):
    """Sizes that a coupling dictates to its conditioner."""

    chunk: int
    passive: int
    active: int
    parameters: int
    context: int


class CausalMLP(nn.Module):
    """Multi-layer perceptron over the flat chunk whose weights are block lower triangular in time.

    Hidden units are dealt evenly to steps; a unit of step t reads units of steps ≤ t, in the manner of MADE
    (Germain et al. 2015, arXiv 1502.03509, eq. 8). The whole chunk costs `depth + 1` matrix products. The
    context enters every layer, the output included, through one dense product.

    Raises:
        ValueError: fewer hidden units than steps, or no hidden layer.
    """

    def __init__(self, shape: ConditionerShape, width: int, depth: int) -> None:
        super().__init__()
        if width < shape.chunk:
            raise ValueError(
                f"width is {width}: give each of the {shape.chunk} steps at least one hidden unit"
            )
        if depth < 1:
            raise ValueError(f"depth is {depth}: a conditioner needs at least one hidden layer")
        self.shape = shape
        self.widths = [width] * depth + [shape.chunk * shape.active * shape.parameters]
        inputs = torch.arange(shape.chunk).repeat_interleave(shape.passive)
        hidden = torch.arange(width) * shape.chunk // width
        outputs = torch.arange(shape.chunk).repeat_interleave(shape.active * shape.parameters)
        steps = [inputs] + [hidden] * depth + [outputs]
        self.layers = nn.ModuleList(_MaskedLinear(source, target) for source, target in pairwise(steps))
        self.context = nn.Linear(shape.context, sum(self.widths))
        with torch.no_grad():
            for tensor in (self.context.weight, self.context.bias):
                tensor[-self.widths[-1] :].zero_()
            self.layers[-1].get_parameter("weight").zero_()

    def masked_weights(self) -> list[Tensor]:
        """Weights [outputs, inputs] of the layers from passive elements to parameters, zero off the mask."""
        return [cast(_MaskedLinear, layer).masked_weight() for layer in self.layers]

    def condition(self, context: Tensor) -> Tensor:
        """One dense product: the context's share of every layer's input."""
        return self.context(context)

    def forward(self, passive: Tensor, condition: Tensor) -> Tensor:
        """Run the masked layers, the context's share added before each activation."""
        shares = condition.split(self.widths, dim=-1)
        hidden = passive.flatten(-2)
        for layer, share in zip(self.layers[:-1], shares[:-1], strict=True):
            hidden = functional.silu(layer(hidden) + share)
        raw = self.layers[-1](hidden) + shares[-1]
        return raw.unflatten(-1, (self.shape.chunk, self.shape.active, self.shape.parameters))


class _MaskedLinear(nn.Module):
    """`x ↦ (W ∘ M) x` where M keeps the entries whose input step does not come after the output step."""

    mask: Tensor

    def __init__(self, input_steps: Tensor, output_steps: Tensor) -> None:
        super().__init__()
        mask = (input_steps[None, :] <= output_steps[:, None]).float()
        # Early steps read few inputs: the gain follows each row's own fan-in, not the dense one.
        gain = mask.sum(1, keepdim=True).clamp(min=1.0).rsqrt()
        self.weight = nn.Parameter((2.0 * torch.rand(mask.shape) - 1.0) * gain * mask)
        self.register_buffer("mask", mask, persistent=False)

    def masked_weight(self) -> Tensor:
        """`W ∘ M` [outputs, inputs]."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.masked_weight())
