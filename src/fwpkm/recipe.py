"""Recipes: TOML files that say everything about a model, its data, its training and its evaluation."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from fwpkm.models.base_config import BaseConfig
from fwpkm.models.config import DecoderConfig
from fwpkm.nested import from_mapping, unknown_name
from fwpkm.toml import dump_toml

C = TypeVar("C")

SECTIONS = ("model", "base", "data", "train", "eval", "study")
"""Tables that a recipe may have."""
_TEXTS = ("title", "source")
_SHIPPED = (Path(__file__).parent / "recipes", Path(__file__).parents[2] / "recipes")
"""Where recipes come with the package: in an installed one, in a checkout."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe with all that it extends and all settings worked in."""

    name: str
    """Its short name, such as "paper/gdn_fwpkm"; for a file elsewhere, its name without ".toml"."""
    path: Path
    """The file."""
    title: str = ""
    """What it is, in a line."""
    source: str = ""
    """Where its numbers come from."""
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Its tables, as plain mappings."""
    made_of: str = ""
    """What it extends and was given besides, for messages: " with ..."."""

    @cached_property
    def model(self) -> DecoderConfig:
        """The decoder.

        Raises:
            ValueError: With everything that is wrong about [model], and the file's name.
        """
        if "base" in self.sections:
            raise ValueError(f"{self.path}: must define a decoder in [model], got an existing one in [base]")
        try:
            return DecoderConfig.from_dict(self.sections.get("model", {}))
        except ValueError as error:
            raise ValueError(f"{self.path}{self.made_of}: [model]: {error}") from error

    @property
    def network(self) -> DecoderConfig | BaseConfig:
        """What is trained: the decoder of [model], or the existing model with memories of [base].

        Raises:
            ValueError: With everything that is wrong about it, and the file's name.
        """
        if "base" not in self.sections:
            return self.model
        if "model" in self.sections:
            raise ValueError(f"{self.path}: must hold [model] or [base], got both")
        return self.section("base", BaseConfig)

    def section(self, name: str, cls: type[C]) -> C:
        """Read a section into the config dataclass `cls`; what the recipe leaves out keeps its default.

        Raises:
            ValueError: With everything that is wrong about the section, and the file's name.
        """
        if name not in SECTIONS:
            raise ValueError(f"Recipe.section: {unknown_name('section', name, SECTIONS)}")
        try:
            return from_mapping(cls, self.sections.get(name, {}))
        except ValueError as error:
            raise ValueError(f"{self.path}{self.made_of}: [{name}]: {error}") from error

    def to_toml(self) -> str:
        """Write the recipe out as one file that extends nothing."""
        texts = {name: text for name in _TEXTS if (text := getattr(self, name))}
        return dump_toml({**texts, **self.sections})


def read_recipe(path: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe, the files that it extends, and settings that come last.

    `extends = "base.toml"` at a recipe's top, or a list of files of which later ones win, names what it
    builds on: paths beside it, or short names. Tables merge, everything else is replaced; "none" unsets what
    may be unset.

    Args:
        path: A file, or the short name of a recipe that comes with the package ("paper/gdn_fwpkm").
        settings: As `train.lr=3e-4`: a dotted name and a TOML value; a bare word is a string.

    Raises:
        FileNotFoundError: If there is no such file, with the nearest short name.
        ValueError: If a file is no TOML, extends itself or holds unknown names, or a setting is malformed.
    """
    file = find_recipe(path)
    merged, files = _read_merged(file, ())
    for setting in settings:
        _apply(setting, merged)
    made_of = _made_of([path for path in files if path != file], settings)
    problems = _problems(merged)
    if problems:
        raise ValueError(f"{file}{made_of}: " + "; ".join(problems))
    texts = {name: merged.pop(name) for name in _TEXTS if name in merged}
    return Recipe(name=_short_name(file), path=file, sections=merged, made_of=made_of, **texts)


