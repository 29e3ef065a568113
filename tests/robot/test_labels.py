"""People beside the robot: what keys ask for, and what interaction costs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from serfn.core.errors import ConfigError
from serfn.core.spec import ActionSpec
from serfn.robot.budget import InteractionBudget, InteractionUse
from serfn.robot.contract import Operator, OperatorEvent
from serfn.robot.keyboard import EVENT_KEYS, HELP, SESSION_KEYS, KeyboardOperator
from serfn.robot.teleoperation import KeyboardJog, SeveralOperators

SPEC = ActionSpec((-1.0, 0.0), (1.0, 0.5), ("thumb", "index"))


def press(operator: KeyboardOperator, keys: str) -> KeyboardOperator:
    for key in keys:
        operator.press(key)
    return operator


def test_keys_become_events_in_order_and_once() -> None:
    operator: Operator = press(KeyboardOperator(), "t3s")
    assert operator.poll() == [
        OperatorEvent("take_over"),
        OperatorEvent("stage", 3),
        OperatorEvent("success"),
    ]
    assert operator.poll() == []


def test_session_keys_and_motion_keys_do_not_mix() -> None:
    operator = press(KeyboardOperator(), "\nbq x?")
    assert list(operator.session_requests()) == ["start", "roll_back", "quit"]
    assert list(operator.poll()) == [OperatorEvent("stop")]


def test_no_key_means_two_things_and_all_are_explained() -> None:
    jog = {"[", "]", "-", "+", "="}
    assert not set(EVENT_KEYS) & set(SESSION_KEYS)
    assert not (set(EVENT_KEYS) | set(SESSION_KEYS)) & jog
    words = {word for keys, _ in HELP for word in keys.replace("/", " ").split()}
    named = {"space": " ", "enter": "\n", "0-9": "0"}
    shown = {named.get(word, word) for word in words}
    assert {key for key in [*EVENT_KEYS, *SESSION_KEYS] if not key.isdigit() and key != "\r"} <= shown


def test_keys_of_the_jog_move_the_chosen_joint() -> None:
    jog = KeyboardJog(SPEC, step=0.1)
    operator = KeyboardOperator(jog)
    jog.send_feedback({"thumb": 0.0, "index": 0.4})
    press(operator, "+]++")
    assert jog.get_action() == pytest.approx({"thumb": 0.2, "index": 0.5})
    press(operator, "-")
    assert jog.get_action() == pytest.approx({"thumb": 0.2, "index": 0.45})
    assert jog.joint == "index"


def test_pressing_from_another_thread_loses_nothing() -> None:
    operator = KeyboardOperator()
    thread = threading.Thread(target=press, args=(operator, "123456789" * 200))
    thread.start()
    seen: list[OperatorEvent] = []
    while thread.is_alive():
        seen += operator.poll()
    seen += operator.poll()
    assert [event.value for event in seen] == [int(digit) for digit in "123456789" * 200]


def test_several_operators_are_asked_in_order() -> None:
    both = SeveralOperators(press(KeyboardOperator(), "s"), press(KeyboardOperator(), "d"))
    assert [event.command for event in both.poll()] == ["success", "discard"]


def test_use_is_counted_and_limits_are_named() -> None:
    use = InteractionUse().after_reset()
    use = use.after_episode(minutes=0.5, interventions=2, discarded=True, stopped=False)
    use = use.after_episode(minutes=0.25, interventions=0, discarded=False, stopped=True)
    assert use == InteractionUse(minutes=0.75, episodes=2, resets=1, interventions=2, discarded=1, stops=1)
    assert InteractionBudget().exhausted(use) is None
    assert InteractionBudget(minutes=1, episodes=3, resets=2, interventions=3).exhausted(use) is None
    for budget, words in (
        (InteractionBudget(minutes=0.75), "0.75 minutes"),
        (InteractionBudget(episodes=2), "2 episodes"),
        (InteractionBudget(resets=1), "1 resets"),
        (InteractionBudget(interventions=1), "1 interventions"),
    ):
        reason = budget.exhausted(use)
        assert reason is not None
        assert words in reason


@pytest.mark.parametrize("wrong", [{"minutes": 0.0}, {"episodes": -1}, {"resets": 0}])
def test_impossible_budgets_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        InteractionBudget(**wrong)
