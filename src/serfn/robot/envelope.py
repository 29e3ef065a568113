"""The envelope of commands: position, speed and acceleration limits that hold for every command sequence.

With command positions q_k at period T, let the step be u_k = q_k - q_{k-1}. The envelope is

    low ≤ q_k ≤ high,   |u_k| ≤ V T,   |u_k - u_{k-1}| ≤ A T² =: D,

and, so that these can hold forever, every step must leave room to brake: from a step u > 0, the remaining
steps u - D, u - 2D, … must fit before `high`. The largest step with total stopping distance d is

    n = ⌊(√(1 + 8 d/D) - 1) / 2⌋,   u = d / (n + 1) + n D / 2,

the discrete-time form of u = √(2 A d) T. By induction the set of allowed steps is never empty.
"""

from __future__ import annotations

import numpy as np

_LANDED = 1e-12


def largest_step(distance: np.ndarray, deceleration: np.ndarray) -> np.ndarray:
    """Return the largest step from which braking at `deceleration` ends within `distance`.

    Args:
        distance: Room `[action]`, at least 0, that this step and all braking steps share.
        deceleration: Largest decrease D > 0 `[action]` of a step from one to the next.

    >>> largest_step(np.array([0.0, 0.5, 3.0, 6.0]), np.ones(4)).tolist()
    [0.0, 0.5, 2.0, 3.0]
    """
    brakings = np.floor((np.sqrt(1.0 + 8.0 * distance / deceleration) - 1.0) / 2.0)
    return distance / (brakings + 1.0) + brakings * deceleration / 2.0


class Envelope:
    """Turns wanted positions into the nearest commands inside the envelope.

    Targets that one step can reach are commanded exactly, so that the envelope is invisible to a policy that
    keeps to it. Once a target cannot be reached, the command lags behind and closes the gap as fast as it can
    while still meeting the target at the target's own speed.

    Args:
        low: Lowest positions `[action]`.
        high: Highest positions `[action]`.
        max_speed: Largest speeds `[action]`, per second.
        max_acceleration: Largest accelerations `[action]`, per second squared.
        period_s: Time T between commands.
    """

    def __init__(
        self,
        low: np.ndarray,
        high: np.ndarray,
        max_speed: np.ndarray,
        max_acceleration: np.ndarray,
        period_s: float,
    ) -> None:
        self.low, self.high = low.astype(np.float64), high.astype(np.float64)
        self.max_step = max_speed * period_s
        self.max_change = max_acceleration * period_s**2
        self._position = np.clip(np.zeros_like(self.low), self.low, self.high)
        self._step = np.zeros_like(self.low)
        self._target = self._position

    @property
    def position(self) -> np.ndarray:
        """The last command `[action]`; a view."""
        return self._position

    @property
    def at_rest(self) -> bool:
        """Whether the last two commands were equal."""
        return not self._step.any()

    def start(self, position: np.ndarray) -> None:
        """Begin at rest at `position` `[action]`, clipped to the position limits."""
        self._position = np.clip(np.asarray(position, np.float64), self.low, self.high)
        self._step = np.zeros_like(self.low)
        self._target = self._position

    def advance(self, target: np.ndarray, *, settle: bool = False) -> np.ndarray:
        """Return the next command `[action]`, a new array.

        Args:
            target: Wanted positions `[action]`, finite, anywhere.
            settle: Come to rest at the target, which is taken to stand still.
        """
        wanted_position = np.clip(target, self.low, self.high)
        wanted = wanted_position - self._position
        room_up = np.maximum(self.high - self._position, 0.0)
        room_down = np.maximum(self._position - self.low, 0.0)
        change, max_step = self.max_change, self.max_step
        most = np.minimum(np.minimum(max_step, largest_step(room_up, change)), self._step + change)
        least = np.maximum(np.maximum(-max_step, -largest_step(room_down, change)), self._step - change)
        # Equal up to round-off where braking uses all the room.
        least = np.minimum(least, most)
        if settle:
            drift, exact = np.zeros_like(wanted), np.zeros(wanted.shape, np.bool_)
        else:
            drift = np.clip(wanted_position - self._target, -max_step, max_step)
            exact = (wanted >= least) & (wanted <= most) & (self._position == self._target)
        gap = wanted - drift
        approach = drift + np.copysign(largest_step(np.abs(gap), change), gap)
        step = np.clip(np.where(exact, wanted, approach), least, most)
        command = np.clip(self._position + step, self.low, self.high)
        # An exact step must land on the target, not one round-off beside it, to count as tracking.
        command = np.where(exact | (np.abs(command - wanted_position) < _LANDED), wanted_position, command)
        self._step = command - self._position
        self._position = command
        self._target = wanted_position
        return command.copy()

    def brake(self) -> np.ndarray:
        """Return the next command on the shortest way to standstill."""
        return self.advance(self._position, settle=True)
