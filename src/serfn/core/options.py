"""The options that a configuration offers, read from its dataclasses and their docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from serfn.core.registry import PartConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Option:
    """One value that can be set.

    Attributes:
        name: Name of the field.
        default: The value if nobody sets it, as it is written in a file; empty where one must be given.
        meaning: What its configuration's docstring says.
    """

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class OptionGroup:
    """The options of one configuration class.

    Attributes:
        cls: The class.
        paths: Dotted places at which it stands in the whole configuration; the root's is empty.
        part: Name of the part that it configures, for a kind of parts; else empty.
        summary: First sentence of its docstring.
        options: What can be set, without the fields that are configurations themselves.
    """

    cls: type[Any]
    paths: tuple[str, ...]
    part: str
    summary: str
    options: tuple[Option, ...]


def option_groups(root: type[DataclassInstance]) -> list[OptionGroup]:
    """Return the groups of options below `root`, those of every part of ours that can stand there included.

    A class that stands in several places is one group with several paths.
    """
    found: dict[type[Any], tuple[list[str], str]] = {}
    _walk(root, "", "", found)
    return [
        OptionGroup(cls, tuple(paths), part, _summary(cls), _options(cls))
        for cls, (paths, part) in found.items()
    ]


def count_options(groups: list[OptionGroup]) -> int:
    """Return how many options there are; one that several parts inherit from their base counts once."""
    return len(
        {
            (next(base for base in group.cls.__mro__ if name in vars(base).get("__annotations__", {})), name)
            for group in groups
            for name in (option.name for option in group.options)
        }
    )


def _walk(cls: type[Any], path: str, part: str, found: dict[type[Any], tuple[list[str], str]]) -> None:
    paths, _ = found.setdefault(cls, ([], part))
    if path in paths:
        return
    paths.append(path)
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        for below, name in _configurations(hints[field.name]):
            _walk(below, f"{path}.{field.name}" if path else field.name, name, found)


def _configurations(hint: Any) -> list[tuple[type[Any], str]]:
    """Return the configuration classes that a field of this type may hold, with the names of parts."""
    if isinstance(hint, type) and issubclass(hint, PartConfig):
        parts = [(hint.registry.find(name), name) for name in hint.registry.names()]
        return [(part, name) for part, name in parts if part.__module__.startswith("serfn.")]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [(hint, "")]
    return [found for member in get_args(hint) for found in _configurations(member)]


def _options(cls: type[Any]) -> tuple[Option, ...]:
    hints, meanings = get_type_hints(cls), _meanings(cls)
    return tuple(
        Option(field.name, _default(field), meanings.get(field.name, ""))
        for field in dataclasses.fields(cls)
        if not _configurations(hints[field.name]) and get_origin(hints[field.name]) is not type
    )


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return ""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


def _summary(cls: type[Any]) -> str:
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def _meanings(cls: type[Any]) -> dict[str, str]:
    """Return the text of each entry of the sections "Attributes" of a class and of those it derives from."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = re.search(
            r"^(?:Attributes|Args):\n(.*?)(?=^\S|\Z)", inspect.cleandoc(base.__doc__ or ""), re.M | re.S
        )
        for name, text in re.findall(
            r"^    (\w+): (.*?)(?=^    \w|\Z)", section.group(1) if section else "", re.M | re.S
        ):
            meanings[name] = " ".join(text.split())
    return meanings
