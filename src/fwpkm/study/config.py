"""What defines a study: the recipe's section [study]."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from fwpkm.eval.needles import NeedleSettings
from fwpkm.eval.perplexity import MemoryMode, PerplexitySettings
from fwpkm.layers.checks import below_one, refuse

Positions = Literal["trained", "yarn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySystem:
    """One system: a recipe, and what is changed about it."""

    recipe: str
    """A file beside the study's, or the short name of a recipe that comes with the package."""
    label: str | None = None
    """What tables and charts call it; None is the recipe's title."""
    settings: tuple[str, ...] = ()
    """Changes such as "model.fwpkm.topk=4", over the study's own settings."""
    positions: tuple[Positions, ...] = ("trained",)
    """With which rotary positions to measure it: as trained, or stretched to each document's length by YaRN
    (arXiv:2309.00071; full attention only)."""
    max_length: int | None = None
    """Longest documents with needles that it is asked about; None is all. Full attention's cost grows with the
    square."""
    once_from: int | None = None
    """The study's `once_from` for this system alone: what sees all of a document anyway need not read it again."""

    def __post_init__(self) -> None:
        problems = below_one(self, "max_length", "once_from")
        if self.label is not None and not self.label.strip():
            problems.append(f"label must hold some text, got label={self.label!r}; leave it out")
        if not self.positions or len(set(self.positions)) < len(self.positions):
            problems.append(
                f"positions must not be empty and name nothing twice, got {list(self.positions)}; known are "
                f"{', '.join(get_args(Positions))}"
            )
        refuse("StudySystem", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """Which systems are trained and how they are measured."""

    systems: tuple[StudySystem, ...]
    """[[study.systems]]; the first is what the others are compared with."""
    tokens: int
    """Tokens that every system is trained on, rounded up to whole steps, whatever its recipe says of budgets."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each system is trained once with each: of its weights and of its data, so that all systems see the same."""
    settings: tuple[str, ...] = ()
    """Changes to all systems' recipes, such as "train.optimizer.lr=2e-3"."""
    equal_parameters: bool = False
    """Choose every system's model.swiglu.hidden_dim such that it has as many parameters as the first one, as nearly
    as a whole number allows."""
    text: str = "novel"
    """What is measured on: "novel" for its last fifth, a corpus folder for its held-out part, or a text file."""
    needles: NeedleSettings | None = field(default_factory=NeedleSettings)
    """[study.needles]; "none" leaves them out. Ablations of the memory are left out for systems without one."""
    once_from: int | None = None
    """Documents with needles of this length or more are read once only, and no ablation is made of them: each would
    take as long again."""
    perplexity: PerplexitySettings | None = field(default_factory=PerplexitySettings)
    """[study.perplexity]; "none" leaves it out. `memory` is what `memory_modes` says instead."""
    memory_modes: tuple[MemoryMode, ...] = ("normal",)
    """With which memory perplexity is measured; systems without one are measured as they are."""
    jobs: int = 1
    """Trainings or measurements that run side by side."""
    threads: int = 1
    """Threads of each."""

    def __post_init__(self) -> None:
        problems = below_one(self, "tokens", "jobs", "threads", "once_from")
        problems += [
            f"{name} must not be empty and name nothing twice, got {list(values)}"
            for name in ("seeds", "memory_modes")
            if not (values := getattr(self, name)) or len(set(values)) < len(values)
        ]
        if not self.systems:
            problems.append("systems must name at least one; add a [[study.systems]] with a recipe")
        if self.perplexity is not None and self.perplexity.memory != "normal":
            problems.append(
                f"perplexity.memory must be left out, got {self.perplexity.memory!r}; set memory_modes instead"
            )
        refuse("StudyConfig", problems)
