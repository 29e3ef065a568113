"""Sample-efficient robot learning with normalizing-flow policies over chunks of actions."""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the interface when it is first used: it needs every part, and `serfn.core` alone needs none."""
    if name == "Serfn":
        return import_module("serfn.api").Serfn
    if name == "run_robot":
        return import_module("serfn.sessions.run").run_robot
    raise AttributeError(f"module 'serfn' has no attribute {name!r}")
