"""Strict conversion between frozen dataclasses and plain mappings, and loading from TOML or JSON.

Strict means: an unknown key, a missing key or a value of the wrong type is a `ConfigError` that names the
dotted path of the offender, so that a misspelt option can never be ignored silently.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from serfn.core.errors import ConfigError
from serfn.core.registry import PartConfig
from serfn.core.words import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ConfigT = TypeVar("ConfigT", bound="DataclassInstance")


def to_dict(config: DataclassInstance) -> dict[str, Any]:
    """Return `config` as nested dicts and lists that JSON can write; `from_dict` reads it back unchanged.

    Args:
        config: A dataclass instance with fields of the types that `from_dict` accepts.
    """
    values = {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}
    return {"type": config.type, **values} if isinstance(config, PartConfig) else values


def from_dict(cls: type[ConfigT], mapping: Mapping[str, Any], path: str = "") -> ConfigT:
    """Build the dataclass `cls` from `mapping`, strictly.

    Supported field types: bool, int, float (finite; an int is widened), str, `Path`, `Literal`, tuples,
    `dict[str, T]`, nested dataclasses, and unions of these with each other and `None`. Dataclasses of one
    union are told apart by their field `type`, a `Literal`; a table without it means the first of them. A
    field annotated with the base class of a kind of parts (see `serfn.core.registry`) holds the part that the
    key `type` names.

    A class may say what its options were called before, `RENAMED: ClassVar[Mapping[str, str]]`, from the
    former name to the present one; a present name with dots is a path from the top of the configuration. A
    value that has another name now is written `"option=value"` on both sides. `REMOVED` maps what is gone, in
    the same way, to what is done instead. Both are for the error message alone: the former name is refused.

    Args:
        cls: Dataclass to build.
        mapping: Values by field name; fields with a default may be left out.
        path: Dotted path of `mapping` inside the whole configuration, for error messages.

    Raises:
        ConfigError: Unknown key (with a suggestion), missing key, wrong type, or a value that
            `__post_init__` of the dataclass refuses.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{path or cls.__name__}: expected a table of options, got {_show(mapping)}")
    if issubclass(cls, PartConfig):
        cls, mapping = _part(cls, mapping, path)
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    for key in mapping:
        _refuse_former(cls, str(key), mapping[key], path)
        if key not in names:
            raise ConfigError(
                f"unknown option '{_join(path, str(key))}'{did_you_mean(str(key), names)}; "
                f"{cls.__name__} has: {', '.join(names)}"
            )
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.init
        and field.name not in mapping
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"missing option '{_join(path, missing[0])}' of {cls.__name__}; add it")
    hints = get_type_hints(cls)
    values = {name: _convert(hints[name], value, _join(path, name)) for name, value in mapping.items()}
    try:
        return cls(**values)
    except ValueError as error:
        prefix = f"{path}: " if path else ""
        raise ConfigError(f"{prefix}{error}") from error


