"""Time to the first token of an answer: a document read once and reused, against reading it again.

python benchmarks/prefix_reuse.py RECIPE --tokens 4096 16384 65536 --json

Three ways to the same answer: the document is read again; the session that read it is still there; the session
is loaded from its memory file. Nothing is printed unless all three answer alike.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fwpkm.bench.measure import Timing, timed
from fwpkm.memory.fingerprint import Fingerprint
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.recipe import read_recipe
from fwpkm.sessions.engine import flushed, fresh_cache, read_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """What it takes to answer one question about one document."""

    document_tokens: int
    question_tokens: int
    again: Timing
    """Read the document, then the question."""
    held: Timing
    """Read the question: the memory is at hand."""
    loaded: Timing
    """Load the memory file, then read the question; the model's fingerprint is known."""
    file_bytes: int

    @property
    def speedup(self) -> float:
        """How much sooner the first token comes with the memory at hand."""
        return self.again.median / self.held.median

    @property
    def speedup_loaded(self) -> float:
        """How much sooner it comes from the file."""
        return self.again.median / self.loaded.median

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers."""
        return {**asdict(self), "speedup": self.speedup, "speedup_loaded": self.speedup_loaded}


def read_document(model: Decoder, document: Tensor, *, piece: int) -> DecoderCache:
    """Read a document as a session does."""
    return flushed(read_tokens(model, fresh_cache(model), [document], piece=piece)[1])


def first_scores(model: Decoder, cache: DecoderCache, question: Tensor, *, piece: int) -> Tensor:
    """Return the scores of an answer's first token."""
    hidden, _ = read_tokens(model, cache, [question], piece=piece)
    return hidden @ model.head_weight.detach().T


def measure_reuse(
    model: Decoder,
    *,
    document_tokens: int,
    question_tokens: int = 32,
    piece: int = 2048,
    runs: int = 5,
    runs_again: int = 2,
    seed: int = 0,
) -> Reuse:
    """Measure all three ways on a random document and question.

    Args:
        model: The model.
        document_tokens: Length of the document.
        question_tokens: Length of the question.
        piece: Tokens that are read at once.
        runs: Measured runs of the two short ways.
        runs_again: Measured runs of reading again.
        seed: Of the tokens.

    Raises:
        RuntimeError: If the three do not answer alike.
    """
    draw = torch.Generator().manual_seed(seed)
    document, question = (
        torch.randint(model.config.vocab_size, (length,), generator=draw)
        for length in (document_tokens, question_tokens)
    )
    cache = read_document(model, document, piece=piece)
    fingerprint = Fingerprint.of(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "document.fwpkm"
        report = cache.save(path, fingerprint)

        def again() -> Tensor:
            return first_scores(model, read_document(model, document, piece=piece), question, piece=piece)

        def held() -> Tensor:
            return first_scores(model, cache, question, piece=piece)

        def loaded() -> Tensor:
            own = DecoderCache.load(path, model, fingerprint=fingerprint)
            return first_scores(model, own, question, piece=piece)

        check_alike({"again": again(), "held": held(), "loaded": loaded()})
        return Reuse(
            document_tokens=document_tokens,
            question_tokens=question_tokens,
            again=timed(again, runs=runs_again, warmup=0),
            held=timed(held, runs=runs),
            loaded=timed(loaded, runs=runs),
            file_bytes=report.num_bytes,
        )


def check_alike(scores: dict[str, Tensor]) -> None:
    """Raise RuntimeError unless all ways gave the same scores, bit by bit."""
    first, *rest = scores
    different = [name for name in rest if not torch.equal(scores[first], scores[name])]
    if different:
        raise RuntimeError(
            f"prefix_reuse: all ways must answer as {first!r} does, got others from {different}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", help="a TOML file, or a short name such as paper/gdn_fwpkm")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384], help="lengths of documents")
    parser.add_argument("--question-tokens", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="NAME=VALUE")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    model = Decoder(read_recipe(options.recipe, options.settings).model).eval()
    for length in options.tokens:
        found = measure_reuse(
            model, document_tokens=length, question_tokens=options.question_tokens, runs=options.runs
        )
        print(json.dumps(found.to_dict()) if options.json else _line(found), flush=True)
    return 0


def _line(found: Reuse) -> str:
    return (
        f"{found.document_tokens:,} tokens: read again {found.again.median:.3f} s, memory at hand "
        f"{found.held.median:.4f} s ({found.speedup:.0f}x sooner), from its file of "
        f"{found.file_bytes / 2**20:.1f} MiB {found.loaded.median:.4f} s ({found.speedup_loaded:.0f}x)"
    )


if __name__ == "__main__":
    sys.exit(main())
