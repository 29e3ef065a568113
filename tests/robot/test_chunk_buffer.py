from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfn.core.errors import ConfigError
from serfn.robot.chunk_buffer import ChunkBuffer, ChunkDecision, ExecutionConfig

H = 6


def plan(step: int) -> ChunkDecision:
    """A chunk whose actions are the numbers of the steps that they are meant for."""
    return ChunkDecision(np.arange(step, step + H, dtype=np.float64)[:, None], step)


def run(config: ExecutionConfig, delays: list[int], steps: int = 30) -> tuple[list[float], list[bool]]:
    """Actions and chunk starts when the k-th decision takes `delays[k]` steps; NaN where there is none."""
    buffer, due = ChunkBuffer(config, H), []
    actions, starts, asked = [], [], 0
    for step in range(steps):
        if buffer.wants_chunk(step):
            buffer.requested(step)
            due.append((step + delays[asked % len(delays)], plan(step)))
            asked += 1
        for when, decision in list(due):
            if when <= step:
                buffer.offer(decision)
                due.remove((when, decision))
        proposal = buffer.take()
        actions.append(float("nan") if proposal is None else float(proposal.action[0]))
        starts.append(proposal is not None and proposal.chunk_start)
    return actions, starts


@pytest.mark.parametrize("n_action_steps", [None, 1, 4])
def test_synchronous_chunks_start_with_their_own_observation(n_action_steps: int | None) -> None:
    actions, starts = run(ExecutionConfig(n_action_steps=n_action_steps), [0])
    assert actions == list(range(30))
    assert [k for k, start in enumerate(starts) if start] == list(range(0, 30, n_action_steps or H))


@given(
    lead=st.integers(1, 2),
    delays=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    blend=st.integers(0, 3),
)
def test_a_hand_over_never_jumps_while_inference_is_faster_than_the_lead(
    lead: int, delays: list[int], blend: int
) -> None:
    delays = [min(delay, lead) for delay in delays]
    config = ExecutionConfig("asynchronous", lead_steps=lead, blend_steps=blend)
    actions, starts = run(config, [0, *delays])
    assert actions == pytest.approx(list(range(30)))
    # The first chunk is executed from its beginning, the others from the step of their hand-over.
    assert [k for k, start in enumerate(starts) if start] == list(range(0, 30, H - lead))


def test_a_late_chunk_finds_the_old_one_continued_and_skips_what_has_passed() -> None:
    config = ExecutionConfig("asynchronous", n_action_steps=3, lead_steps=1)
    actions, starts = run(config, [0, 3, 0], steps=9)
    assert actions == list(range(9))
    assert [k for k, start in enumerate(starts) if start][:2] == [0, 5]


def test_after_a_pause_without_proposals_a_chunk_starts_from_its_beginning() -> None:
    config = ExecutionConfig("asynchronous", n_action_steps=5, lead_steps=1)
    actions, _ = run(config, [0, 5, 0, 0], steps=12)
    # Asked at step 4, the old chunk lasted until step 5, the answer came at step 9: two steps were executed.
    assert np.isnan(actions[6:9]).all()
    assert actions[9] == 4 + 2


def test_a_chunk_asked_for_too_long_ago_is_asked_for_again_and_ignored() -> None:
    buffer = ChunkBuffer(ExecutionConfig(), H)
    buffer.requested(0)
    assert not buffer.wants_chunk(H - 1)
    assert buffer.wants_chunk(H)
    buffer.requested(H)
    buffer.offer(plan(0))
    assert buffer.pending
    assert buffer.take() is None


def test_a_decision_without_actions_is_asked_for_again() -> None:
    buffer = ChunkBuffer(ExecutionConfig(), H)
    buffer.requested(0)
    buffer.offer(ChunkDecision(None, 0))
    assert buffer.take() is None
    assert buffer.wants_chunk(1)


def test_chunks_fade_into_each_other() -> None:
    buffer = ChunkBuffer(ExecutionConfig("asynchronous", n_action_steps=2, lead_steps=1, blend_steps=1), H)
    buffer.requested(0)
    buffer.offer(ChunkDecision(np.zeros((H, 1)), 0))
    taken = []
    for step in range(4):
        if buffer.wants_chunk(step):
            buffer.requested(step)
            buffer.offer(ChunkDecision(np.ones((H, 1)), step))
        proposal = buffer.take()
        assert proposal is not None
        taken.append(float(proposal.action[0]))
    assert taken == [0.0, 0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    "fields",
    [
        {"n_action_steps": 0},
        {"mode": "asynchronous"},
        {"lead_steps": 1},
        {"mode": "asynchronous", "lead_steps": -1},
        {"blend_steps": -1},
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        ExecutionConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("steps", "lead", "message"),
    [(5, 3, "need a chunk of 8"), (2, 2, "2 steps ahead"), (None, 3, "3 steps ahead")],
)
def test_a_chunk_too_short_for_the_lead_is_refused(steps: int | None, lead: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ChunkBuffer(ExecutionConfig("asynchronous", n_action_steps=steps, lead_steps=lead), H)
