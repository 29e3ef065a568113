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


def run(
    config: ExecutionConfig, delays: list[int], steps: int = 30, n_action_steps: int = H
) -> tuple[list[float], list[bool]]:
    """Actions and chunk starts when the k-th chunk takes `delays[k]` steps; NaN where there is none."""
    buffer, due = ChunkBuffer(config, H, n_action_steps), []
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


@pytest.mark.parametrize("n_action_steps", [H, 1, 4])
def test_synchronous_chunks_start_with_their_own_observation(n_action_steps: int) -> None:
    actions, starts = run(ExecutionConfig(), [0], n_action_steps=n_action_steps)
    assert actions == list(range(30))
    assert [k for k, start in enumerate(starts) if start] == list(range(0, 30, n_action_steps))


@given(
    lead=st.integers(1, 2),
    delays=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    blend=st.integers(0, 3),
)
def test_a_hand_over_never_jumps_while_inference_is_faster_than_the_lead(
    lead: int, delays: list[int], blend: int
) -> None:
    delays = [min(delay, lead) for delay in delays]
    config = ExecutionConfig(lead_steps=lead, blend_steps=blend)
    actions, starts = run(config, [0, *delays])
    assert actions == pytest.approx(list(range(30)))
    # The first chunk is executed from its beginning, the others from the step of their hand-over.
    assert [k for k, start in enumerate(starts) if start] == list(range(0, 30, H - lead))


def test_a_late_chunk_finds_the_old_one_continued_and_skips_what_has_passed() -> None:
    actions, starts = run(ExecutionConfig(lead_steps=1), [0, 3, 0], steps=9, n_action_steps=3)
    assert actions == list(range(9))
    assert [k for k, start in enumerate(starts) if start][:2] == [0, 5]


def test_after_a_pause_without_proposals_a_chunk_starts_from_its_beginning() -> None:
    actions, _ = run(ExecutionConfig(lead_steps=1), [0, 5, 0, 0], steps=12, n_action_steps=5)
    # Asked at step 4, the old chunk lasted until step 5, the answer came at step 9: two steps were executed.
    assert np.isnan(actions[6:9]).all()
    assert actions[9] == 4 + 2


def test_a_chunk_asked_for_too_long_ago_is_asked_for_again_and_ignored() -> None:
    buffer = ChunkBuffer(ExecutionConfig(), H, H)
    buffer.requested(0)
    assert not buffer.wants_chunk(H - 1)
    assert buffer.wants_chunk(H)
    buffer.requested(H)
    buffer.offer(plan(0))
    assert buffer.pending
    assert buffer.take() is None


def test_a_decision_without_actions_is_asked_for_again() -> None:
    buffer = ChunkBuffer(ExecutionConfig(), H, H)
    buffer.requested(0)
    buffer.offer(ChunkDecision(None, 0))
    assert buffer.take() is None
    assert buffer.wants_chunk(1)


def test_chunks_fade_into_each_other() -> None:
    buffer = ChunkBuffer(ExecutionConfig(lead_steps=1, blend_steps=1), H, 2)
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


@pytest.mark.parametrize("name", ["lead_steps", "blend_steps"])
def test_negative_settings_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is -1"):
        ExecutionConfig(**{name: -1})


@pytest.mark.parametrize(
    ("steps", "lead", "message"),
    [
        (0, 0, "n_action_steps is 0"),
        (7, 0, "n_action_steps is 7"),
        (2, 2, "2 steps ahead"),
        (6, 3, "3 steps ahead"),
    ],
)
def test_a_chunk_too_short_for_what_is_asked_is_refused(steps: int, lead: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ChunkBuffer(ExecutionConfig(lead), H, steps)
