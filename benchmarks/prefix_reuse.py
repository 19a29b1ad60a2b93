"""Time to the first token of an answer: a document read once and reused, against reading it again.

python benchmarks/prefix_reuse.py MODEL --tokens 4096 16384 65536 --out results/memory/prefix_reuse.json

Three ways to the same answer: the document is read again; the session that read it is still there; the session
is loaded from its memory file. Nothing is printed unless all three answer alike. On a machine that does other things
beside, OMP_NUM_THREADS=1 and --clock cpu measure what this process itself took.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fwpkm.bench.measure import Timing, timed
from fwpkm.files import write_json
from fwpkm.machine import describe_machine
from fwpkm.memory.fingerprint import Fingerprint
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import load_model
from fwpkm.models.shipped import checkpoint_names, find_checkpoint
from fwpkm.recipe import read_recipe
from fwpkm.sessions.engine import flushed, fresh_cache, read_tokens

Clock = Literal["wall", "cpu"]


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
    clock: Clock = "wall",
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
        clock: "wall", or "cpu": what this process took itself, on all its threads together.

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
            again=_measured(again, runs=runs_again, warmup=0, clock=clock),
            held=_measured(held, runs=runs, warmup=1, clock=clock),
            loaded=_measured(loaded, runs=runs, warmup=1, clock=clock),
            file_bytes=report.num_bytes,
        )


def _measured(fn: Callable[[], object], *, runs: int, warmup: int, clock: Clock) -> Timing:
    if clock == "wall":
        return timed(fn, runs=runs, warmup=warmup)
    for _ in range(warmup):
        fn()
    return Timing.of([_cpu_seconds(fn) for _ in range(runs)])


def _cpu_seconds(fn: Callable[[], object]) -> float:
    start = time.process_time()
    fn()
    return time.process_time() - start


def check_alike(scores: dict[str, Tensor]) -> None:
    """Raise RuntimeError unless all ways gave the same scores, bit by bit."""
    first, *rest = scores
    different = [name for name in rest if not torch.equal(scores[first], scores[name])]
    if different:
        raise RuntimeError(
            f"prefix_reuse: all ways must answer as {first!r} does, got others from {different}"
        )


def open_model(name: str, settings: Sequence[str]) -> Decoder:
    """Load a trained model, or make one of a recipe, untrained.

    Raises:
        ValueError: If settings are given for a trained model, or the recipe is wrong.
    """
    if name not in checkpoint_names() and not Path(name).is_dir():
        torch.manual_seed(0)
        return Decoder(read_recipe(name, settings).model).eval()
    if settings:
        raise ValueError(f"prefix_reuse: --set changes recipes, and {name} is a trained model")
    return load_model(find_checkpoint(name)).eval()


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="a trained model, a recipe's TOML file, or either's short name")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384], help="lengths of documents")
    parser.add_argument("--question-tokens", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="NAME=VALUE")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="what is measured")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--out", type=Path, help="also write all rows, with command and machine, to this file"
    )
    options = parser.parse_args(argv)
    model, rows = open_model(options.model, options.settings), list[dict[str, Any]]()
    for length in options.tokens:
        found = measure_reuse(
            model,
            document_tokens=length,
            question_tokens=options.question_tokens,
            runs=options.runs,
            clock=options.clock,
        )
        rows.append(found.to_dict())
        print(json.dumps(found.to_dict()) if options.json else _line(found), flush=True)
        if options.out is not None:
            write_json(options.out, {**_head(options), "rows": rows})
    return 0


def _head(options: argparse.Namespace) -> dict[str, Any]:
    """Say what was measured, and on what."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"command": command, "model": options.model, "clock": options.clock, "machine": describe_machine()}


def _line(found: Reuse) -> str:
    return (
        f"{found.document_tokens:,} tokens: read again {found.again.median:.3f} s, memory at hand "
        f"{found.held.median:.4f} s ({found.speedup:.0f}x sooner), from its file of "
        f"{found.file_bytes / 2**20:.1f} MiB {found.loaded.median:.4f} s ({found.speedup_loaded:.0f}x)"
    )


if __name__ == "__main__":
    sys.exit(main())
