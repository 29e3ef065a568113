"""Our tasks are known to Gymnasium wherever serfn is installed, without importing serfn first.

Packages announce environments by an entry point of the group `gymnasium.envs`. Gymnasium 1.0 no longer looks
at it, so that `serfn.pth` of the installed package calls `install` when Python starts: nothing is imported
then, but once a program imports Gymnasium the tasks are registered, as the entry point would have done.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_ENVIRONMENTS = "gymnasium.envs"


def register() -> None:
    """Register our tasks with Gymnasium; the entry point."""
    from serfn.tasks.registry import register_envs

    register_envs()


def install() -> None:
    """Register our tasks as soon as Gymnasium is imported."""
    if _ENVIRONMENTS in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _RegisterAfterImport())


class _RegisterAfterImport(MetaPathFinder):
    """Finds one module as everybody else does, and registers once it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _ENVIRONMENTS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                # Programs that never ask for our tasks must not fail with them; who does is told then.
                with contextlib.suppress(Exception):
                    register()

            setattr(spec.loader, "exec_module", execute_and_register)  # noqa: B010
        return spec
