"""A simulated hand in real time: the physics follow the clock, not the commands, as on a real machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import gymnasium
import numpy as np

from serfn.robot.adapters.gymnasium import GymnasiumRobot
from serfn.robot.adapters.impairments import ImpairedChannel, Impairments
from serfn.robot.clock import Clock
from serfn.robot.contract import Action, Observation

_MOST_STEPS_AT_ONCE = 20


class SimulatedRobot(GymnasiumRobot):
    """A Gymnasium environment whose time is the loop's.

    At each reading, the environment takes the steps that have become due since the last one, under the target
    that was in force: a loop that is late finds that the world went on without it. A reading half a period
    early or late counts as on time.

    Args:
        env: The environment; its control rate is `metadata["render_fps"]`.
        clock: Clock of the loop.
        name: Short name, such as `simulated:cube`.
        impairments: Latency, jitter, lost frames and faults; None has none.
        generator: Source of jitter and lost frames.
        rest: Pose to park in `[action]`; None stays where it is.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        clock: Clock,
        name: str,
        *,
        impairments: Impairments | None = None,
        generator: np.random.Generator | None = None,
        rest: Sequence[float] | None = None,
    ) -> None:
        super().__init__(env, clock, name, rest=rest, simulated=True)
        self._impairments = impairments or Impairments()
        self._channel = ImpairedChannel(
            self._impairments, self.info, clock, generator or np.random.default_rng(0)
        )
        self._period_s = 1.0 / self.info.control_hz

    def reset_scene(self, seed: int | None = None) -> None:
        """Reset the environment; its time stands still until the first reading."""
        super().reset_scene(seed)
        self._channel.reset()
        self._anchor_s: float | None = None
        self._due: deque[np.ndarray] = deque()
        self._target: np.ndarray | None = None

    def get_observation(self) -> Observation:
        """See `Robot`."""
        self._require_connection()
        self._catch_up()
        return self._channel.read(super().get_observation())

    def send_action(self, action: Action) -> Action:
        """See `Robot`; the target takes effect after the actuators' delay."""
        sent = self._executable(action)
        self._channel.check_answer()
        self._catch_up()
        self._due.append(sent)
        if len(self._due) > self._impairments.actuator_delay_steps:
            self._target = self._due.popleft()
        return dict(zip(self.info.action.names, sent.tolist(), strict=True))

    def _catch_up(self) -> None:
        """Take the environment steps that have become due."""
        now_s = self._clock.now()
        if self._anchor_s is None:
            self._anchor_s, self._time_s = now_s, now_s
            return
        if self._target is None:
            # Nothing has been commanded: the hand stays as the reset left it.
            self._anchor_s = now_s
            return
        due = round((now_s - self._anchor_s) / self._period_s)
        for _ in range(min(due, _MOST_STEPS_AT_ONCE)):
            self._step(self._target)
        self._anchor_s += due * self._period_s
