"""What narrower rows in memory files cost: bytes, error of the rows, and needles that are still found.

fwpkm data get books --out books
fwpkm data build books --out corpus --tokenizer bytes
python benchmarks/row_formats.py small --text corpus --out results/memory/rows.json

Every session reads one document of prose with ten facts, is saved in each format, loaded and asked for all of them.
The exit code is 1 unless exact rows answer every question, to the last bit of its cost, as the session did that was
never saved, and the others find at most 1 point less.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from needle_sessions import Document, DocumentMaker, Recall, origin_of, recall, show_progress

from fwpkm.cli.session_options import load_reader
from fwpkm.data.tokenizer import Tokenizer
from fwpkm.files import write_json
from fwpkm.memory.fingerprint import Fingerprint
from fwpkm.memory.quantise import ROW_FORMATS, RowFormat
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.sessions.session import MemorySession

_POINT = 0.01


@dataclass(slots=True, kw_only=True)
class Kept:
    """All sessions in one format."""

    rows: RowFormat
    recall: Recall = field(default_factory=Recall)
    file_bytes: int = 0
    """Of all files."""
    loss: float = 0.0
    """The largest relative error of a file's rows."""


class Comparison:
    """Sessions that are saved and loaded in every format.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Decoder, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.fingerprint = Fingerprint.of(model)
        self.unsaved = Recall()
        """What sessions answer that were never saved."""
        self.formats = [Kept(rows=rows) for rows in ROW_FORMATS]
        self.tokens = 0
        """Read by all sessions."""

    def run(self, documents: Sequence[Document]) -> Iterator[int]:
        """Read each document in a session of its own; yields how many are done."""
        for number, document in enumerate(documents):
            session = MemorySession(self.model, self.tokenizer)
            session.read(document.text)
            self.tokens += session.tokens_seen
            self.unsaved += self._recall(session.cache, document)
            with tempfile.TemporaryDirectory() as folder:
                for kept in self.formats:
                    self._keep(kept, session.cache, document, Path(folder) / "memory.fwpkm")
            show_progress(number + 1, len(documents))
            yield number + 1

    def _keep(self, kept: Kept, cache: DecoderCache, document: Document, path: Path) -> None:
        report = cache.save(path, self.fingerprint, rows=kept.rows)
        loaded = DecoderCache.load(path, self.model, fingerprint=self.fingerprint)
        kept.recall += self._recall(loaded, document)
        kept.file_bytes += report.num_bytes
        kept.loss = max(kept.loss, report.loss)

    def _recall(self, cache: DecoderCache, document: Document) -> Recall:
        return recall(self.model, cache, [document])[0]

    @property
    def problems(self) -> list[str]:
        """Say what is not as it must be."""
        exact = next(kept.recall for kept in self.formats if kept.rows == "exact")
        found = (
            [] if exact == self.unsaved else ["exact rows answer otherwise than the session that was saved"]
        )
        return found + [
            f"{kept.rows} finds {kept.recall.share:.1%}, exact rows {exact.share:.1%}"
            for kept in self.formats
            if kept.recall.share < exact.share - _POINT
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers."""
        return {
            "tokens": self.tokens,
            "unsaved": asdict(self.unsaved),
            "formats": [asdict(kept) for kept in self.formats],
            "problems": self.problems,
        }

    def to_text(self) -> str:
        """Return a table."""
        lines = ["rows        bytes of all files   error of rows   found   nats an answer"]
        for kept in self.formats:
            found = kept.recall
            lines.append(
                f"{kept.rows:10s} {kept.file_bytes:19,} {kept.loss:15.2g} {found.share:7.1%} "
                f"{found.nats / found.questions:15.4f}"
            )
        return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table and write a file; returns 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", help="folder of a trained model, or the name of one that ships")
    parser.add_argument(
        "--text", default="novel", help="a corpus folder, of which the held-out part is taken"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--needles", type=int, default=10, help="facts in each document")
    parser.add_argument("--least", type=int, default=3000, help="tokens of the shortest document")
    parser.add_argument("--most", type=int, default=5000, help="tokens of the longest one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    model, tokenizer = load_reader(options.checkpoint, "cpu")
    maker = DocumentMaker(
        options.text, tokenizer, needles=options.needles, least=options.least, most=options.most
    )
    documents = [maker.document(options.seed, number) for number in range(options.sessions)]
    origin = origin_of(options.checkpoint, options.text, model, tokenizer)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = Comparison(model, tokenizer)
    for count in done.run(documents):
        write_json(options.out, {"origin": asdict(origin), "sessions": count, **done.to_dict()})
    print(done.to_text())
    print("\n".join(done.problems), file=sys.stderr)
    return 1 if done.problems else 0


if __name__ == "__main__":
    sys.exit(main())
