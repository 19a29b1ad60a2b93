"""From a study's recipe to the systems that are trained, every setting worked in."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fwpkm.layers.checks import refuse
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.models.config import DecoderConfig, MemoryConfig
from fwpkm.recipe import Recipe, find_recipe, read_recipe
from fwpkm.study.budget import count_parameters, width_for
from fwpkm.study.config import StudyConfig, StudySystem
from fwpkm.train.run import Run


@dataclass(frozen=True, kw_only=True)
class System:
    """One system of a study, checked, with every seed's recipe."""

    label: str
    slug: str
    """Its label as a folder's name."""
    config: StudySystem
    model: DecoderConfig
    """The decoder; seeds change nothing about it."""
    parameters: int
    """Trained numbers."""
    runs: tuple[tuple[int, Run], ...]
    """Seeds, and what is trained with them."""

    @property
    def trained_length(self) -> int:
        """Tokens of a sequence in training."""
        return self.runs[0][1].data.seq_len

    @property
    def has_memory(self) -> bool:
        """Whether some layer has a memory of its own."""
        return bool(self._memories())

    @property
    def shares_memory(self) -> bool:
        """Whether streams of a batch write into one memory."""
        return any((m.table if isinstance(m, FwPKMConfig) else m.scope) == "batch" for m in self._memories())

    def reader(self, positions: str) -> str:
        """Name the system as it is measured."""
        return self.label if positions == "trained" else f"{self.label}, YaRN"

    def _memories(self) -> list[MemoryConfig]:
        layers = range(self.model.num_layers)
        return [memory for layer in layers if (memory := self.model.memory(layer)) is not None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study, checked as a whole."""

    recipe: Recipe
    config: StudyConfig
    systems: tuple[System, ...]


def make_plan(recipe: Recipe) -> Plan:
    """Read a study's recipe and those of all its systems.

    Raises:
        ValueError: With everything that is wrong about the study and its systems.
    """
    config = recipe.section("study", StudyConfig)
    systems, problems, target = [], [], None
    for i, wanted in enumerate(config.systems):
        try:
            systems.append(_system(recipe.path.parent, config, wanted, target))
        except (ValueError, FileNotFoundError) as error:
            problems.append(f"systems[{i}]: {error}")
            continue
        if target is None and config.equal_parameters:
            target = systems[0].parameters
    refuse(f"{recipe.path}: [study]", [*problems, *_clashes(systems), *_unequal_data(systems)])
    return Plan(recipe=recipe, config=config, systems=tuple(systems))


def _system(folder: Path, config: StudyConfig, wanted: StudySystem, target: int | None) -> System:
    file = find_recipe(wanted.recipe, folder)
    settings = [*config.settings, *wanted.settings]
    if target is not None:
        width = width_for(read_recipe(file, settings).sections.get("model", {}), target)
        settings.append(f"model.swiglu.hidden_dim={width}")
    runs = tuple(
        (seed, Run.of(read_recipe(file, [*settings, *_budget(config, seed)]))) for seed in config.seeds
    )
    first = runs[0][1]
    if not isinstance(first.model, DecoderConfig):
        raise ValueError(f"{wanted.recipe}: a study trains decoders of its own, got a recipe with [base]")
    if "yarn" in wanted.positions and "full_attention" not in first.model.mixers:
        raise ValueError(f"positions: yarn needs full attention, got mixers={list(first.model.mixers)}")
    label = wanted.label or first.recipe.title or first.recipe.name
    return System(
        label=label,
        slug=slug_of(label) or "system",
        config=wanted,
        model=first.model,
        parameters=count_parameters(first.model),
        runs=runs,
    )


def _budget(config: StudyConfig, seed: int) -> list[str]:
    """Return the settings that give every system the same tokens and the same order of the same data."""
    return [
        f"train.max_tokens={config.tokens}",
        "train.steps=none",
        "train.max_minutes=none",
        "train.schedule.horizon=steps",
        f"train.seed={seed}",
        f"data.seed={seed}",
    ]


def _clashes(systems: Sequence[System]) -> Iterator[str]:
    for slug, count in Counter(system.slug for system in systems).items():
        if count > 1:
            labels = [system.label for system in systems if system.slug == slug]
            yield f"labels must tell systems apart, got {labels}; set label"


def _unequal_data(systems: Sequence[System]) -> Iterator[str]:
    """Refuse systems whose losses could not be compared."""
    for name in ("corpus", "tokenizer"):
        found = {str(getattr(system.runs[0][1].data, name)): system.label for system in systems}
        if len(found) > 1:
            given = ", ".join(f"{value} ({label})" for value, label in found.items())
            yield f"all systems must have the same data.{name}, got {given}"


def differences(before: Recipe, now: Recipe) -> list[str]:
    """List the settings in which two resolved recipes differ."""
    old, new = (dict(_flat(recipe.sections)) for recipe in (before, now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [f"{name} was {old.get(name)!r} and is {new.get(name)!r}" for name in names]


def _flat(table: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(table, dict):
        for name, value in table.items():
            yield from _flat(value, f"{path}.{name}" if path else str(name))
    else:
        yield path, list(table) if isinstance(table, tuple) else table


def slug_of(label: str) -> str:
    """Return a name for files: what is neither a letter of ASCII nor a digit becomes a dash."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
