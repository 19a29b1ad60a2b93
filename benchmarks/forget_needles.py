"""What a session still knows after forgetting one of the documents that it read, needle by needle.

fwpkm data get books --out books
fwpkm data build books --out corpus --tokenizer bytes
python benchmarks/forget_needles.py small --text corpus --out results/memory/forget.json

Every session reads some documents of prose with five facts each, keeping a journal, and is asked for all facts. Then
each of the documents is forgotten in turn (in a fork), and all facts are asked for again. "Never read" is a
session that read the other documents alone. The exit code is 1 unless, for every place of the forgotten document, the
forgotten facts are found at most 1 point more often than never-read ones, the others at most 1 point less often
than before and than in that session, and unless forgetting the last document gives the session before it, bit by bit.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from needle_sessions import Document, DocumentMaker, Recall, origin_of, recall, show_progress

from fwpkm.cli.session_options import load_reader
from fwpkm.data.tokenizer import Tokenizer
from fwpkm.files import write_json
from fwpkm.memory.state import FwPKMState
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.sessions.session import MemorySession

_POINT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is read and asked."""

    sessions: int = 60
    documents: int = 3
    """Read by each session."""
    needles: int = 5
    """Facts in each document."""
    least: int = 1000
    most: int = 2000
    """Tokens of a document."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sessions < 1 or self.documents < 2:
            raise ValueError(
                f"Plan: sessions must be at least 1 and documents 2, got {self.sessions} and {self.documents}"
            )


@dataclass(slots=True, kw_only=True)
class Forgetting:
    """What came of forgetting the document at one place."""

    place: int
    """0 is the first that was read."""
    forgotten: Recall = field(default_factory=Recall)
    """Its facts, after it was forgotten."""
    never: Recall = field(default_factory=Recall)
    """Its facts, asked of a session that read the other documents alone."""
    others: Recall = field(default_factory=Recall)
    """The other documents' facts, after."""
    others_before: Recall = field(default_factory=Recall)
    others_never: Recall = field(default_factory=Recall)
    """The other documents' facts, asked of the session that read them alone."""
    equal_tables: int = 0
    """Sessions whose tables, sub-keys included, are bit by bit those of the session that read the others alone."""
    shared_slots: int = 0
    """Slots that the document wrote and a later one too, of all sessions and layers."""
    own_slots: int = 0
    """Slots that the document wrote, of all sessions and layers."""

    @property
    def problems(self) -> list[str]:
        """Say what is not as it must be."""
        found = []
        if self.forgotten.share > self.never.share + _POINT:
            found.append(
                f"forgotten facts are found: {self.forgotten.share:.1%}, never read {self.never.share:.1%}"
            )
        for what, recalled in (("before", self.others_before), ("without it", self.others_never)):
            if self.others.share < recalled.share - _POINT:
                found.append(f"others' facts are lost: {self.others.share:.1%}, {what} {recalled.share:.1%}")
        return [f"document {self.place + 1}: {text}" for text in found]


