"""The parts of each kind by name: ours, those of installed packages, and any `package.module:Name`.

A package adds a part by an entry point in the group of its kind, in its `pyproject.toml`::

    [project.entry-points."serfn.policies"]
    mine = "mylab.policy:MyPolicyConfig"

A part that belongs to no installed package is named `mylab.policy:MyPolicyConfig` wherever a name is asked
for. Nothing is imported before it is looked up.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, ClassVar, Generic, Literal, TypeVar

from serfn.core.errors import ConfigError
from serfn.core.extras import MissingExtraError
from serfn.core.words import did_you_mean

Kind = Literal[
    "policies",
    "critics",
    "improvements",
    "encoders",
    "tasks",
    "robots",
    "cameras",
    "teleoperators",
    "rewards",
    "formats",
]
PartT = TypeVar("PartT")


class Registry(Generic[PartT]):
    """The parts of one kind.

    Args:
        kind: name of the kind; its entry points are those of the group `serfn.<kind>`.
        ours: our own parts, `package.module:Name` by their registered name.
        base: the class whose subclasses are the parts; None where parts are no classes.
        check: for parts that are no classes: returns what is wrong with an object, such as `"is no Task"`, or
            None if it is a part of this kind.
        default: the name that a missing one stands for; None if a name must be given.
    """

    def __init__(
        self,
        kind: Kind,
        ours: Mapping[str, str],
        *,
        base: type | None = None,
        check: Callable[[object], str | None] | None = None,
        default: str | None = None,
    ) -> None:
        if (base is None) == (check is None):
            raise ConfigError(f"the registry of {kind} needs either base or check")
        self.kind = kind
        self.base = base
        self.default = default
        self._ours = dict(ours)
        self._check = check if check is not None else self._no_subclass
        self._found: dict[str, PartT] = {}

    def names(self) -> list[str]:
        """Return the registered names, ours first; nothing is imported."""
        return [*self._ours, *sorted({entry.name for entry in installed(self.kind)} - set(self._ours))]

    def find(self, name: str) -> PartT:
        """Return the part of this name.

        Args:
            name: A registered name, or `package.module:Name`.

        Raises:
            ConfigError: There is no such part, two parts have this name, it cannot be imported, or it is not
                of this kind.
        """
        if name not in self._found:
            self._found[name] = self._load(name)
        return self._found[name]

    def name_of(self, part: PartT) -> str:
        """Return the registered name of a part, or else `package.module:Name`; `find` returns the part again.

        Raises:
            ConfigError: The part cannot be found by any name.
        """
        for name, found in self._found.items():
            if found is part and ":" not in name:
                return name
        own: Any = part if hasattr(part, "__qualname__") else type(part)
        where = f"{own.__module__}:{own.__qualname__}"
        for name, place in self._ours.items():
            if place == where:
                return name
        package = own.__module__.partition(".")[0]
        for entry in installed(self.kind):
            # A package may offer a part under another path than that of its definition.
            if entry.module.partition(".")[0] == package and self.find(entry.name) is part:
                return entry.name
        if own is part and "<locals>" not in where:
            return where
        for name, found in self._found.items():
            if found is part:
                return name
        raise ConfigError(f"{where} has no name under {self.kind}; define it at the top of a module")

    def _load(self, name: str) -> PartT:
        if ":" in name:
            return self._checked(attribute(name, name), name)
        entries = [entry for entry in installed(self.kind) if entry.name == name]
        offers = {entry.value: f"{entry.value} of {_distribution(entry)}" for entry in entries}
        if name in self._ours:
            offers = {self._ours[name]: f"{self._ours[name]} of serfn"} | offers
        if len(offers) > 1:
            raise ConfigError(
                f"two {self.kind} are called '{name}': {' and '.join(offers.values())}; uninstall one, or "
                "name the part as package.module:Name"
            )
        if name in self._ours:
            return self._checked(attribute(self._ours[name], name), name)
        if not entries:
            known = self.names()
            raise ConfigError(
                f"no '{name}' among the {self.kind}{did_you_mean(name, known)}; choose one of "
                f"{', '.join(known)}, or name your own as package.module:Name"
            )
        where = f"entry point '{name}' (serfn.{self.kind}) of {_distribution(entries[0])}"
        try:
            part = entries[0].load()
        except MissingExtraError:
            raise
        # Whatever a foreign module raises while it is imported, it is that part which does not work.
        except Exception as error:
            raise ConfigError(
                f"{where} cannot be imported: {type(error).__name__}: {error}; repair or uninstall it"
            ) from error
        return self._checked(part, where)

    def _checked(self, part: Any, where: str) -> PartT:
        if (complaint := self._check(part)) is not None:
            raise ConfigError(f"{where}: {_show(part)} is not one of the {self.kind}: it {complaint}")
        return part

    def _no_subclass(self, part: object) -> str | None:
        assert self.base is not None  # The constructor has seen to it.
        if not (isinstance(part, type) and issubclass(part, self.base)) or part is self.base:
            return f"is no subclass of {self.base.__name__}"
        if "__dataclass_fields__" in vars(self.base) and "__dataclass_fields__" not in vars(part):
            return "is no dataclass; decorate it with @dataclass(frozen=True)"
        if inspect.isabstract(part):
            return f"does not define {', '.join(sorted(part.__abstractmethods__))}"
        return None


@dataclass(frozen=True)
class PartConfig:
    """Base of the configurations of parts.

    The configurations of one kind have one base class, `class PolicyConfig(PartConfig, kind="policies",
    ours={...}, default="flow")`. A field annotated with that class holds any of its subclasses:
    `serfn.core.config` tells them apart by the key `type`, a name in the kind's registry.
    """

    registry: ClassVar[Registry[Any]]
    """The configurations of this kind by name."""

    def __init_subclass__(
        cls,
        *,
        kind: Kind | None = None,
        ours: Mapping[str, str] | None = None,
        default: str | None = None,
        **arguments: Any,
    ) -> None:
        """Give the base class of a kind its registry; subclasses that are parts pass no arguments."""
        super().__init_subclass__(**arguments)
        if kind is not None:
            cls.registry = Registry(kind, ours or {}, base=cls, default=default)

    @property
    def type(self) -> str:
        """Name of this part: registered, or `package.module:Name`."""
        return self.registry.name_of(type(self))


@cache
def installed(kind: Kind) -> tuple[metadata.EntryPoint, ...]:
    """Return the parts that installed packages offer, without importing them."""
    entries = metadata.entry_points(group=f"serfn.{kind}")
    return tuple(sorted(entries, key=lambda entry: (entry.name, _distribution(entry))))


def attribute(place: str, name: str) -> Any:
    """Return what `package.module:Name` says.

    Args:
        place: Where it is.
        name: What the message calls it.

    Raises:
        ConfigError: The module cannot be imported, or has no such attribute.
    """
    module, _, path = place.partition(":")
    if not module or not path:
        raise ConfigError(f"got '{name}'; write a part of your own as package.module:Name")
    try:
        part: Any = importlib.import_module(module)
    except MissingExtraError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{name}: cannot import '{module}': {type(error).__name__}: {error}; install its package or put "
            "its folder on PYTHONPATH"
        ) from error
    for step in path.split("."):
        try:
            part = getattr(part, step)
        except AttributeError:
            hint = did_you_mean(step, dir(part))
            raise ConfigError(f"{name}: '{module}' has no '{path}'{hint}") from None
    return part


def _distribution(entry: metadata.EntryPoint) -> str:
    return "an unknown package" if entry.dist is None else f"package '{entry.dist.name}'"


def _show(part: object) -> str:
    return f"class {part.__qualname__}" if isinstance(part, type) else repr(part)
