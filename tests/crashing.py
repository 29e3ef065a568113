"""An environment whose simulator breaks in chosen episodes, in every way in which one can."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np

from tests.toy import Reach

CRASHING = "toy/Crashing-v0"
CRASHES = ("step", "reset", "exit", "process", "answer", "nan")
"""Ways to break: an exception in `step` or `reset`, an exit of the interpreter, the death of a simulator in a
process of its own, a step of the wrong form, a first observation that is not finite."""


class Crashing(Reach):
    """Breaks in episodes of `crash_seeds`, at the third step or at the reset.

    Like a simulator that died, it stays broken until it is made anew.
    """

    mended = False
    """Whether somebody put it right."""

    def __init__(self, crash_seeds: Any = (), how: str = "step", render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.crash_seeds, self.how = crash_seeds, how
        self.broken = False
        self.process: Any = None
        if how == "process":
            self.process = subprocess.Popen(
                [sys.executable, "-c", "for line in iter(input, 'die'): print(line, flush=True)"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        if self.broken:
            raise RuntimeError("the simulator is dead")
        self.steps = 0
        self.crashes = seed in self.crash_seeds and not self.mended
        self._ask("reset")
        observation, info = super().reset(seed=seed)
        if self.crashes and self.how == "reset":
            self._break("no such scene")
        return (observation * np.nan if self.crashes and self.how == "nan" else observation), info

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        crash = self.crashes and self.steps == 3
        if crash and self.how == "step":
            self._break("contact solver diverged")
        if crash and self.how == "exit":
            self.broken = True
            sys.exit(3)
        if crash and self.how == "answer":
            return None
        self._ask("die" if crash else "step")
        return super().step(action)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def _break(self, words: str) -> None:
        self.broken = True
        raise RuntimeError(words)

    def _ask(self, word: str) -> None:
        if self.process is None:
            return
        print(word, file=self.process.stdin, flush=True)
        if not self.process.stdout.readline():
            self.process.wait()
            raise ConnectionError("the simulator's process is gone")


def register() -> None:
    """Make the environment known to Gymnasium."""
    if CRASHING not in gymnasium.registry:
        gymnasium.register(CRASHING, Crashing, max_episode_steps=8)  # pyright: ignore[reportArgumentType]
