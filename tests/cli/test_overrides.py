from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from serfn.cli.overrides import override
from serfn.core.errors import ConfigError
from serfn.sessions.config import RobotRunConfig
from serfn.training.config import TrainConfig


@dataclass(frozen=True)
class Inner:
    steps: int = 3
    name: str = "a"


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    rate: float | None = None


def test_values_are_json_or_text() -> None:
    changed = override(Outer(), ["inner.steps=5", "inner.name=two words", "rate=1e-3"])
    assert changed == Outer(Inner(5, "two words"), 1e-3)
    assert override(changed, ["rate=null"]).rate is None


@pytest.mark.parametrize("name", ["agent.return_steps", "online.alarms.max_kl", "online.collecting", "plant"])
def test_none_is_no_value_where_an_option_allows_that(name: str) -> None:
    config = override(TrainConfig(), [f"{name}=none"])
    value: object = config
    for step in name.split("."):
        value = getattr(value, step)
    assert value is None


def test_none_stays_a_word_where_it_is_a_choice() -> None:
    assert override(RobotRunConfig(), ["reset=none"]).reset == "none"
    with pytest.raises(ConfigError, match="seed: expected int"):
        override(RobotRunConfig(), ["seed=none"])


def test_later_assignments_win_and_the_original_stays() -> None:
    original = Outer()
    assert override(original, ["rate=1", "rate=2"]).rate == 2
    assert original == Outer()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("inner.step=5", "did you mean 'steps'"),
        ("iner.steps=5", "did you mean 'inner'"),
        ("inner.steps=many", "inner.steps"),
        ("inner.steps", "name=value"),
        ("=3", "name=value"),
    ],
)
def test_mistakes_are_named(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(Outer(), [assignment])
