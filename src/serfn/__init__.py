"""Sample-efficient robot learning with normalizing-flow policies over chunks of actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serfn.api import Serfn

__version__ = "0.1.0"

__all__ = ["Serfn", "__version__"]


def __getattr__(name: str) -> object:
    """Import the interface when it is first used: it needs every part, and `serfn.core` alone needs none."""
    if name == "Serfn":
        from serfn.api import Serfn

        return Serfn
    raise AttributeError(f"module 'serfn' has no attribute {name!r}")
