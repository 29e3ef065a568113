from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfn.robot.envelope import Envelope, largest_step

PERIOD_S = 0.05


def stopping_distance(step: float, deceleration: float) -> float:
    total = 0.0
    while step > 0:
        total += step
        step -= deceleration
    return total


@given(st.floats(0, 100), st.floats(0.01, 10))
def test_the_largest_step_uses_exactly_the_room_for_braking(distance: float, deceleration: float) -> None:
    step = float(largest_step(np.array([distance]), np.array([deceleration]))[0])
    assert stopping_distance(step, deceleration) == pytest.approx(distance, rel=1e-9, abs=1e-9)


def envelope(
    low: float = -1.0, high: float = 1.0, speed: float = 3.0, acceleration: float = 20.0
) -> Envelope:
    return Envelope(np.array([low]), np.array([high]), np.array([speed]), np.array([acceleration]), PERIOD_S)


targets = st.one_of(
    st.floats(-1e300, 1e300, allow_nan=False), st.floats(-1.2, 1.2), st.sampled_from([-1.0, 0.0, 1.0])
)
moves = st.lists(st.tuples(st.sampled_from(["follow", "settle", "brake"]), targets), min_size=1, max_size=80)


@given(
    low=st.floats(-2, -0.05),
    high=st.floats(0.05, 2),
    speed=st.floats(0.05, 40),
    acceleration=st.floats(0.05, 2000),
    start=st.floats(-3, 3),
    moves=moves,
)
def test_no_sequence_of_targets_leaves_the_envelope(
    low: float,
    high: float,
    speed: float,
    acceleration: float,
    start: float,
    moves: list[tuple[str, float]],
) -> None:
    bounded = envelope(low, high, speed, acceleration)
    bounded.start(np.array([start]))
    position, step = float(bounded.position[0]), 0.0
    for kind, target in moves:
        wanted = np.array([target])
        command = bounded.brake() if kind == "brake" else bounded.advance(wanted, settle=kind == "settle")
        new_step = float(command[0]) - position
        assert low <= command[0] <= high
        assert abs(new_step) <= speed * PERIOD_S * (1 + 1e-9) + 1e-12
        assert abs(new_step - step) <= acceleration * PERIOD_S**2 * (1 + 1e-9) + 1e-11
        position, step = float(command[0]), new_step


@given(st.lists(st.floats(-0.02, 0.02), min_size=1, max_size=50))
def test_targets_inside_the_envelope_are_commanded_exactly(steps: list[float]) -> None:
    bounded = envelope(-2, 2, 3.0, 100.0)
    bounded.start(np.zeros(1))
    for target in np.cumsum(steps):
        assert bounded.advance(np.array([target]))[0] == target


@pytest.mark.parametrize("settle", [False, True])
@pytest.mark.parametrize("target", [0.5, 1.0, 7.0])
def test_a_far_target_is_reached_without_overshoot(settle: bool, target: float) -> None:
    bounded = envelope()
    bounded.start(np.array([-0.9]))
    path = [float(bounded.advance(np.array([target]), settle=settle)[0]) for _ in range(60)]
    assert max(path) <= min(target, 1.0)
    assert path[-1] == pytest.approx(min(target, 1.0), abs=1e-12)
    assert bounded.at_rest


def test_a_moving_target_is_caught_up_with() -> None:
    bounded = envelope(-9, 9, 3.0, 20.0)
    bounded.start(np.zeros(1))
    wanted = [1.0 + 0.04 * k for k in range(60)]
    path = [float(bounded.advance(np.array([target]))[0]) for target in wanted]
    assert path[-20:] == pytest.approx(wanted[-20:], abs=1e-12)


@given(moves)
def test_braking_ends_at_rest_within_the_time_that_speed_and_acceleration_allow(
    moves: list[tuple[str, float]],
) -> None:
    bounded = envelope(-2, 2)
    for _, target in moves:
        bounded.advance(np.array([target]))
    for _ in range(round(3.0 / (20.0 * PERIOD_S)) + 1):
        bounded.brake()
    assert bounded.at_rest
