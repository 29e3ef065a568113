"""The cut rule alone: what arms it, what cuts, and what never does."""

from __future__ import annotations

import numpy as np
import pytest

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.scissors.cut_rule import Crossing, CutRule, CutRuleConfig, EdgeLoads, tape_crossing
from serfn.tasks.orca_hand.scissors.geometry import SCISSORS

IN_THE_V = Crossing(x_m=-0.05, z_m=0.0, from_middle_m=0.0)
OPEN, CLOSED = 0.4, 0.04
PRESSED = EdgeLoads(thumb_n=0.6, finger_n=0.6)


def _close_on(rule: CutRule, crossing: Crossing, loads: EdgeLoads = PRESSED, steps: int = 20) -> bool:
    return any([rule.update(crossing, CLOSED, loads) for _ in range(steps)])


def test_both_edges_closing_on_the_tape_cut_it_after_the_holding_steps() -> None:
    rule = CutRule()
    assert not rule.update(IN_THE_V, OPEN)
    assert rule.armed
    answers = [rule.update(IN_THE_V, CLOSED, PRESSED) for _ in range(rule.config.hold_steps)]
    assert answers == [False] * (rule.config.hold_steps - 1) + [True]
    assert rule.update(None, OPEN)  # a cut tape stays cut
    rule.reset()
    assert not rule.cut
    assert not rule.armed


def test_blades_closed_before_they_meet_the_tape_never_cut() -> None:
    rule = CutRule()
    rule.update(None, CLOSED)
    assert not _close_on(rule, IN_THE_V)
    assert not rule.armed


@pytest.mark.parametrize(
    "elsewhere",
    [
        None,
        Crossing(x_m=-SCISSORS.blade_length_m - 0.01, z_m=0.0, from_middle_m=0.0),
        Crossing(x_m=-0.005, z_m=0.0, from_middle_m=0.0),
        Crossing(x_m=-0.05, z_m=0.0, from_middle_m=0.04),
    ],
    ids=["not crossing", "beyond the tips", "at the pivot", "beside the middle"],
)
def test_leaving_the_blades_disarms_and_forgets(elsewhere: Crossing | None) -> None:
    rule = CutRule()
    rule.update(IN_THE_V, OPEN)
    rule.update(elsewhere, OPEN, PRESSED)
    assert not rule.armed
    assert not _close_on(rule, IN_THE_V)


def test_tape_outside_of_the_v_does_not_arm() -> None:
    rule = CutRule()
    above = Crossing(x_m=-0.05, z_m=0.03, from_middle_m=0.0)
    rule.update(above, OPEN)
    assert not rule.armed
    assert not _close_on(rule, above)


@pytest.mark.parametrize("loads", [EdgeLoads(0.6, 0.0), EdgeLoads(0.0, 0.6), EdgeLoads(0.6, -0.6)])
def test_one_edge_alone_or_both_from_one_side_do_not_cut(loads: EdgeLoads) -> None:
    rule = CutRule()
    rule.update(IN_THE_V, OPEN)
    assert not _close_on(rule, IN_THE_V, loads)


def test_interrupted_pressure_starts_again() -> None:
    rule = CutRule()
    rule.update(IN_THE_V, OPEN)
    for _ in range(5):
        for _ in range(rule.config.hold_steps - 1):
            assert not rule.update(IN_THE_V, CLOSED, PRESSED)
        rule.update(IN_THE_V, CLOSED)


def test_edges_that_touched_the_tape_and_passed_each_other_shear_it() -> None:
    passed = 0.0
    assert SCISSORS.edge_gap(0.05, passed) < -CutRuleConfig().passed_m
    for touched, expected in ((PRESSED, True), (EdgeLoads(0.6, 0.0), False)):
        rule = CutRule()
        rule.update(IN_THE_V, OPEN, touched)
        rule.update(IN_THE_V, OPEN / 2, touched)
        assert any([rule.update(IN_THE_V, passed) for _ in range(10)]) is expected


def test_crossing_is_found_along_the_bent_tape() -> None:
    straight = np.array([[-0.05, y, 0.01] for y in (-0.06, -0.03, 0.0, 0.03, 0.06)])
    aside, far = np.array([0.0, 0.012, 0.0]), np.array([0.0, 0.07, 0.0])
    crossing = tape_crossing(straight + aside)
    assert crossing is not None
    assert crossing.from_middle_m == pytest.approx(-0.012)
    assert (crossing.x_m, crossing.z_m) == pytest.approx((-0.05, 0.01))
    assert tape_crossing(straight + far) is None
    assert tape_crossing(straight[::-1] + aside) is not None


def test_gap_of_the_edges_is_that_of_two_lines_through_the_pivot() -> None:
    angle, distance = 0.3, 0.06
    assert SCISSORS.edge_gap(distance, angle) == pytest.approx(
        2 * distance * np.tan(angle / 2) - 2 * SCISSORS.edge_m
    )


def test_thresholds_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="hold_steps"):
        CutRuleConfig(hold_steps=0)
