"""The ORCA-hand family: one hand model, one plant description and one file per task."""

from __future__ import annotations

from importlib import import_module

from serfn.core.extras import PACKAGES, extra

# Everything below needs them; a module of its own would fail with a traceback that names no remedy.
with extra("sim"):
    for _package in PACKAGES["sim"]:
        import_module(_package)
