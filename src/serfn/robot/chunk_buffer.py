"""Which action of which chunk belongs to which control step.

A chunk planned from the observation of step r holds the actions for steps r, r + 1, …, r + H - 1. Of these
`n_action_steps` are executed; then the next chunk takes over, which was planned from a newer observation:

- *synchronous*: the observation of the very step at which it takes over; the loop waits for the policy.
- *asynchronous*: the observation `lead_steps` earlier. Meanwhile the old chunk goes on, and the new one
  begins with the action meant for the step of the hand-over: the steps that have passed since are skipped.

A chunk that comes late finds the old one continued past its `n_action_steps` if that has actions left; if
not, there is no proposal, and the supervisor holds.

At the hand-over the two chunks are blended over `blend_steps` where the old one still has actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from serfn.core.errors import ConfigError


@dataclass(frozen=True)
class ExecutionConfig:
    """How chunks are executed; how many steps of each is said by the policy, see `ChunkActor`.

    Attributes:
        lead_steps: Steps between the observation of a chunk and its first executed action. 0 is synchronous:
            the loop waits for the policy. For a policy that needs longer than a fraction of a control period,
            set it to more steps than it needs: the old chunk is executed meanwhile.
        blend_steps: Steps over which a new chunk fades in; 0 switches at once. Raise it if an asynchronous
            robot jerks where chunks meet.

    Raises:
        ConfigError: A number is negative.
    """

    lead_steps: int = 0
    blend_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("lead_steps", "blend_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more")

    @property
    def asynchronous(self) -> bool:
        """Whether the old chunk is executed while the policy replans."""
        return self.lead_steps > 0

    def steps(self, chunk_size: int, n_action_steps: int) -> int:
        """Return how many steps of each chunk are executed: `n_action_steps`, or all that the lead leaves.

        Raises:
            ConfigError: They are more than the chunk has, or not more than the lead.
        """
        if not 1 <= n_action_steps <= chunk_size:
            raise ConfigError(
                f"n_action_steps is {n_action_steps}; the policy's chunks have {chunk_size} steps, use 1 to "
                "that"
            )
        steps = min(n_action_steps, chunk_size - self.lead_steps)
        if steps <= self.lead_steps:
            raise ConfigError(
                f"{steps} steps are executed of each chunk of {chunk_size}, and the next one is asked for "
                f"{self.lead_steps} steps ahead; lower lead_steps, raise n_action_steps or use longer chunks"
            )
        return steps


@dataclass(frozen=True, eq=False)
class ChunkDecision:
    """A chunk that a policy decided on.

    Attributes:
        actions: `[chunk, action]`, physical units; None if the policy or the gate gave none.
        step: Control step of the observation that it was decided from.
        policy_version: Number of the policy.
        log_likelihood: Of the chunk under the reference policy; NaN without a gate.
        flagged: The gate found it out of range.
        seconds: Time that the decision took.
        detail: Why there are no actions.
    """

    actions: np.ndarray | None
    step: int
    policy_version: int = 0
    log_likelihood: float = math.nan
    flagged: bool = False
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Proposal:
    """What the policy wants at one control step.

    Attributes:
        action: `[action]`, physical units, as the policy gave it.
        chunk_start: A new chunk begins here.
        decision: The chunk that it belongs to.
    """

    action: np.ndarray
    chunk_start: bool
    decision: ChunkDecision


class ChunkBuffer:
    """The chunk in execution and the one that comes next.

    Args:
        config: How chunks are executed.
        chunk_size: Steps H of a chunk.
        n_action_steps: Steps of each chunk that the policy wants executed.

    Raises:
        ConfigError: The configuration does not fit the chunk size.
    """

    def __init__(self, config: ExecutionConfig, chunk_size: int, n_action_steps: int) -> None:
        self._config = config
        self._steps = config.steps(chunk_size, n_action_steps)
        self._chunk_size = chunk_size
        self.clear()

    def clear(self) -> None:
        """Forget all chunks: the world has changed, and the next one starts from its beginning."""
        self._current: ChunkDecision | None = None
        self._old: np.ndarray | None = None
        self._next: ChunkDecision | None = None
        self._index = self._end = self._blended = 0
        self._requested: int | None = None
        self._executed_since_request = 0

    def wants_chunk(self, step: int) -> bool:
        """Whether the observation of the present `step` shall be given to the policy."""
        if self._requested is not None:
            # Nothing of a chunk asked for so long ago would be left to execute.
            return step - self._requested >= self._chunk_size
        if self._next is not None:
            return False
        return self._current is None or self._index >= self._end - self._config.lead_steps

    @property
    def pending(self) -> bool:
        """Whether a chunk was asked for that has not come."""
        return self._requested is not None

    def requested(self, step: int) -> None:
        """Note that the observation of `step` went to the policy."""
        self._requested = step
        self._executed_since_request = 0

    def offer(self, decision: ChunkDecision) -> None:
        """Take a decision; one that was not asked for, or is outdated, is ignored."""
        if decision.step != self._requested:
            return
        self._requested = None
        if decision.actions is not None:
            self._next = decision

    def take(self) -> Proposal | None:
        """Return what the policy wants at the present step, and move on to the next; None if nothing."""
        start = self._next is not None and (self._current is None or self._index >= self._end)
        if start:
            self._hand_over()
        current = self._current
        if current is None or current.actions is None or self._index >= len(current.actions):
            # Without a chunk in execution nothing is skipped later: the robot waited.
            self._current = None
            return None
        action = self._blend(current.actions[self._index])
        self._index += 1
        self._executed_since_request += 1
        return Proposal(action, start, current)

    def _hand_over(self) -> None:
        new, old = self._next, self._current
        assert new is not None
        assert new.actions is not None
        self._old = None
        if old is not None and old.actions is not None and self._index < len(old.actions):
            self._old = old.actions[self._index :]
        self._current, self._next = new, None
        # Steps during which the robot waited are not steps that the chunk has moved on.
        self._index = min(self._executed_since_request, len(new.actions) - 1)
        self._end = min(self._index + self._steps, len(new.actions))
        self._blended = 0

    def _blend(self, action: np.ndarray) -> np.ndarray:
        """Fade from the old chunk's action for this step to the new one's."""
        blend_steps, old = self._config.blend_steps, self._old
        if old is None or self._blended >= min(blend_steps, len(old)):
            self._old = None
            return action
        weight = (self._blended + 1) / (blend_steps + 1)
        blended = (1.0 - weight) * old[self._blended] + weight * action
        self._blended += 1
        return blended
