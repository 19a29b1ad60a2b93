"""Write plain mappings as TOML; Python's own tomllib only reads."""

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any


def dump_toml(mapping: Mapping[str, Any]) -> str:
    """Write a mapping so that `tomllib.loads` gives an equal one back; tuples come back as lists.

    Raises:
        ValueError: At a value that TOML cannot hold, such as None.
    """
    return "\n".join(_table(mapping, ())).strip() + "\n"


def _table(mapping: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {name: value for name, value in mapping.items() if isinstance(value, Mapping)}
    if path and (len(tables) < len(mapping) or not tables):
        yield f"\n[{'.'.join(map(_key, path))}]"
    for name, value in mapping.items():
        if name not in tables:
            yield f"{_key(name)} = {_value(value, (*path, name))}"
    for name, value in tables.items():
        yield from _table(value, (*path, name))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)


def _value(value: Any, path: tuple[str, ...]) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item, path) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(name)} = {_value(item, path)}' for name, item in value.items())}}}"
    raise ValueError(f"TOML cannot hold {'.'.join(path)}={value!r}")


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but for the one control character that JSON leaves alone.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
