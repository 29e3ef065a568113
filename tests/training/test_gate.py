from __future__ import annotations

import math

import pytest

from serfn.core.errors import DataError
from serfn.training.gate import GateDecision, Score, clearly_worse, decide


@pytest.mark.parametrize(
    ("candidate", "best", "promoted", "words"),
    [
        ((2.0, 0.5), None, True, "first"),
        ((2.0, 0.1), (1.0, 0.1), True, "outside the 95% interval"),
        ((2.0, 0.5), (1.9, 0.5), True, "within the 95% interval"),
        ((2.0, 0.5), (2.0, 0.5), True, "not worse"),
        ((1.9, 0.5), (2.0, 0.5), False, "within the 95% interval"),
        ((1.0, 0.1), (2.0, 0.1), False, "outside the 95% interval"),
        ((0.0, 0.0), (0.0, 0.0), False, "nothing to tell them apart by"),
        ((1.0, 0.0), (1.0, 0.0), True, "not worse"),
        ((0.0, 0.0), None, True, "first"),
    ],
)
def test_gate_promotes_unless_the_mean_is_lower(
    candidate: tuple[float, float], best: tuple[float, float] | None, promoted: bool, words: str
) -> None:
    decision = decide("online", Score(*candidate, 50), None if best is None else Score(*best, 50))
    assert decision.promoted is promoted
    assert words in decision.reason
    assert (decision.score, decision.best) == (candidate[0], None if best is None else best[0])
    assert GateDecision.from_dict(decision.to_dict()) == decision


def test_score_has_the_standard_error_of_the_mean() -> None:
    score = Score.of([1.0, 2.0, 3.0, 4.0])
    assert score.mean == 2.5
    assert score.standard_error == pytest.approx(math.sqrt(5 / 3) / 2)
    assert Score.of([3.0]) == Score(3.0, 0.0, 1)


@pytest.mark.parametrize("scores", [[], [1.0, math.nan]])
def test_scores_must_exist_and_be_finite(scores: list[float]) -> None:
    with pytest.raises(DataError):
        Score.of(scores)


def test_clearly_worse_means_outside_the_interval() -> None:
    best = Score(2.0, 0.3, 16)
    # 1.96 · hypot(0.4, 0.3) = 0.98
    assert clearly_worse(Score(1.01, 0.4, 16), best)
    assert not clearly_worse(Score(1.03, 0.4, 16), best)
    assert not clearly_worse(Score(9.0, 0.4, 16), best)


def test_the_best_of_several_evaluations_must_be_missed_by_more() -> None:
    best = Score(2.0, 0.3, 16)
    # The normal quantile of 1 - 0.025 / 10 is 2.807, and 2.807 · hypot(0.4, 0.3) = 1.4035.
    assert not clearly_worse(Score(0.61, 0.4, 16), best, evaluations=10)
    assert clearly_worse(Score(0.59, 0.4, 16), best, evaluations=10)


def test_reasons_are_written_for_people() -> None:
    decision = decide("online", Score(-1234.56, 60.0, 8), Score(-1500.0, 55.0, 8))
    assert decision.reason.endswith(
        "mean score \N{MINUS SIGN}1235 against \N{MINUS SIGN}1500, outside the 95% interval (±160)"
    )