def _made_of(bases: Sequence[Path], settings: Sequence[str]) -> str:
    """Name what else may be to blame for what a recipe says."""
    parts = [f"{path.name} (extended)" for path in bases] + [f"--set {setting}" for setting in settings]
    return f" with {', '.join(parts)}" if parts else ""


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read settings such as `a.b=3e-4`, later ones over earlier ones, as one mapping.

    Raises:
        ValueError: If one is malformed.
    """
    merged: dict[str, Any] = {}
    for setting in settings:
        _apply(setting, merged)
    return merged


def recipe_names() -> list[str]:
    """List the short names of the recipes that come with the package; files and folders in "_" are parts of them."""
    names = {_short_name(file) for folder in _SHIPPED for file in folder.rglob("*.toml")}
    return sorted(name for name in names if not any(part.startswith("_") for part in name.split("/")))


def find_recipe(path: str | Path, beside: Path | None = None) -> Path:
    """Return the file that a path (relative to `beside`, if given) or a short name means.

    Raises:
        FileNotFoundError: If there is none, with the nearest short name.
    """
    for folder in (beside or Path(), *_SHIPPED):
        for file in (folder / path, folder / f"{path}.toml"):
            if file.is_file():
                return file
    known = unknown_name("name", str(path).removesuffix(".toml"), recipe_names())
    raise FileNotFoundError(
        f"no recipe {str(path)!r}: neither a file nor one that comes with fwpkm ({known})"
    )


def _read_merged(file: Path, ancestors: tuple[Path, ...]) -> tuple[dict[str, Any], list[Path]]:
    """Return what a file and all that it extends say, and all these files."""
    where = file.resolve()
    if where in ancestors:
        raise ValueError(
            f"{file}: extends itself, through {' -> '.join(p.name for p in (*ancestors, where))}"
        )
    own = _parse(file)
    bases = own.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{file}: extends must be a file's name or a list of such, got extends={bases!r}")
    if problems := _problems(own):
        raise ValueError(f"{file}: " + "; ".join(problems))
    merged, files = dict[str, Any](), [file]
    for base in bases:
        below, more = _read_merged(_base(base, file), (*ancestors, where))
        merged, files = merge(merged, below), files + more
    return merge(merged, own), files


def _base(name: str, file: Path) -> Path:
    try:
        return find_recipe(name, file.parent)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file}: extends: {error}") from error


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a TOML file: {error}") from error


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another: tables merge at every depth, anything else is replaced."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge(old, value)
        merged[name] = value
    return merged


def _apply(setting: str, merged: dict[str, Any]) -> None:
    """Work `a.b=value` into a mapping, tables on the way included."""
    name, equals, text = setting.partition("=")
    parts = [part.strip() for part in name.split(".")]
    if not equals or not all(parts):
        raise ValueError(f"--set: must be NAME=VALUE, as in train.lr=3e-4, got {setting!r}")
    value: Any = _value(text.strip(), setting)
    for part in reversed(parts):
        value = {part: value}
    for table in _tables_on_the_way(parts, merged):
        if not isinstance(table, Mapping):
            raise ValueError(f"--set: {name} goes through {table!r}, which is not a table")
    merged.update(merge(merged, value))


def _tables_on_the_way(parts: Sequence[str], merged: Mapping[str, Any]) -> Iterator[Any]:
    table: Any = merged
    for part in parts[:-1]:
        if not isinstance(table, Mapping) or part not in table:
            return
        table = table[part]
        yield table


def _value(text: str, setting: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text and text[0] not in "[{\"'" and "\n" not in text:
            return text
        raise ValueError(f"--set: {setting!r} has no TOML value: {error}") from error
    if len(parsed) > 1:
        raise ValueError(f"--set: {setting!r} must be one name and one value")
    return parsed["value"]


def _problems(recipe: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a recipe's top level."""
    known = (*SECTIONS, *_TEXTS, "extends")
    problems = [unknown_name("name", name, known) for name in recipe if name not in known]
    if "extends" in recipe:
        problems.append("extends belongs at the top of a file; it cannot be set")
    for name in set(SECTIONS) & set(recipe):
        if not isinstance(recipe[name], Mapping):
            problems.append(f"{name} must be a table, got {name}={recipe[name]!r}")
    for name in set(_TEXTS) & set(recipe):
        if not isinstance(recipe[name], str):
            problems.append(f"{name} must be a string, got {name}={recipe[name]!r}")
    return problems


def _short_name(file: Path) -> str:
    for folder in _SHIPPED:
        if file.resolve().is_relative_to(folder.resolve()):
            return file.resolve().relative_to(folder.resolve()).with_suffix("").as_posix()
    return file.stem
