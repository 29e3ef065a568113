"""A chunk critic that reads the chunk step by step and values each of its prefixes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from serfn.critics.base import ChunkCritic, EnsembleLinear
from serfn.critics.heads import ValueHead

_OUTPUT_GAIN = 0.1
_POSITION_STD = 0.02


class TransformerChunkCritic(ChunkCritic):
    """Causal transformer over one observation token and one token per action.

    The output at action token k is `Q(s_t, a_{t:t+k})`, the value of executing the first k actions and then
    following the policy. All prefixes share one pass and are all supervised (`prefix_targets`), which gives
    short-horizon targets beside the long ones; acting and bootstrapping use the value of the whole chunk.

    Reference: TOP-ERL, arXiv 2410.09536 (transformer critic over action sequences with N-step
        targets).

    Args:
        obs_dim: Size of an observation.
        action_dim: Size of an action.
        chunk_size: Steps of a chunk.
        head: Meaning of the outputs.
        ensemble: Number of independent members.
        width: Features of a token.
        depth: Number of blocks.
        attention_heads: Attention heads, a divisor of `width`.
        generator: Source of the initial weights.

    Raises:
        ValueError: `attention_heads` does not divide `width`.
    """

    supervises_prefixes = True

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        chunk_size: int,
        *,
        head: ValueHead,
        ensemble: int = 2,
        width: int = 192,
        depth: int = 3,
        attention_heads: int = 4,
        generator: torch.Generator,
    ) -> None:
        super().__init__(obs_dim, action_dim, chunk_size, ensemble=ensemble, head=head)
        if width % attention_heads:
            raise ValueError(f"width {width} is not a multiple of attention_heads {attention_heads}")
        self.obs_token = EnsembleLinear(ensemble, obs_dim, width, gain=1.0, generator=generator)
        self.action_token = EnsembleLinear(ensemble, action_dim, width, gain=1.0, generator=generator)
        position = torch.empty(ensemble, 1, chunk_size + 1, width, dtype=torch.float32)
        self.position = nn.Parameter(position.normal_(std=_POSITION_STD, generator=generator))
        self.blocks = nn.ModuleList(
            _Block(
                ensemble, width, attention_heads, residual_gain=1 / math.sqrt(2 * depth), generator=generator
            )
            for _ in range(depth)
        )
        self.output = EnsembleLinear(ensemble, width, head.size, gain=_OUTPUT_GAIN, generator=generator)

    def forward(self, obs: Tensor, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return outputs `[ensemble, batch, head.size]` of the valid prefix, see `ChunkCritic.forward`."""
        outputs = self.prefix_outputs(obs, actions)
        if valid is None:
            return outputs[:, :, -1]
        last = valid.sum(dim=1) - 1
        return outputs[:, torch.arange(len(last), device=last.device), last]

    def prefix_outputs(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Return the head's outputs of all prefixes, `[ensemble, batch, chunk, head.size]`.

        Entry k - 1 along `chunk` belongs to the prefix of k actions and depends on no later action.

        Args:
            obs: `[batch, obs]`, raw units.
            actions: `[batch, chunk, action]` in [-1, 1].
        """
        batch, chunk, _ = actions.shape
        members = (self.ensemble, -1, -1)
        x, chunks = self._read(obs, actions)
        obs_token = self.obs_token(x.expand(members)).unsqueeze(2)
        action_tokens = self.action_token(chunks.flatten(0, 1).expand(members)).unflatten(1, (batch, chunk))
        tokens = torch.cat([obs_token, action_tokens], dim=2) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        read = functional.layer_norm(tokens[:, :, 1:], tokens.shape[-1:]).flatten(1, 2)
        return self.output(read).unflatten(1, (batch, chunk))

    def prefix_values(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Return the values of all prefixes, `[ensemble, batch, chunk]`; arguments as in `prefix_outputs`."""
        return self.head.mean(self.prefix_outputs(obs, actions))


class _Block(nn.Module):
    """Causal self-attention, then a two-layer perceptron, each normalised at its input and residual."""

    def __init__(
        self, ensemble: int, width: int, heads: int, *, residual_gain: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = EnsembleLinear(ensemble, width, 3 * width, gain=1.0, generator=generator)
        self.attended = EnsembleLinear(ensemble, width, width, gain=residual_gain, generator=generator)
        self.expand = EnsembleLinear(ensemble, width, 2 * width, gain=math.sqrt(2), generator=generator)
        self.contract = EnsembleLinear(ensemble, 2 * width, width, gain=residual_gain, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map `[ensemble, batch, tokens, width]` to the same shape."""
        ensemble, batch, length, width = tokens.shape
        rows = tokens.flatten(1, 2)
        qkv = self.qkv(functional.layer_norm(rows, (width,)))
        qkv = qkv.view(ensemble * batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(ensemble, batch * length, width)
        rows = rows + self.attended(mixed)
        rows = rows + self.contract(functional.silu(self.expand(functional.layer_norm(rows, (width,)))))
        return rows.unflatten(1, (batch, length))
