"""What a study has found so far: read from its files, several seeds side by side."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fwpkm.eval.files import load_result
from fwpkm.eval.needles import NeedleCell, NeedleResult, Variant
from fwpkm.eval.perplexity import PerplexityResult
from fwpkm.study.config import Positions
from fwpkm.study.curves import Training, read_training
from fwpkm.study.plan import Plan, System
from fwpkm.study.spread import Spread
from fwpkm.study.tasks import Task, make_tasks, seed_folder

T = TypeVar("T")
Condition = tuple[Variant, int]
"""How needles were asked for: variant, number of reads."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """One system as it was measured: with one kind of positions, each seed by itself."""

    name: str
    positions: Positions
    needles: tuple[tuple[NeedleCell, ...], ...]
    """Cells of each seed that has some."""
    perplexity: Mapping[str, tuple[PerplexityResult, ...]]
    """By memory mode: each seed's."""

    def conditions(self) -> list[Condition]:
        """List how needles were asked for, in the order of their first."""
        return list(dict.fromkeys((cell.variant, cell.reads) for own in self.needles for cell in own))

    def needle_share(self, condition: Condition, length: int, depth: float | None = None) -> Spread | None:
        """Return the share of samples with all answers right, over seeds; None where none was measured."""
        shares = []
        for own in self.needles:
            cells = [c for c in own if (c.variant, c.reads) == condition and c.length == length]
            cells = [c for c in cells if depth is None or c.depth == depth]
            if cells:
                shares.append(sum(c.right for c in cells) / sum(c.samples for c in cells))
        return Spread.of(shares) if shares else None

    def nats(self, mode: str, place: tuple[int, int]) -> Spread | None:
        """Return the mean cost of a token at positions of a bin, over seeds; None where none was measured."""
        found = [b.nats for r in self.perplexity.get(mode, ()) for b in r.bins if (b.start, b.stop) == place]
        return Spread.of(found) if found else None

    def bits_per_byte(self, mode: str) -> Spread | None:
        """Return bits per byte of everything that was read, over seeds."""
        found = [result.bits_per_byte for result in self.perplexity.get(mode, ())]
        return Spread.of(found) if found else None


@dataclass(frozen=True, kw_only=True, eq=False)
class SystemResults:
    """One system: what it is, how its trainings went, how it was measured."""

    system: System
    states: tuple[str, ...]
    """How far each seed's training is: a task's state, or "diverged"."""
    trainings: tuple[Training, ...]
    """Those of which something is known."""
    readings: tuple[Reading, ...]

    def over_seeds(self, value: Callable[[Training], float | int | None]) -> Spread | None:
        """Return a number of each finished training, over seeds."""
        found = [v for t in self.trainings if t.finished and (v := value(t)) is not None]
        return Spread.of(found) if found else None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What ended badly, and why."""

    system: str
    seed: int
    task: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyResults:
    """Everything that a study knows."""

    plan: Plan
    systems: tuple[SystemResults, ...]
    tasks: tuple[Task, ...]
    machines: tuple[tuple[str, ...], ...]
    """Devices, versions and commits that results were made with; usually one."""

    @property
    def readings(self) -> list[Reading]:
        """All systems as they were measured, of which there is something to show."""
        return [r for own in self.systems for r in own.readings if r.needles or r.perplexity]

    @property
    def failures(self) -> list[Failure]:
        """What ended badly: tasks that failed, and trainings that ended with a loss that is no number."""
        failed = [
            Failure(system=t.system, seed=t.seed, task=t.title, reason=t.reason)
            for t in self.tasks
            if t.state == "failed"
        ]
        return failed + [
            Failure(
                system=own.system.label,
                seed=t.seed,
                task="train",
                reason="diverged: its last loss is no number",
            )
            for own in self.systems
            for t in own.trainings
            if t.diverged
        ]


MACHINE = ("device", "threads", "torch", "backend", "python", "fwpkm", "commit", "date")
"""What is said of a machine, in this order."""


def read_study(plan: Plan, out: Path) -> StudyResults:
    """Read what there is of a study's results; what is missing or failed is left out, and said to be."""
    tasks = make_tasks(plan, out)
    found = {
        task.result: load_result(task.result)
        for task in tasks
        if task.settings is not None and task.is_done()
    }
    machines = sorted({tuple(str(getattr(r.origin, name)) for name in MACHINE) for r in found.values()})
    systems = tuple(_system(system, out, tasks, found) for system in plan.systems)
    return StudyResults(plan=plan, systems=systems, tasks=tuple(tasks), machines=tuple(machines))


def _system(system: System, out: Path, tasks: Sequence[Task], found: Mapping[Path, object]) -> SystemResults:
    own = [task for task in tasks if task.system == system.label]
    states = {task.seed: task.state for task in own if task.settings is None}
    known = [
        read_training(seed_folder(out, system, seed), seed, finished=state == "done")
        for seed, state in states.items()
    ]
    trainings = tuple(training for training in known if training is not None)
    diverged = {training.seed for training in trainings if training.diverged}
    return SystemResults(
        system=system,
        states=tuple("diverged" if seed in diverged else state for seed, state in states.items()),
        trainings=trainings,
        readings=tuple(_reading(system, positions, own, found) for positions in system.config.positions),
    )


def _reading(
    system: System, positions: Positions, tasks: Iterable[Task], found: Mapping[Path, object]
) -> Reading:
    name = system.reader(positions)
    results = [(t.seed, found[t.result]) for t in tasks if t.reader == name and t.result in found]
    needles = _by_seed((seed, r.cells) for seed, r in results if isinstance(r, NeedleResult))
    modes: dict[str, list[PerplexityResult]] = {}
    for _, result in results:
        if isinstance(result, PerplexityResult):
            modes.setdefault(result.settings.memory, []).append(result)
    return Reading(
        name=name,
        positions=positions,
        needles=tuple(needles),
        perplexity={mode: tuple(own) for mode, own in modes.items()},
    )


def _by_seed(parts: Iterable[tuple[int, tuple[T, ...]]]) -> Iterator[tuple[T, ...]]:
    joined: dict[int, tuple[T, ...]] = {}
    for seed, own in parts:
        joined[seed] = (*joined.get(seed, ()), *own)
    yield from joined.values()