class Experiment:
    """Sessions that read and forget.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        make: Makes the document of a session and a place.
        plan: How much.
    """

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, make: Callable[[int, int], Document], plan: Plan
    ) -> None:
        self.model, self.tokenizer, self.make, self.plan = model, tokenizer, make, plan
        self.before = [Recall() for _ in range(plan.documents)]
        """Of each document's facts, all of them read."""
        self.places = [Forgetting(place=place) for place in range(plan.documents)]
        self.done = 0
        """Sessions so far."""
        self.exact_last = 0
        """Sessions that, having forgotten the last document, are bit by bit what they were before it."""

    def run(self) -> Iterator[int]:
        """Read, ask, forget and ask again; yields how many sessions are done."""
        for number in range(self.plan.sessions):
            self._session(number)
            self.done = number + 1
            show_progress(self.done, self.plan.sessions)
            yield self.done

    def _session(self, number: int) -> None:
        documents = [self.make(number, place) for place in range(self.plan.documents)]
        full, marks = self._fresh(), []
        for place, document in enumerate(documents):
            marks.append(full.mark())
            full.read(document.text, name=str(place))
        before = recall(self.model, full.cache, documents)
        self.before = [a + b for a, b in zip(self.before, before, strict=True)]
        for place, found in enumerate(self.places):
            less, never = full.fork(), self._without(documents, place, marks)
            less.forget(str(place))
            _count_slots(found, full, place)
            self._compare(found, less.cache, never.cache, documents, before)
        self.exact_last += same_tables(less.cache, marks[-1].cache)

    def _without(self, documents: Sequence[Document], place: int, marks: Sequence[Any]) -> MemorySession:
        """Return the session that read all documents but one."""
        session = self._fresh()
        session.rollback(to=marks[place])
        for document in documents[place + 1 :]:
            session.read(document.text)
        return session

    def _compare(
        self,
        found: Forgetting,
        less: DecoderCache,
        never: DecoderCache,
        documents: Sequence[Document],
        before: Sequence[Recall],
    ) -> None:
        after, without = (recall(self.model, cache, documents) for cache in (less, never))
        found.forgotten += after[found.place]
        found.never += without[found.place]
        for place in range(len(documents)):
            if place != found.place:
                found.others += after[place]
                found.others_before += before[place]
                found.others_never += without[place]
        found.equal_tables += same_tables(less, never)

    def _fresh(self) -> MemorySession:
        return MemorySession(self.model, self.tokenizer, journal=True)

    @property
    def problems(self) -> list[str]:
        """Say what is not as it must be."""
        found = [text for place in self.places for text in place.problems]
        if self.exact_last < self.done:
            found.append(f"the last document: exact in {self.exact_last} of {self.done} sessions only")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers."""
        return {
            "plan": asdict(self.plan),
            "sessions": self.done,
            "before": [asdict(found) for found in self.before],
            "places": [asdict(found) for found in self.places],
            "exact_last": self.exact_last,
            "problems": self.problems,
        }

    def to_text(self) -> str:
        """Return a table."""
        lines = [
            "forgotten   its facts: before  after  never read   the others': before  after  without it   slots shared"
        ]
        for found in self.places:
            before = self.before[found.place]
            lines.append(
                f"document {found.place + 1} {before.share:18.1%} {found.forgotten.share:6.1%} "
                f"{found.never.share:11.1%} {found.others_before.share:21.1%} {found.others.share:6.1%} "
                f"{found.others_never.share:11.1%} {found.shared_slots / max(found.own_slots, 1):14.1%}"
            )
        return "\n".join(lines)


def same_tables(a: DecoderCache, b: DecoderCache) -> bool:
    """Whether all memories hold the same rows in the same slots under the same sub-keys, bit by bit."""
    return all(
        torch.equal(x.keys, y.keys)
        and torch.equal(cells := x.table.written(), y.table.written())
        and torch.equal(x.table.gather(cells), y.table.gather(cells))
        for x, y in zip(memories(a), memories(b), strict=True)
    )


def memories(cache: DecoderCache) -> list[FwPKMState]:
    """Return the FwPKM memories, lowest layer first."""
    return [block.memory for block in cache.blocks if isinstance(block.memory, FwPKMState)]


def _count_slots(found: Forgetting, session: MemorySession, place: int) -> None:
    """Count the slots that a document wrote, and those of them that a later one wrote too."""
    reading = session.readings[place]
    for state in memories(session.cache):
        assert state.table.journal is not None, "sessions keep a journal"
        own, later = set[int](), set[int]()
        for write in state.table.journal:
            target = write.tokens + state.options.lookahead
            for into, rows in (
                (own, (target >= reading.start) & (target < reading.stop)),
                (later, target >= reading.stop),
            ):
                into.update(write.cells[write.number[rows]].flatten().tolist())
        found.own_slots += len(own)
        found.shared_slots += len(own & later)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table and write a file; returns 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", help="folder of a trained model, or the name of one that ships")
    parser.add_argument(
        "--text", default="novel", help="a corpus folder, of which the held-out part is taken"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    for name in ("sessions", "documents", "needles", "least", "most", "seed"):
        parser.add_argument(f"--{name}", type=int, default=Plan.__dataclass_fields__[name].default)
    options = parser.parse_args(argv)
    plan = Plan(**{name: getattr(options, name) for name in Plan.__dataclass_fields__})
    model, tokenizer = load_reader(options.checkpoint, "cpu")
    maker = DocumentMaker(
        options.text, tokenizer, needles=plan.needles, least=plan.least, most=plan.most
    )  # fmt: skip
    done = Experiment(model, tokenizer, lambda n, place: maker.document(plan.seed, n, place), plan)
    origin = origin_of(options.checkpoint, options.text, model, tokenizer)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for _ in done.run():
        write_json(options.out, {"origin": asdict(origin), **done.to_dict()})
    print(done.to_text())
    print("\n".join(done.problems), file=sys.stderr)
    return 1 if done.problems else 0


if __name__ == "__main__":
    sys.exit(main())