def changed(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """Return `config` with some options replaced, checked as strictly as a configuration file.

    Args:
        config: Nested frozen dataclasses.
        changes: New values by option; a mapping changes single options of a nested configuration, unless its
            `type` names another part, which is then built of the mapping alone.

    Raises:
        ConfigError: An unknown option or a value of the wrong type.
    """
    return from_dict(type(config), _merged(to_dict(config), changes))


def _merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for name, value in changes.items():
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            keeps = value.get("type", below.get("type")) == below.get("type")
            merged[name] = _merged(below if keeps else {}, value)
        else:
            merged[name] = _plain(value)
    return merged


def load_config(cls: type[ConfigT], path: str | Path) -> ConfigT:
    """Read the dataclass `cls` from a `.toml` or `.json` file.

    Raises:
        ConfigError: The file is missing, has another suffix, cannot be parsed, or does not fit `cls`.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read configuration '{path}': {error}; check the path") from error
    try:
        if path.suffix == ".toml":
            mapping = tomllib.loads(text)
        elif path.suffix == ".json":
            mapping = json.loads(text)
        else:
            raise ConfigError(f"configuration '{path}' has suffix '{path.suffix}'; use .toml or .json")
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"configuration '{path}' cannot be parsed: {error}") from error
    try:
        return from_dict(cls, mapping)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _convert(hint: Any, value: Any, path: str) -> Any:
    """Return `value` as an instance of the type `hint`, or raise a `ConfigError` that names `path`."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(hint), value, path)
    if origin is Literal:
        return _convert_literal(get_args(hint), value, path)
    if origin is tuple:
        return _convert_tuple(get_args(hint), value, path)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: expected a table, got {_show(value)}")
        item_hint = get_args(hint)[1]
        return {str(key): _convert(item_hint, item, _join(path, str(key))) for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_dict(hint, value, path)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f"{path}: expected a finite number, got {value}")
        return float(value)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    # bool is a subclass of int in Python, but never means a number in a configuration.
    if (
        hint in (bool, int, float, str)
        and isinstance(value, hint)
        and (hint is bool or not isinstance(value, bool))
    ):
        return value
    if hint is Any:
        return value
    raise ConfigError(f"{path}: expected {getattr(hint, '__name__', hint)}, got {_show(value)}")


def _convert_union(members: tuple[Any, ...], value: Any, path: str) -> Any:
    # TOML and the command line have no word for None. Where "none" is a choice, None is not one of its types.
    if (value is None or value == "none") and type(None) in members:
        return None
    candidates = [member for member in members if member is not type(None)]
    if isinstance(value, Mapping):
        candidates = _tagged(candidates, value, path)
    # An exact type goes first: `float | int` must not widen 3 to 3.0.
    candidates.sort(key=lambda member: type(value) is not member)
    errors = []
    for member in candidates:
        try:
            return _convert(member, value, path)
        except ConfigError as error:
            errors.append(str(error))
    raise ConfigError(errors[0] if len(errors) == 1 else f"{path}: no alternative fits: {'; '.join(errors)}")


def _part(
    cls: type[PartConfig], mapping: Mapping[str, Any], path: str
) -> tuple[type[Any], Mapping[str, Any]]:
    """Return the class that `mapping["type"]` names, and its options."""
    options = dict(mapping)
    name = options.pop("type", None)
    where = _join(path, "type")
    _refuse_former(cls, "type", name, path)
    if name is None:
        name = cls.registry.default if cls.registry.base is cls else cls.registry.name_of(cls)
    if name is None:
        raise ConfigError(f"missing option '{where}'; choose one of {', '.join(cls.registry.names())}")
    if not isinstance(name, str):
        raise ConfigError(f"{where}: expected the name of a part, got {_show(name)}")
    try:
        part = cls.registry.find(name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if not issubclass(part, cls):
        raise ConfigError(f"{where}: got '{name}'; only {cls.registry.name_of(cls)} can stand here")
    return part, options


def _refuse_former(cls: type[Any], key: str, value: Any, path: str) -> None:
    """Raise a `ConfigError` for an option, or a value of one, that has another name by now or is gone."""
    renamed: Mapping[str, str] = getattr(cls, "RENAMED", {})
    for former in (key, f"{key}={value}"):
        if former in renamed:
            present = renamed[former]
            present = present if "." in present.partition("=")[0] else _join(path, present)
            raise ConfigError(f"'{_join(path, former)}' is now '{present}'; use that name")
    removed: Mapping[str, str] = getattr(cls, "REMOVED", {})
    for former in (key, f"{key}={value}"):
        if former in removed:
            raise ConfigError(f"'{_join(path, former)}' is gone: {removed[former]}")


def _tagged(candidates: list[Any], value: Mapping[str, Any], path: str) -> list[Any]:
    """Return the dataclass that `value["type"]` names, or all `candidates` if they carry no such tags."""
    tagged: dict[Any, Any] = {
        next(field.default for field in dataclasses.fields(member) if field.name == "type"): member
        for member in candidates
        if dataclasses.is_dataclass(member)
        and any(field.name == "type" for field in dataclasses.fields(member))
    }
    if len(tagged) < 2:
        return candidates
    tag = value.get("type", next(iter(tagged)))
    if tag not in tagged:
        hint = did_you_mean(str(tag), tagged)
        raise ConfigError(
            f"{_join(path, 'type')}: got {_show(tag)}{hint}; choose one of {', '.join(map(repr, tagged))}"
        )
    return [tagged[tag]]


def _convert_literal(choices: tuple[Any, ...], value: Any, path: str) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    hint = did_you_mean(str(value), [str(choice) for choice in choices])
    raise ConfigError(f"{path}: got {_show(value)}{hint}; choose one of {', '.join(map(repr, choices))}")


def _convert_tuple(members: tuple[Any, ...], value: object, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path}: expected a list, got {_show(value)}")
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    elif len(members) != len(value):
        raise ConfigError(f"{path}: expected {len(members)} values, got {len(value)}")
    return tuple(
        _convert(hint, item, f"{path}[{index}]")
        for index, (hint, item) in enumerate(zip(members, value, strict=True))
    )


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _show(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"
