from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from serfn.cli.overrides import override
from serfn.core import registry as registry_module
from serfn.core.config import from_dict, to_dict
from serfn.core.errors import ConfigError
from serfn.core.registry import PartConfig, Registry

HERE = "test_registry"


@dataclass(frozen=True)
class EngineConfig(
    PartConfig,
    kind="cameras",
    ours={"diesel": f"{HERE}:Diesel", "steam": f"{HERE}:Steam", "gone": f"{HERE}:Gone"},
    default="diesel",
):
    """A kind of parts."""

    RENAMED: ClassVar[Mapping[str, str]] = {"type=petrol": "type=diesel"}


@dataclass(frozen=True)
class Diesel(EngineConfig):
    power: float = 1.0


@dataclass(frozen=True)
class Steam(EngineConfig):
    RENAMED: ClassVar[Mapping[str, str]] = {
        "coal": "fuel_kg",
        "lamp": "train.lamp",
        "valve=slide": "valve=piston",
    }
    REMOVED: ClassVar[Mapping[str, str]] = {"stoker": "one stokes by hand"}

    fuel_kg: float = 2.0
    valve: str = "piston"


@dataclass(frozen=True)
class Electric(EngineConfig):
    volts: int = 400


class Undecorated(EngineConfig):
    pass


@dataclass(frozen=True)
class Train:
    engine: EngineConfig = Diesel()
    reserve: EngineConfig | None = None
    shunter: Steam = Steam()


class Toy:
    """A part that is an object and no class."""


