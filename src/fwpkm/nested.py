"""Nested config dataclasses to and from plain mappings, as TOML and JSON files hold them."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C")

UNSET = "none"
"""Stands for None in files, where a field may be None and no string."""

_WRONG = object()
"""Stands for a value that could not be read; the problem is on the list."""


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """Say that `name` is not among `known`, and which of these comes nearest."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    remedy = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names) or 'none'}"
    return f"unknown {what} {name!r}; {remedy}"


def to_mapping(config: object) -> dict[str, Any]:
    """Spell out every field of a config dataclass.

    TOML has no null: an unset field (None) is left out, or "none" if it would be set otherwise.
    """
    assert is_dataclass(config), config
    values = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if value is not None:
            values[f.name] = _plain(value)
        elif f.default is not None:
            values[f.name] = UNSET
    return values


def from_mapping(cls: type[C], mapping: Mapping[str, Any]) -> C:
    """Build the config dataclass `cls`, nested ones included, from what `to_mapping` or a file gives.

    Raises:
        ValueError: With all unknown names, each with the nearest real one, all wrong types and all missing
            fields; if there are none, with all rules that the values break.
    """
    problems: list[str] = []
    config = _read_dataclass(cls, mapping, "", problems)
    if problems:
        raise ValueError(f"{cls.__name__}: " + "; ".join(problems))
    assert isinstance(config, cls)
    return config


def _plain(value: object) -> object:
    if is_dataclass(value):
        return to_mapping(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _read(kind: Any, value: object, path: str, problems: list[str]) -> object:
    """Return `value` as the type `kind`, or note a problem."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, value, path, problems)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in args:
            return None
        kinds = [k for k in args if k is not NoneType]
        if all(get_origin(k) is Literal for k in kinds):
            return _read_choice([name for k in kinds for name in get_args(k)], value, path, problems)
        assert len(kinds) == 1, f"{path}: a config field is of one type or None, got {kind}"
        if value == UNSET and NoneType in args and kinds[0] is not str:
            return None
        return _read(kinds[0], value, path, problems)
    if origin is Literal:
        return _read_choice(args, value, path, problems)
    if origin is tuple and isinstance(value, list | tuple):
        items = [_read(args[0], item, f"{path}[{i}]", problems) for i, item in enumerate(value)]
        return tuple(items)
    return _read_scalar(tuple if origin is tuple else kind, value, path, problems)


def _read_choice(names: Sequence[str], value: object, path: str, problems: list[str]) -> object:
    if value in names:
        return value
    problems.append(f"{path}: {unknown_name('value', value, names)}")
    return _WRONG


def _read_scalar(kind: type, value: object, path: str, problems: list[str]) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    name = "list" if kind is tuple else kind.__name__
    problems.append(f"{path} must be of type {name}, got {value!r}")
    return _WRONG


def _read_dataclass(cls: type, value: object, path: str, problems: list[str]) -> object:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        problems.append(f"{path or cls.__name__} must be a table of {cls.__name__} fields, got {value!r}")
        return _WRONG
    before, prefix = len(problems), f"{path}." if path else ""
    kinds = get_type_hints(cls)
    own = {f.name: f for f in fields(cls) if f.init}
    where = f"{path}: " if path else ""
    problems += [f"{where}{unknown_name('field', n, own)}" for n in value if n not in own]
    given = {n: _read(kinds[n], v, f"{prefix}{n}", problems) for n, v in value.items() if n in own}
    needed = [n for n, f in own.items() if f.default is MISSING and f.default_factory is MISSING]
    problems += [f"{prefix}{n} is missing" for n in needed if n not in given]
    if len(problems) > before:
        return _WRONG
    try:
        return cls(**given)
    except ValueError as error:
        text = str(error).removeprefix(f"{cls.__name__}: ")
        problems.append(f"{path}: {text}" if path else text)
        return _WRONG
