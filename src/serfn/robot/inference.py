"""Asking the policy for chunks beside the control loop.

The control thread hands over an observation and later picks up the decision; it never waits for the policy
without a bound. An actor that raises gives a decision without actions: the robot holds, and stops if that
lasts.
"""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np

from serfn.core.protocols import ChunkActor
from serfn.robot.chunk_buffer import ChunkDecision
from serfn.robot.clock import Clock
from serfn.robot.gate import LikelihoodGate
from serfn.robot.priority import INFERENCE_PRIORITY, real_time_priority


class ChunkInference(Protocol):
    """Decides on chunks, in its own time."""

    @property
    def chunk_size(self) -> int:
        """Steps H of a chunk."""
        ...

    @property
    def n_action_steps(self) -> int:
        """Steps of a chunk that are executed."""
        ...

    def reset(self, seed: int) -> None:
        """Begin an episode: forget requests, restart the random stream."""
        ...

    def submit(self, observation: np.ndarray, step: int) -> None:
        """Ask for the chunk of control step `step`; never waits. A request still open is dropped."""
        ...

    def collect(self, timeout_s: float = 0.0) -> ChunkDecision | None:
        """Return the decision if there is one by then; it is returned once."""
        ...

    def close(self) -> None:
        """Free what runs beside the loop."""
        ...


def decide(
    actor: ChunkActor, gate: LikelihoodGate | None, observation: np.ndarray, step: int, clock: Clock
) -> ChunkDecision:
    """Ask `actor` for the chunk of one observation `[obs]`, through the gate if there is one.

    The version of the policy is the actor's attribute `version`, 0 if it has none, read before the decision.
    """
    version, begin_s = int(getattr(actor, "version", 0)), clock.now()

    def draw() -> np.ndarray:
        return np.asarray(actor.act(observation[None])[0], np.float64)

    try:
        if gate is None:
            return ChunkDecision(draw(), step, version, seconds=clock.now() - begin_s)
        result = gate.decide(observation, draw)
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        return ChunkDecision(None, step, version, seconds=clock.now() - begin_s, detail=detail)
    return ChunkDecision(
        result.actions,
        step,
        version,
        log_likelihood=result.log_likelihood,
        flagged=result.flagged,
        seconds=clock.now() - begin_s,
        detail="" if result.actions is not None else "the likelihood gate refused it",
    )


class InlineInference:
    """Decides at once, in the calling thread: for tests, scripted actors and policies of microseconds.

    Args:
        actor: The policy.
        clock: The loop's clock.
        gate: The likelihood gate, if any.
    """

    def __init__(self, actor: ChunkActor, clock: Clock, gate: LikelihoodGate | None = None) -> None:
        self._actor = actor
        self._clock = clock
        self._gate = gate
        self._decision: ChunkDecision | None = None

    @property
    def chunk_size(self) -> int:
        """See `ChunkInference`."""
        return self._actor.chunk_size

    @property
    def n_action_steps(self) -> int:
        """See `ChunkInference`."""
        return self._actor.n_action_steps

    def reset(self, seed: int) -> None:
        """See `ChunkInference`."""
        self._decision = None
        self._actor.reset(seed)

    def submit(self, observation: np.ndarray, step: int) -> None:
        """See `ChunkInference`."""
        self._decision = decide(self._actor, self._gate, observation, step, self._clock)

    def collect(self, timeout_s: float = 0.0) -> ChunkDecision | None:
        """See `ChunkInference`."""
        decision, self._decision = self._decision, None
        return decision

    def close(self) -> None:
        """See `ChunkInference`."""


class ThreadedInference:
    """Decides in a thread of its own, so that a slow or hanging policy never delays the control thread.

    The actor is used from that thread alone. Whoever changes its weights meanwhile must do so atomically.

    Args:
        actor: The policy.
        clock: The loop's clock.
        gate: The likelihood gate, if any.
        real_time: Whether the thread asks for real-time priority, below that of the control thread.
    """

    def __init__(
        self,
        actor: ChunkActor,
        clock: Clock,
        gate: LikelihoodGate | None = None,
        *,
        real_time: bool = False,
    ) -> None:
        self._actor = actor
        self._clock = clock
        self._gate = gate
        self._priority = INFERENCE_PRIORITY if real_time else None
        self._changed = threading.Condition()
        self._request: tuple[np.ndarray, int] | None = None
        self._seed: int | None = None
        self._decision: ChunkDecision | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="serfn-inference", daemon=True)
        self._thread.start()

    @property
    def chunk_size(self) -> int:
        """See `ChunkInference`."""
        return self._actor.chunk_size

    @property
    def n_action_steps(self) -> int:
        """See `ChunkInference`."""
        return self._actor.n_action_steps

    def reset(self, seed: int) -> None:
        """See `ChunkInference`."""
        with self._changed:
            self._request, self._decision, self._seed = None, None, seed
            self._changed.notify_all()

    def submit(self, observation: np.ndarray, step: int) -> None:
        """See `ChunkInference`."""
        with self._changed:
            self._request, self._decision = (observation.copy(), step), None
            self._changed.notify_all()

    def collect(self, timeout_s: float = 0.0) -> ChunkDecision | None:
        """See `ChunkInference`."""
        with self._changed:
            if self._decision is None and timeout_s > 0:
                self._changed.wait_for(lambda: self._decision is not None, timeout_s)
            decision, self._decision = self._decision, None
            return decision

    def close(self) -> None:
        """Stop the thread; a policy that hangs is left behind, it cannot reach the robot."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=2.0)

    def _work(self) -> None:
        with real_time_priority(self._priority):
            self._answer_requests()

    def _answer_requests(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._request or self._seed is not None)
                if self._closed:
                    return
                seed, request = self._seed, self._request
                self._seed = self._request = None
            if seed is not None:
                self._actor.reset(seed)
            if request is None:
                continue
            decision = decide(self._actor, self._gate, *request, self._clock)
            with self._changed:
                # A newer request makes this decision worthless.
                if self._request is None and self._seed is None:
                    self._decision = decision
                    self._changed.notify_all()
