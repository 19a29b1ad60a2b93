"""What there is to do: one command line after the other, each with the file that it leaves."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from fwpkm.eval.files import load_result
from fwpkm.eval.needles import NeedleSettings
from fwpkm.eval.perplexity import PerplexitySettings
from fwpkm.files import read_json, write_json
from fwpkm.nested import to_mapping
from fwpkm.study.config import Positions, StudyConfig
from fwpkm.study.plan import Plan, System

State = Literal["done", "failed", "begun", "to do"]
Settings = NeedleSettings | PerplexitySettings
_NO_MATTER = ("batch_size", "piece")
"""Settings that change no result."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command of fwpkm, and what it leaves."""

    system: str
    """The system's label."""
    seed: int
    title: str
    """What is done, in a few words."""
    arguments: tuple[str, ...]
    """What stands behind `fwpkm`."""
    result: Path
    """The folder of a trained model, or a result's file."""
    settings: Settings | None = None
    """What is measured; None is a training."""
    text: str | None = None
    """What it is measured on."""
    reader: str | None = None
    """What the system is called as it is measured."""
    needs: Path | None = None
    """What another task must have left before this one can begin."""
    serves: tuple["Task", ...] = ()
    """The tasks that need what this one leaves."""

    @property
    def command(self) -> str:
        """The command line."""
        return shlex.join(["fwpkm", *self.arguments])

    @property
    def log(self) -> Path:
        """Where what it says is written to."""
        return self._beside(".log")

    @property
    def failure(self) -> Path:
        """The file that says why it failed."""
        return self._beside(".failed.json")

    @property
    def state(self) -> State:
        """How far it is, by the files."""
        if self.is_done():
            return "done"
        if self.failure.exists():
            return "failed"
        begun = self.settings is None and (self.result.parent / "metrics.jsonl").exists()
        return "begun" if begun else "to do"

    @property
    def reason(self) -> str:
        """Why it failed."""
        return str(read_json(self.failure)["reason"])

    def is_done(self) -> bool:
        """Whether its result is there, whole, and of these settings; or, of a training, all that it was for."""
        if self.settings is None:
            return self.result.is_dir() or (bool(self.serves) and all(t.is_done() for t in self.serves))
        if not self.result.exists():
            return False
        try:
            found = load_result(self.result)
        except ValueError:
            return False
        same_text = found.origin.text == self.text
        return same_text and _what_matters(found.settings) == _what_matters(self.settings)

    def fail(self, reason: str) -> None:
        """Write down that it failed."""
        write_json(self.failure, {"command": self.command, "reason": reason})

    def _beside(self, ending: str) -> Path:
        return (
            self.result.parent.with_suffix(ending)
            if self.settings is None
            else self.result.with_suffix(ending)
        )


def make_tasks(plan: Plan, out: Path) -> list[Task]:
    """List all there is to do, the first seed of every system first."""
    return [
        task
        for i in range(len(plan.config.seeds))
        for system in plan.systems
        for task in _system_tasks(plan.config, system, i, out)
    ]


def select_tasks(tasks: list[Task], labels: Sequence[str]) -> list[Task]:
    """Return the tasks of these systems, in the order of all.

    Raises:
        ValueError: If a label is no system's.
    """
    known = dict.fromkeys(task.system for task in tasks)
    if unknown := [label for label in labels if label not in known]:
        raise ValueError(f"no system is called {', '.join(unknown)}; known are {', '.join(known)}")
    return [task for task in tasks if task.system in labels]


def seed_folder(out: Path, system: System, seed: int) -> Path:
    """Return where one training and what was measured of it lie."""
    return out / system.slug / f"seed-{seed}"


def _system_tasks(config: StudyConfig, system: System, i: int, out: Path) -> list[Task]:
    """List one training, and then what is measured of its model."""
    seed = system.runs[i][0]
    folder = seed_folder(out, system, seed)
    measured = [
        _measurement(config, system, seed, folder, positions, name, title, settings)
        for positions in system.config.positions
        for name, title, settings in _measurements(config, system)
    ]
    run = folder / "run"
    training = Task(
        system=system.label,
        seed=seed,
        title="train",
        arguments=("train", str(folder / "recipe.toml"), "--out", str(run), "--resume"),
        result=run / "model",
        serves=tuple(measured),
    )
    return [training, *measured]


def _measurements(config: StudyConfig, system: System) -> Iterator[tuple[str, str, Settings]]:
    """List what is measured of a system: name of the file, title, settings."""
    longest, once_from = system.config.max_length, system.config.once_from or config.once_from
    if config.needles is not None:
        own = _fitting(config.needles, system)
        for length in sorted(n for n in own.lengths if longest is None or n <= longest):
            once = once_from is not None and length >= once_from
            asked = replace(own, reads=(1,), ablations=()) if once else own
            yield f"needles-{length}", f"needles in {length:,} tokens", replace(asked, lengths=(length,))
    if config.perplexity is not None:
        modes = config.memory_modes if system.has_memory else config.memory_modes[:1]
        for mode in modes:
            memory = mode if system.has_memory else "normal"
            name = "perplexity" if memory == "normal" else f"perplexity-{memory.replace('_', '-')}"
            title = name.replace("-", " ", 1).replace("-", " ")
            yield name, title, replace(config.perplexity, memory=memory)


def _fitting(settings: NeedleSettings, system: System) -> NeedleSettings:
    """Leave out what only memories have."""
    if not system.has_memory:
        return replace(settings, ablations=(), carry=False)
    if system.shares_memory:
        return replace(settings, ablations=tuple(a for a in settings.ablations if a != "wrong_document"))
    return settings


def _measurement(
    config: StudyConfig,
    system: System,
    seed: int,
    folder: Path,
    positions: Positions,
    name: str,
    title: str,
    settings: Settings,
) -> Task:
    stretched = positions == "yarn"
    result = folder / f"{name}{'-yarn' if stretched else ''}.json"
    kind = "needles" if isinstance(settings, NeedleSettings) else "perplexity"
    model = folder / "run" / "model"
    options = [
        *("--text", config.text),
        *("--name", system.reader(positions)),
        *("--out", str(result)),
        "--no-plots",
    ]
    if stretched:
        options += ["--yarn-from", str(system.trained_length)]
    return Task(
        system=system.label,
        seed=seed,
        title=f"{title}, YaRN" if stretched else title,
        arguments=("eval", kind, str(model), *options, *options_of(settings)),
        result=result,
        settings=settings,
        text=config.text,
        reader=system.reader(positions),
        needs=model,
    )


def options_of(settings: Settings) -> list[str]:
    """Write settings as options of `fwpkm eval`; defaults are left out."""
    options = []
    for f in fields(settings):
        value = getattr(settings, f.name)
        assert f.default is not MISSING, "every setting can be left out on the command line"
        if value == f.default:
            continue
        flag = f"--{f.name.replace('_', '-')}"
        if isinstance(value, bool):
            options.append(flag if value else f"--no-{flag[2:]}")
        else:
            options += [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    return options


def _what_matters(settings: object) -> dict[str, Any]:
    return {name: value for name, value in to_mapping(settings).items() if name not in _NO_MATTER}
