"""Environments of a run: made when first needed, reused by every collection and evaluation."""

from __future__ import annotations

import dataclasses
from typing import Any

from serfn.core.errors import ConfigError
from serfn.core.sides import Side
from serfn.core.spec import TaskSpec
from serfn.rollout.environments import make_env, stated_rate, task_spec
from serfn.rollout.guarded import GuardedEnv


class Simulations:
    """Equal environments that run side by side.

    Args:
        env: Gymnasium id.
        plant: Variant of one of our tasks; None leaves the environment's default.
        options: Further keyword arguments of the environment.
        count: Largest number of environments.
        threads: Environments stepped at the same time.
        control_hz: Control steps per second; None is what the environment says.

    Raises:
        ConfigError: A number is below 1.
    """

    def __init__(
        self,
        env: str,
        plant: str | None,
        options: dict[str, Any],
        *,
        count: int = 8,
        threads: int = 1,
        control_hz: float | None = None,
    ) -> None:
        if count < 1 or threads < 1:
            raise ConfigError(f"simulations are {count} on {threads} threads; both must be at least 1")
        self.env_id = env
        self.threads = threads
        self.control_hz = control_hz
        self._options = options if plant is None else {**options, "plant": plant}
        self._count = count
        self._envs: list[GuardedEnv] = []

    @property
    def task(self) -> TaskSpec:
        """What the environments ask for."""
        task = task_spec(self.up_to(1)[0])
        return task if self.control_hz is None else dataclasses.replace(task, control_hz=self.control_hz)

    @property
    def side(self) -> Side:
        """What the environments say, to be compared with what acts in them or was recorded for them."""
        known = self.control_hz is not None or stated_rate(self.up_to(1)[0]) is not None
        return Side.of_task(f"environment '{self.env_id}'", self.task, rate_known=known)

    def up_to(self, episodes: int) -> list[GuardedEnv]:
        """Return environments for `episodes` episodes, as many as are allowed to run side by side."""
        wanted = min(episodes, self._count)
        while len(self._envs) < wanted:
            self._envs.append(make_env(self.env_id, **self._options))
        return self._envs[:wanted]

    def rendering(self) -> GuardedEnv:
        """Return a further environment that renders images; the caller closes it."""
        return make_env(self.env_id, **self._options, render_mode="rgb_array")

    def close(self) -> list[str]:
        """Close all environments, and return what went wrong with it: that costs no result."""
        envs, self._envs = self._envs, []
        for env in envs:
            env.close()
        return sorted({env.close_failure for env in envs if env.close_failure is not None})
