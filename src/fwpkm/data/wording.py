"""What needles and questions say: sentences with a key and a value in them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from fwpkm.data.books import load_novel
from fwpkm.nested import unknown_name

KEY_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
KeyKind = Literal["code", "words", "uuid"]
ValueKind = Literal["digits", "uuid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleWording:
    """What needles and questions say; `{key}` and `{value}` are put in."""

    needle: str = " The secret number for ID-{key} is {value}."
    question: str = " The secret number for ID-{key} is"
    """Comes last; one question about several keys names them one after another."""
    answer: str = " {value}"
    key_kind: KeyKind = "code"
    """`key_length` letters and digits, two words of *Emma* joined by a hyphen, or a UUID."""
    key_length: int = 4
    value_kind: ValueKind = "digits"
    """`digits` digits, or a UUID."""
    digits: int = 6

    def __post_init__(self) -> None:
        problems = [
            f"{name} must hold {{{slot}}}, got {getattr(self, name)!r}"
            for name, slot in (
                ("needle", "key"),
                ("needle", "value"),
                ("question", "key"),
                ("answer", "value"),
            )
            if f"{{{slot}}}" not in getattr(self, name)
        ]
        problems += [
            f"{name} must be at least 1, got {getattr(self, name)}"
            for name in ("key_length", "digits")
            if getattr(self, name) < 1
        ]
        problems += [
            unknown_name(name, getattr(self, name), kinds)
            for name, kinds in (("key_kind", ("code", "words", "uuid")), ("value_kind", ("digits", "uuid")))
            if getattr(self, name) not in kinds
        ]
        if problems:
            raise ValueError("NeedleWording: " + "; ".join(problems))

    def draw_keys(self, count: int, generator: torch.Generator) -> list[str]:
        """Draw different keys."""
        if self.key_kind == "words":
            return _different(count, len(_words()) ** 2, "pairs of words", lambda: _pair(generator))
        if self.key_kind == "uuid":
            return _uuids(count, generator)
        return _codes(count, KEY_ALPHABET, self.key_length, generator)

    def draw_values(self, count: int, generator: torch.Generator) -> list[str]:
        """Draw different values."""
        if self.value_kind == "uuid":
            return _uuids(count, generator)
        return _codes(count, "0123456789", self.digits, generator)


def _ruler(plural: str, **kinds: str) -> NeedleWording:
    said = f"The special magic {plural[:-1]} for {{key}} mentioned in the provided text"
    return NeedleWording(
        needle=f"\nOne of the special magic {plural} for {{key}} is: {{value}}.",
        question=f"\nWhat {said.replace('The', 'is the', 1)}? {said} is",
        digits=7,
        **kinds,  # type: ignore[arg-type]  # two literals, given below
    )


WORDINGS: dict[str, NeedleWording] = {
    "paper": NeedleWording(),
    "ruler_numbers": _ruler("numbers", key_kind="words"),
    "ruler_uuids": _ruler("uuids", key_kind="uuid", value_kind="uuid"),
}
"""The paper's, and those of RULER's tasks (arXiv:2404.06654) with words and numbers, and with UUIDs alone."""


def find_wording(name: str) -> NeedleWording:
    """Return a wording by its name.

    Raises:
        ValueError: If there is no such wording.
    """
    if name not in WORDINGS:
        raise ValueError(unknown_name("wording", name, WORDINGS))
    return WORDINGS[name]


@cache
def _words() -> list[str]:
    return sorted(set(re.findall(r"\b[a-z]{4,9}\b", load_novel())))


def _pair(generator: torch.Generator) -> str:
    words = _words()
    return "-".join(words[i] for i in torch.randint(len(words), (2,), generator=generator).tolist())


def _uuids(count: int, generator: torch.Generator) -> list[str]:
    def one() -> str:
        digits = _code("0123456789abcdef", 31, generator)
        return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-{digits[15:19]}-{digits[19:]}"

    return _different(count, 16**31, "UUIDs", one)


def _codes(count: int, alphabet: str, length: int, generator: torch.Generator) -> list[str]:
    there_are = len(alphabet) ** length
    return _different(
        count, there_are, f"codes of {length} characters", lambda: _code(alphabet, length, generator)
    )


def _code(alphabet: str, length: int, generator: torch.Generator) -> str:
    return "".join(alphabet[i] for i in torch.randint(len(alphabet), (length,), generator=generator).tolist())


def _different(count: int, there_are: int, what: str, draw: Callable[[], str]) -> list[str]:
    if count > there_are:
        raise ValueError(f"needles: there are only {there_are} {what}, got {count}")
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        drawn[draw()] = None
    return list(drawn)