TOY = Toy()
Install = Callable[..., None]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])
    for part in (Diesel, Steam, Electric, Undecorated, EngineConfig):
        monkeypatch.setattr(part, "__module__", HERE)
    monkeypatch.setattr(EngineConfig.registry, "_found", {})
    yield
    registry_module.installed.cache_clear()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """Return a function that installs a distribution with entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(distribution: str, group: str = "serfn.cameras", **entries: str) -> None:
        folder = tmp_path / f"{distribution}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
        registry_module.installed.cache_clear()

    registry_module.installed.cache_clear()
    return add


def test_configurations_choose_their_part_by_name(install: Install) -> None:
    install("mylab", electric=f"{HERE}:Electric")
    for train in (Train(), Train(Steam(3.0), Electric(25000)), Train(reserve=Diesel(2.0))):
        written = json.loads(json.dumps(to_dict(train)))
        assert from_dict(Train, written) == train
    assert to_dict(Train(Electric()))["engine"] == {"type": "electric", "volts": 400}
    assert from_dict(Train, {"engine": {"power": 3}}) == Train(Diesel(3.0))
    assert from_dict(EngineConfig, {"type": "electric"}) == Electric()
    assert from_dict(Train, {"engine": {"type": f"{HERE}:Steam"}}).engine.type == "steam"
    assert EngineConfig.registry.names() == ["diesel", "steam", "gone", "electric"]


def test_a_part_without_an_entry_point_is_named_by_its_place() -> None:
    train = from_dict(Train, {"engine": {"type": f"{HERE}:Electric", "volts": 10}})
    assert train == Train(Electric(10))
    assert to_dict(train)["engine"]["type"] == f"{HERE}:Electric"


def test_an_entry_point_may_offer_a_part_under_another_path(install: Install) -> None:
    install("mylab", electric=f"{HERE}.short:Electric")
    module = type(sys)(f"{HERE}.short")
    module.Electric = Electric  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        assert Electric().type == "electric"
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": {"type": "diesle"}}, r"engine\.type: no 'diesle' among the cameras \(did you mean"),
        ({"engine": {"type": "diesle"}}, "diesel, steam, gone, broken, electric, or name your own"),
        ({"engine": {"type": 3}}, "expected the name of a part, got 3"),
        ({"engine": {"type": "gone"}}, rf"gone: '{HERE}' has no 'Gone'"),
        ({"engine": {"type": "nolab.engines:X"}}, "cannot import 'nolab.engines': ModuleNotFoundError"),
        ({"engine": {"type": f"{HERE}:Deisel"}}, "has no 'Deisel' .*did you mean 'Diesel'"),
        ({"engine": {"type": f"{HERE}:TOY"}}, "is not one of the cameras: it is no subclass of EngineConf"),
        ({"engine": {"type": f"{HERE}:EngineConfig"}}, "it is no subclass of EngineConfig"),
        ({"engine": {"type": f"{HERE}:Undecorated"}}, r"decorate it with @dataclass\(frozen=True\)"),
        ({"engine": {"type": ":Diesel"}}, "write a part of your own as package.module:Name"),
        ({"engine": {"type": "broken"}}, r"entry point 'broken' \(serfn\.cameras\) of package 'mylab'"),
        ({"engine": {"type": "broken"}}, "ModuleNotFoundError: No module named 'nolab'; repair or uninstall"),
        ({"engine": {"type": "steam", "power": 1.0}}, r"unknown option 'engine\.power'.*Steam has: fuel_kg"),
        ({"shunter": {"type": "diesel"}}, r"shunter\.type: got 'diesel'; only steam can stand here"),
    ],
)
def test_what_is_no_part_is_one_clear_line(
    options: dict[str, object], message: str, install: Install
) -> None:
    install("mylab", electric=f"{HERE}:Electric", broken="nolab.engines:X")
    with pytest.raises(ConfigError, match=message) as caught:
        from_dict(Train, options)
    assert "\n" not in str(caught.value)


def test_two_parts_of_one_name_are_both_named(install: Install) -> None:
    install("mylab", steam=f"{HERE}:Electric", electric=f"{HERE}:Electric")
    install("otherlab", electric=f"{HERE}:Diesel")
    with pytest.raises(ConfigError, match=r"two cameras are called 'steam': .*of serfn and .*'mylab'"):
        EngineConfig.registry.find("steam")
    with pytest.raises(ConfigError, match=r"called 'electric': .*'mylab' and .*'otherlab'"):
        EngineConfig.registry.find("electric")


def test_a_part_defined_inside_a_function_has_no_name() -> None:
    @dataclass(frozen=True)
    class Hidden(EngineConfig):
        pass

    with pytest.raises(ConfigError, match="define it at the top of a module"):
        to_dict(Train(Hidden()))


def test_parts_that_are_no_classes() -> None:
    toys = Registry[Toy](
        "tasks",
        {"toy": f"{HERE}:TOY", "number": f"{HERE}:HERE"},
        check=lambda part: None if isinstance(part, Toy) else "is no Toy",
    )
    assert toys.find("toy") is TOY and toys.name_of(TOY) == "toy"
    assert toys.find(f"{HERE}:TOY") is TOY
    with pytest.raises(ConfigError, match=f"number: '{HERE}' is not one of the tasks: it is no Toy"):
        toys.find("number")
    with pytest.raises(ConfigError, match="define it at the top"):
        toys.name_of(Toy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": {"type": "steam", "coal": 1.0}}, r"'engine\.coal' is now 'engine\.fuel_kg'"),
        ({"engine": {"type": "steam", "lamp": 1.0}}, r"'engine\.lamp' is now 'train\.lamp'"),
        (
            {"engine": {"type": "steam", "valve": "slide"}},
            r"'engine\.valve=slide' is now 'engine\.valve",
        ),
        ({"engine": {"type": "steam", "stoker": 2}}, r"'engine\.stoker' is gone: one stokes by hand"),
        ({"engine": {"type": "petrol"}}, r"'engine\.type=petrol' is now 'engine\.type=diesel'"),
    ],
)
def test_former_names_are_refused_with_the_present_one(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(Train, options)


def test_another_part_from_the_command_line_drops_the_options_of_the_former_one() -> None:
    words = ["engine.fuel_kg=5", f"engine.type={HERE}:Steam"]
    assert override(Train(Diesel(9.0)), words) == Train(Steam(5.0))
    assert override(Train(Steam(5.0)), ["engine.type=steam"]) == Train(Steam(5.0))
    with pytest.raises(ConfigError, match=r"unknown option 'engine\.power'"):
        override(Train(), ["engine.type=steam", "engine.power=1"])
