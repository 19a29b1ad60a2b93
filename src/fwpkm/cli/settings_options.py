"""Options that are the fields of a settings dataclass: what is left out keeps the dataclass's default."""

import argparse
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fwpkm.nested import from_mapping

C = TypeVar("C")


def add_settings(parser: argparse.ArgumentParser, cls: type[Any], helps: Mapping[str, str]) -> None:
    """Declare an option for each field that `helps` explains."""
    defaults, kinds = cls(), get_type_hints(cls)
    for name, text in helps.items():
        flag, default = f"--{name.replace('_', '-')}", getattr(defaults, name)
        if kinds[name] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
            continue
        many = get_origin(kinds[name]) is tuple
        kind = get_args(kinds[name])[0] if many else kinds[name]
        shown = " ".join(map(str, default)) if many else default
        parser.add_argument(
            flag,
            dest=name,
            nargs="+" if many else None,
            type=kind if kind in (int, float) else str,
            metavar=name.upper(),
            help=f"{text}; {shown if shown != '' else 'none'} if left out",
        )


def settings_of(options: argparse.Namespace, cls: type[C], helps: Mapping[str, str]) -> C:
    """Build the settings from what was given.

    Raises:
        ValueError: With everything that is wrong.
    """
    given = {name: value for name in helps if (value := getattr(options, name)) is not None}
    return from_mapping(cls, given)
