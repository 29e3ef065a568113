"""Turning what the loop does step by step into records, once the outcome of each step is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from serfn.robot.chunk_buffer import Proposal
from serfn.robot.contract import Verdict
from serfn.robot.recording import EndReason, EpisodeEnding, EpisodeHeader, EpisodeSink, StepRecord

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(eq=False)
class Executed:
    """One step of the loop, before its reward is known."""

    time_s: float
    observation: np.ndarray
    images: Mapping[str, np.ndarray]
    action: np.ndarray
    proposal: Proposal | None
    decision: bool
    intervention: bool
    safety: int
    stage: int


class EpisodeRecorder:
    """Records one episode into a sink.

    The reward of a step is known when the next observation has been judged; each step waits until then. One
    that waits when the loop is interrupted is not recorded: its outcome was never seen.

    Args:
        sink: Where the records go.
        header: What is known at the start.
        start_s: Time of the start on the loop's clock.
    """

    def __init__(self, sink: EpisodeSink, header: EpisodeHeader, start_s: float) -> None:
        self._sink = sink
        self._start_s = start_s
        self._waiting: Executed | None = None
        self._version = header.policy_version
        self._recorded = 0
        self.steps = 0
        sink.begin(header)

    def executed(self, step: Executed) -> None:
        """Note a step that was just sent."""
        self._waiting = step
        self.steps += 1

    def judged(self, verdict: Verdict) -> None:
        """Record the step that waits, with the reward of the observation after it."""
        step, self._waiting = self._waiting, None
        if step is None:
            return
        self._recorded += 1
        proposal = step.proposal
        if proposal is not None:
            self._version = proposal.decision.policy_version
        action = step.action.astype(np.float32)
        self._sink.step(
            StepRecord(
                step=self.steps - 1,
                time_s=step.time_s - self._start_s,
                observation=step.observation,
                action=action,
                proposed=action if proposal is None else _recordable(proposal.action, action),
                reward=verdict.reward,
                chunk_start=step.decision,
                intervention=step.intervention,
                safety=step.safety,
                policy_version=self._version,
                stage=step.stage,
                flagged=proposal is not None and proposal.decision.flagged,
                log_likelihood=np.nan if proposal is None else proposal.decision.log_likelihood,
                images=step.images,
            )
        )

    def ending(
        self,
        reason: EndReason,
        detail: str,
        verdict: Verdict,
        time_s: float,
        observation: np.ndarray,
        images: Mapping[str, np.ndarray],
    ) -> EpisodeEnding:
        """Return how the episode ends, in the words of the record."""
        by_person = reason in ("success", "failure")
        success = reason == "success" if by_person else verdict.success
        terminated = by_person or reason == "terminated"
        return EpisodeEnding(
            reason=reason,
            detail=detail,
            terminated=terminated,
            truncated=not terminated,
            success=success,
            success_source="operator" if by_person else None if success is None else "referee",
            time_s=time_s - self._start_s,
            observation=observation,
            images=images,
            metrics=verdict.metrics or {},
            keep=reason != "discard" and self._recorded > 0,
        )

    def end(self, ending: EpisodeEnding) -> None:
        """Record the end."""
        self._sink.end(ending)


def _recordable(proposed: np.ndarray, executed: np.ndarray) -> np.ndarray:
    """Return the proposal `[action]` as float32, or what was executed where it is not a number that fits."""
    if proposed.shape != executed.shape or not (np.abs(proposed) <= _LARGEST).all():
        return executed
    return proposed.astype(np.float32)
