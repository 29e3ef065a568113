"""Invertible maps with exact log-determinants, and the conditional flow over action chunks.

`forward` always maps base → data (z → u), `inverse` maps u → z.
"""

from __future__ import annotations

from serfn.flows.chunk_flow import ConditionalChunkFlow, FlowConfig

__all__ = ["ConditionalChunkFlow", "FlowConfig"]
