"""Arguments past the type checks of test runs, to meet the messages that users meet, who run without them."""

from dataclasses import MISSING, fields
from typing import Any, TypeVar

T = TypeVar("T")


def build_unchecked(cls: type[T], **values: Any) -> T:
    """Make a dataclass from field values of any type; its own `__post_init__` runs, and may refuse them."""
    made = object.__new__(cls)
    for f in fields(cls):  # type: ignore[arg-type]
        default = f.default if f.default_factory is MISSING else f.default_factory()
        value = values.pop(f.name, default)
        if value is MISSING:
            raise TypeError(f"build_unchecked: {cls.__name__} needs a value for {f.name}")
        object.__setattr__(made, f.name, value)
    if values:
        raise TypeError(f"build_unchecked: {cls.__name__} has no field {', '.join(values)}")
    made.__post_init__()  # type: ignore[attr-defined]
    return made
