"""One rule for success."""

from __future__ import annotations

import pytest

from serfn.core.errors import ConfigError
from serfn.core.outcome import Success, SuccessRule, success_rule


@pytest.mark.parametrize(
    ("said", "ever", "final"),
    [
        ([False, True, False], True, False),
        ([False, True], True, True),
        ([None, True, None], True, False),
        ([None, None], None, None),
        ([False, None], False, False),
        ([], None, None),
    ],
)
def test_what_steps_say_becomes_an_outcome(
    said: list[bool | None], ever: bool | None, final: bool | None
) -> None:
    rules: dict[SuccessRule, bool | None] = {"ever": ever, "final": final}
    for rule, expected in rules.items():
        success = Success(rule)
        for value in said:
            success.add(value)
        assert success.value is expected


def test_silence_of_a_source_that_tells_successes_is_no_success() -> None:
    success = Success(told=True)
    success.add(None)
    assert success.value is False


def test_a_failure_stays_one() -> None:
    success = Success()
    success.add(True)
    success.fail()
    assert success.value is False


def test_an_unknown_rule_is_refused() -> None:
    assert success_rule({}) == "ever"
    assert success_rule({"success_rule": "final"}) == "final"
    with pytest.raises(ConfigError, match="success_rule 'last'; choose one of ever, final"):
        success_rule({"success_rule": "last"})
