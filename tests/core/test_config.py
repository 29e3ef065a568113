from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from serfn.core.config import from_dict, load_config, to_dict
from serfn.core.errors import ConfigError, SerfnError


@dataclass(frozen=True)
class Optimizer:
    learning_rate: float = 3e-4
    kind: Literal["adam", "sgd"] = "adam"

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive")


@dataclass(frozen=True)
class Run:
    name: str
    steps: int = 10
    sizes: tuple[int, ...] = (1, 2)
    window: tuple[float, float] = (0.0, 1.0)
    resume: bool = False
    limit: float | None = None
    folder: Path = Path("runs")
    rates: dict[str, float] = field(default_factory=dict)
    optimizer: Optimizer = Optimizer()
    target: int | str = 0


def test_a_configuration_survives_json() -> None:
    run = Run(name="a", limit=2.5, rates={"x": 1.0}, optimizer=Optimizer(1e-3, "sgd"), sizes=(), target="b")
    assert from_dict(Run, json.loads(json.dumps(to_dict(run)))) == run


def test_numbers_widen_to_float_but_bools_are_no_numbers() -> None:
    run = from_dict(Run, {"name": "a", "limit": 3, "window": [0, 2]})
    assert isinstance(run.limit, float) and run.window == (0.0, 2.0)
    with pytest.raises(ConfigError, match=r"steps: expected int, got True \(bool\)"):
        from_dict(Run, {"name": "a", "steps": True})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a", "stesp": 1}, r"unknown option 'stesp' \(did you mean 'steps'\?\)"),
        (
            {"name": "a", "optimizer": {"learning_rat": 1.0}},
            r"'optimizer\.learning_rat' \(did you mean 'learning_rate'",
        ),
        ({}, "missing option 'name' of Run"),
        ({"name": 3}, r"name: expected str, got 3 \(int\)"),
        ({"name": "a", "steps": 1.5}, "steps: expected int, got 1.5"),
        (
            {"name": "a", "optimizer": {"kind": "adma"}},
            r"optimizer\.kind: .*did you mean 'adam'.*'adam', 'sgd'",
        ),
        ({"name": "a", "optimizer": {"learning_rate": -1.0}}, r"optimizer: learning_rate is -1\.0"),
        ({"name": "a", "optimizer": 3}, "optimizer: expected a table"),
        ({"name": "a", "limit": float("nan")}, "limit: expected a finite number, got nan"),
        ({"name": "a", "window": [1.0]}, "window: expected 2 values, got 1"),
        ({"name": "a", "sizes": [1, "x"]}, r"sizes\[1\]: expected int"),
        ({"name": "a", "sizes": "12"}, "sizes: expected a list"),
        ({"name": "a", "limit": "x"}, "limit: expected float"),
        ({"name": "a", "rates": {"x": None}}, r"rates\.x: expected float"),
        ({"name": "a", "target": 1.5}, "target: no alternative fits"),
    ],
)
def test_what_does_not_fit_is_named_with_its_path(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(Run, options)


def test_toml_and_json_files(tmp_path: Path) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text('name = "a"\nsizes = [3]\n[optimizer]\nlearning_rate = 1\n', encoding="utf-8")
    assert load_config(Run, toml) == Run(name="a", sizes=(3,), optimizer=Optimizer(1.0))
    path = tmp_path / "run.json"
    path.write_text('{"name": "b"}', encoding="utf-8")
    assert load_config(Run, path) == Run(name="b")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "name = ", "cannot be parsed"),
        ("a.json", "{", "cannot be parsed"),
        ("a.json", "[]", "expected a table"),
        ("a.yaml", "name: a", "use .toml or .json"),
        ("a.toml", 'nam = "a"', r"a\.toml: unknown option 'nam'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(Run, tmp_path / name)


def test_a_missing_file_is_a_serfn_error(tmp_path: Path) -> None:
    with pytest.raises(SerfnError, match="check the path"):
        load_config(Run, tmp_path / "none.toml")


@dataclass(frozen=True)
class Adam:
    rate: float = 1e-3
    type: Literal["adam"] = "adam"


@dataclass(frozen=True)
class Momentum:
    rate: float = 1e-3
    type: Literal["momentum"] = "momentum"


@dataclass(frozen=True)
class Tagged:
    optimizer: Adam | Momentum = Adam()


def test_members_of_a_union_are_told_apart_by_their_type() -> None:
    for config in (Tagged(), Tagged(Momentum(0.1))):
        assert from_dict(Tagged, json.loads(json.dumps(to_dict(config)))) == config
    assert from_dict(Tagged, {"optimizer": {"rate": 2.0}}) == Tagged(Adam(2.0))
    with pytest.raises(ConfigError, match=r"optimizer\.type: got 'adm' .*did you mean 'adam'.*'momentum'"):
        from_dict(Tagged, {"optimizer": {"type": "adm"}})
    with pytest.raises(ConfigError, match=r"unknown option 'optimizer\.rte'"):
        from_dict(Tagged, {"optimizer": {"type": "momentum", "rte": 2.0}})
