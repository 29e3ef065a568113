"""Conditioners: networks that predict the parameters of a coupling, causal in time.

Every conditioner maps the untouched ("passive") elements of a chunk [..., chunk, passive] and an observation
context to the raw parameters of the transformed ("active") elements [..., chunk, active, parameters]. The
parameters of step t depend on passive elements of steps ≤ t only. The part that depends on the context alone
is a separate method, so that many chunks for one observation share it by broadcasting.

The output layers start at zero: a fresh coupling is the identity.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import NamedTuple

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


class Conditioner(nn.Module, ABC):
    """Contract of all conditioners."""

    @abstractmethod
    def condition(self, context: Tensor) -> Tensor:
        """Project the context [..., context] once; the result goes to `forward`."""

    @abstractmethod
    def forward(self, passive: Tensor, condition: Tensor) -> Tensor:
        """Raw parameters [..., chunk, active, parameters] from passive elements [..., chunk, passive]."""


class CausalMLP(Conditioner):
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


class CausalTransformer(Conditioner):
    """Pre-norm transformer with one token per step and causal attention (compare TarFlow, arXiv 2412.06329).

    Raises:
        ValueError: width not divisible by the number of heads.
    """

    def __init__(self, shape: ConditionerShape, width: int, depth: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}: choose a multiple")
        self.shape = shape
        self.embed = nn.Linear(shape.passive, width)
        self.position = nn.Parameter(0.02 * torch.randn(shape.chunk, width))
        self.context = nn.Linear(shape.context, width * (depth + 1))
        self.blocks = nn.ModuleList(_CausalBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, shape.active * shape.parameters)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def condition(self, context: Tensor) -> Tensor:
        """The context's share of every block's and the output's input."""
        return self.context(context)

    def forward(self, passive: Tensor, condition: Tensor) -> Tensor:
        """Embed, attend causally, predict per token."""
        shares = condition.unsqueeze(-2).chunk(len(self.blocks) + 1, dim=-1)
        tokens = self.embed(passive) + self.position
        for block, share in zip(self.blocks, shares[:-1], strict=True):
            tokens = block(tokens + share)
        raw = self.head(self.norm(tokens + shares[-1]))
        return raw.unflatten(-1, (self.shape.active, self.shape.parameters))


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

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * self.mask)


class _CausalBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        nn.init.normal_(self.project.weight, std=0.5 / math.sqrt(width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._attend(self.norm_attention(tokens))
        return tokens + self.mlp(self.norm_mlp(tokens))

    def _attend(self, tokens: Tensor) -> Tensor:
        *leading, chunk, width = tokens.shape
        qkv = self.qkv(tokens).reshape(-1, chunk, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.project(mixed.transpose(1, 2).reshape(*leading, chunk, width))
