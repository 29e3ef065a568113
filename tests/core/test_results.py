from __future__ import annotations

import json
from typing import Any

import pytest

from serfn.core.errors import DataError
from serfn.core.results import EvaluationResult


def result(**changes: Any) -> EvaluationResult:
    columns: dict[str, Any] = {
        "returns": (1.0, 2.0, 3.0),
        "successes": (True, None, False),
        "lengths": (4, 5, 6),
        "scores": (0.0, 3.0, 6.0),
        "metrics": {"dropped": (0.0, 1.0, 0.0)},
        "control_hz": 20.0,
    }
    return EvaluationResult(**(columns | changes))


def test_summaries() -> None:
    assert result().episodes == 3
    assert result().mean_score == 3.0
    assert result().success_rate == 0.5
    assert result(successes=(None, None, None)).success_rate is None


def test_results_survive_json() -> None:
    assert EvaluationResult.from_dict(json.loads(json.dumps(result().to_dict()))) == result()


def test_columns_must_agree() -> None:
    with pytest.raises(DataError, match="'dropped' has 1 values for 3"):
        result(metrics={"dropped": (1.0,)})
    with pytest.raises(DataError, match="at least one episode"):
        result(returns=())
