"""Needles in a haystack: can a model give back, digit for digit, what stood somewhere in what it read?"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from fwpkm.data.needles import NeedleMaker, NeedleSample
from fwpkm.data.shuffle import mix
from fwpkm.eval.reader import Guess, Reader
from fwpkm.eval.result import Origin
from fwpkm.layers.checks import below_one, refuse
from fwpkm.nested import unknown_name

T = TypeVar("T")
Variant = Literal["normal", "memory_off", "frozen_memory", "wrong_document"]
ABLATIONS: tuple[Variant, ...] = tuple(name for name in get_args(Variant) if name != "normal")
Progress = Callable[[int, int], None]
_WHOLE_DEPTH = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleSettings:
    """What is asked, how often, and of whom."""

    form: str = "paper"
    """Which task (`fwpkm.data.needles.NEEDLE_FORMS`)."""
    lengths: tuple[int, ...] = (512, 2048, 8192, 16384)
    """Tokens of document and questions together."""
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Where the asked needle stands: 0 at the beginning, 1 at the end."""
    reads: tuple[int, ...] = (1, 2)
    """After how many readings of the document to ask, 1 to 4."""
    samples: int = 20
    """Documents of each length and depth."""
    ablations: tuple[Variant, ...] = ()
    """What to measure beside the model as it is. "memory_off": the memory retrieves zeros. "frozen_memory": it
    never learns. "wrong_document": each question meets the memory of another document, and its own token mixers."""
    carry: bool = False
    """Keep the memory, and nothing else, from one sample to the next of the same length and depth."""
    flush: bool = True
    """Let the memory take in the document's last tokens, which wait for their chunk to fill, before it is asked."""
    seed: int = 0
    """Decides all samples."""
    batch_size: int = 8
    """Documents that are read side by side; changes no result."""

    def __post_init__(self) -> None:
        problems = below_one(self, "samples", "batch_size")
        problems += [
            f"{name} must not be empty and name nothing twice, got {list(values)}"
            for name in ("lengths", "depths", "reads", "ablations")
            if len(set(values := getattr(self, name))) < len(values) or (name != "ablations" and not values)
        ]
        problems += [f"depths must be in [0, 1], got {depth}" for depth in self.depths if not 0 <= depth <= 1]
        problems += [f"lengths must be at least 1, got {length}" for length in self.lengths if length < 1]
        problems += [f"reads must be in [1, 4], got {reads}" for reads in self.reads if not 1 <= reads <= 4]
        problems += [unknown_name("ablation", a, ABLATIONS) for a in self.ablations if a not in ABLATIONS]
        if "wrong_document" in self.ablations and self.samples % 2:
            problems.append(f"wrong_document pairs samples: they must be even, got samples={self.samples}")
        if self.carry and self.ablations:
            problems.append(f"ablations are for fresh memories, got {list(self.ablations)} with carry=True")
        refuse("NeedleSettings", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleCell:
    """What came out at one length and depth, after so many readings."""

    variant: Variant
    length: int
    depth: float
    reads: int
    samples: int
    right: int
    """Samples with all questions answered without a mistake."""
    tokens: int
    """Tokens of all answers."""
    tokens_right: int
    """Those that are the likeliest, the right ones before each given."""
    nats: float
    """Mean cost of an answer's token: -log p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleResult:
    """All cells of one model."""

    origin: Origin
    settings: NeedleSettings
    cells: tuple[NeedleCell, ...]


def measure_needles(
    reader: Reader, maker: NeedleMaker, settings: NeedleSettings, progress: Progress | None = None
) -> Iterator[NeedleCell]:
    """Yield the cells, shortest documents first.

    Every token of an answer is predicted from what stood before it, with a memory that was written before it:
    with the document, never with the rest of the answer.

    Args:
        reader: Who is examined.
        maker: Makes the samples; its task is what counts.
        settings: What is asked.
        progress: Told how many samples of a length are done, and how many there are.

    Raises:
        ValueError: If the reader cannot do what the settings ask for.
    """
    _check(reader, settings)
    for length in sorted(settings.lengths):
        exam = _Exam(reader, maker, settings, length, progress)
        if settings.carry:
            exam.carried()
        else:
            exam.fresh()
        yield from exam.cells()


def sample_seed(seed: int, length: int, depth: float, index: int) -> int:
    """Return the seed of one sample, which no other sample of any cell shares."""
    return mix(seed, length, round(depth * _WHOLE_DEPTH), index)


class _Exam:
    """All samples of one length."""

    def __init__(
        self,
        reader: Reader,
        maker: NeedleMaker,
        settings: NeedleSettings,
        length: int,
        progress: Progress | None,
    ) -> None:
        self.reader, self.maker, self.settings, self.length = reader, maker, settings, length
        self.progress, self.done = progress, 0
        self.counts: dict[tuple[Variant, float, int], _Count] = defaultdict(_Count)

    def fresh(self) -> None:
        """Examine with a memory that is fresh for each sample."""
        places = [(depth, i) for depth in self.settings.depths for i in range(self.settings.samples)]
        for batch in _split(places, self._at_once(len(places))):
            samples = [self.sample(depth, i) for depth, i in batch]
            for variants in _readings(self.settings):
                self._read_and_ask(samples, variants)
            self._advance(len(batch))

    def carried(self) -> None:
        """Examine with one memory for all samples of a depth, and for each number of reads one of its own."""
        for depths in _split(self.settings.depths, self._at_once(len(self.settings.depths))):
            known = dict.fromkeys(self.settings.reads, self.reader.fresh(len(depths)))
            for i in range(self.settings.samples):
                samples = [self.sample(depth, i) for depth in depths]
                for reads in self.settings.reads:
                    known[reads] = self._read_on(known[reads], samples, reads)
                self._advance(len(depths))

    def sample(self, depth: float, index: int) -> NeedleSample:
        """Make a sample."""
        seed = sample_seed(self.settings.seed, self.length, depth, index)
        return self.maker.sample(length=self.length, depth=depth, seed=seed)

    def cells(self) -> Iterator[NeedleCell]:
        """Sum up, in the order of the settings."""
        names = ("normal", *self.settings.ablations)
        for variant, reads, depth in product(names, self.settings.reads, self.settings.depths):
            yield self.counts[variant, depth, reads].cell(
                variant=variant, length=self.length, depth=depth, reads=reads
            )

    def _read_and_ask(self, samples: Sequence[NeedleSample], variants: Sequence[Variant]) -> None:
        known = self._start(len(samples), variants[0])
        for reads in range(1, max(self.settings.reads) + 1):
            known = self.reader.read(known, [sample.context for sample in samples])
            if reads in self.settings.reads:
                asked = self._closed(known)
                for variant in variants:
                    own = self.reader.exchange(asked) if variant == "wrong_document" else asked
                    self._ask(own, samples, variant, reads)

    def _start(self, num_streams: int, variant: Variant) -> Any:
        known = self.reader.fresh(num_streams)
        if variant == "memory_off":
            return self.reader.silence(known)
        return self.reader.freeze(known) if variant == "frozen_memory" else known

    def _read_on(self, known: Any, samples: Sequence[NeedleSample], reads: int) -> Any:
        for _ in range(reads):
            known = self.reader.read(known, [sample.context for sample in samples])
        known = self._closed(known)
        self._ask(known, samples, "normal", reads)
        return self.reader.carry_over(known)

    def _closed(self, known: Any) -> Any:
        return self.reader.close(known) if self.settings.flush else known

    def _ask(self, known: Any, samples: Sequence[NeedleSample], variant: Variant, reads: int) -> None:
        """Ask all questions, each of the memory as it was after the document."""
        rounds = zip(*(sample.questions for sample in samples), strict=True)
        guesses = zip(*(self.reader.ask(known, questions) for questions in rounds), strict=True)
        for sample, own in zip(samples, guesses, strict=True):
            self.counts[variant, sample.depth, reads].add(sample, own)

    def _at_once(self, most: int) -> int:
        """Return how many streams to read side by side: even numbers, so that neighbours stay together."""
        if self.reader.shares_memory:
            return 1
        wanted = min(self.settings.batch_size, most)
        return max(2, wanted - wanted % 2) if "wrong_document" in self.settings.ablations else wanted

    def _advance(self, count: int) -> None:
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.settings.samples * len(self.settings.depths))


class _Count:
    """What a cell adds up."""

    def __init__(self) -> None:
        self.samples = self.right = self.tokens = self.tokens_right = 0
        self.nats = 0.0

    def add(self, sample: NeedleSample, guesses: Sequence[Guess]) -> None:
        """Count one sample with its answers."""
        pairs = list(zip(sample.questions, guesses, strict=True))
        hits = np.concatenate([guess.tokens == question.answer for question, guess in pairs])
        self.samples += 1
        self.right += int(hits.all())
        self.tokens += len(hits)
        self.tokens_right += int(hits.sum())
        self.nats += float(sum(guess.nats.sum() for guess in guesses))

    def cell(self, *, variant: Variant, length: int, depth: float, reads: int) -> NeedleCell:
        """Sum up."""
        return NeedleCell(
            variant=variant,
            length=length,
            depth=depth,
            reads=reads,
            samples=self.samples,
            right=self.right,
            tokens=self.tokens,
            tokens_right=self.tokens_right,
            nats=self.nats / self.tokens,
        )


def _readings(settings: NeedleSettings) -> list[tuple[Variant, ...]]:
    """Group variants that share a reading of the documents."""
    others = settings.ablations
    alike: tuple[Variant, ...] = ("normal", *(v for v in others if v == "wrong_document"))
    return [alike, *((v,) for v in others if v != "wrong_document")]


def _check(reader: Reader, settings: NeedleSettings) -> None:
    problems = []
    if not reader.has_memory and (settings.ablations or settings.carry):
        wanted = [*settings.ablations, *(["carry"] if settings.carry else [])]
        problems.append(f"the model has no memory of its own, got {', '.join(wanted)}; leave that out")
    if reader.shares_memory and "wrong_document" in settings.ablations:
        problems.append("wrong_document needs one memory per stream; the model's is shared by the batch")
    refuse("needles", problems)


def _split(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[i : i + size] for i in range(0, len(items), size)]
