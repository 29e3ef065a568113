"""Single options changed on the command line: `--set online.episodes=40`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ConfigT = TypeVar("ConfigT", bound="DataclassInstance")


def override(config: ConfigT, assignments: Iterable[str]) -> ConfigT:
    """Return `config` with options replaced, checked as strictly as a configuration file.

    Args:
        config: Nested frozen dataclasses.
        assignments: Words `dotted.name=value`; the value is JSON where it is valid JSON, `none` is no value
            where the option allows that, anything else is text. A name
            that ends in `type` chooses another part: it goes before the others, and the options of the part
            that stood there before are dropped.

    Raises:
        ConfigError: A word without `=`, an unknown option or a value of the wrong type.
    """
    tree = to_dict(config)
    options: list[tuple[list[str], Any]] = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set got '{assignment}'; write it as name=value, such as seed=3")
        options.append((name.split("."), _value(text)))
    for path, value in sorted(options, key=lambda option: option[0][-1] != "type"):
        _assign(tree, path, value)
    return from_dict(type(config), tree)


def _assign(tree: dict[str, Any], path: list[str], value: Any) -> None:
    *parents, last = path
    for parent in parents:
        # A parent that does not exist is made here, and refused with a suggestion by the strict reader.
        below = tree.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(
                f"--set {'.'.join(path)}: '{parent}' is one value ({below!r}) and has no options below it"
            )
        tree = below
    if last == "type" and tree.get(last) != value:
        tree.clear()
    tree[last] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
