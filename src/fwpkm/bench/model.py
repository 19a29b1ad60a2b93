"""What a whole model takes in time and memory: one training step, and reading a long stream in pieces.

Each measurement has a process of its own, whose resident memory is what is reported, code and weights included:
python -m fwpkm.bench.model train|checkpointed|prefill RECIPE TOKENS PIECE [SETTING ...]
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from fwpkm.bench.measure import peak_bytes, peak_extra_bytes, resident_bytes, seconds_of
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.nested import unknown_name
from fwpkm.recipe import Recipe, read_recipe
from fwpkm.train.config import OptimizerConfig
from fwpkm.train.optimizer import Optimizer

Row = dict[str, Any]

RECIPE = "paper/gdn_pkm_fwpkm"
"""The paper's model with both memories."""


def bench_model(
    *, recipe: str, settings: Sequence[str], tokens: int, longest: int, piece: int, whats: Sequence[str]
) -> Iterator[Row]:
    """Yield the rows of each measurement as it makes them.

    Args:
        recipe: Whose model is measured.
        settings: Changes to it.
        tokens: Length of the sequence that is trained on.
        longest: Tokens that are read in pieces.
        piece: Tokens of one piece.
        whats: Which of `MEASUREMENTS` to make.

    Raises:
        ValueError: If the recipe's model is not valid, or a length is below 1.
        RuntimeError: If a measurement breaks off, for want of memory for example.
    """
    for name, length in (("tokens", tokens), ("longest", longest), ("piece", piece)):
        if length < 1:
            raise ValueError(f"bench model: {name} must be at least 1, got {name}={length}")
    _ = read_recipe(recipe, settings).model
    for what in whats:
        yield from _in_new_process(what, recipe, longest if what == "prefill" else tokens, piece, settings)


def _in_new_process(
    what: str, recipe: str, tokens: int, piece: int, settings: Sequence[str]
) -> Iterator[Row]:
    command = [sys.executable, "-m", "fwpkm.bench.model", what, recipe, str(tokens), str(piece), *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it was asked for"
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise RuntimeError(f"bench model: measuring {what!r} broke off with exit code {process.returncode}")


def measure_training_step(model: Decoder, tokens: int, *, checkpointing: bool) -> Row:
    """Take the same step twice on random tokens, batch 1: forward, backward, clipping, AdamW; time the second."""
    model.train().gradient_checkpointing = checkpointing
    optimizer = Optimizer(model, OptimizerConfig())
    ids = torch.randint(model.config.vocab_size, (1, tokens))
    losses: list[float] = []

    def step() -> None:
        optimizer.zero_grad()
        loss, _ = model.loss(ids)
        loss.backward()
        optimizer.clip()
        optimizer.step()
        losses.append(loss.item())

    step()
    seconds = seconds_of(step)
    return {
        "what": "checkpointed training step" if checkpointing else "training step",
        "tokens": tokens,
        "seconds": seconds,
        "tokens_s": tokens / seconds,
        "losses": losses,
        "peak_bytes": peak_bytes(),
    }


@torch.no_grad()
def measure_prefill(model: Decoder, tokens: int, piece: int) -> Iterator[Row]:
    """Read random tokens piece by piece, and yield a row whenever their number has doubled.

    `piece_bytes` is the most that any piece since the last row needed above what was resident before it: what
    it works with, and what it adds to the state. `peak_bytes` is the most that was resident since the first piece.
    """
    model.eval()
    ids = torch.randint(model.config.vocab_size, (1, tokens))
    model(ids[:, :piece], logits_to_keep=1)  # loads and compiles code
    cache, mark, began = None, piece, time.perf_counter()
    extra = peak = 0
    for start in range(0, tokens, piece):
        part = ids[:, start : start + piece]
        results: list[DecoderCache] = []
        needed = peak_extra_bytes(_reader(model, part, cache, results))
        cache, seen = results[0], start + part.shape[1]
        extra, peak = max(extra, needed or 0), max(peak, peak_bytes() or 0)
        if seen >= mark or seen == tokens:
            row = _prefill_row(cache, seen, piece, time.perf_counter() - began)
            yield {**row, "piece_bytes": extra, "peak_bytes": peak}
            mark, extra = 2 * mark, 0


def _reader(
    model: Decoder, ids: torch.Tensor, cache: DecoderCache | None, results: list[DecoderCache]
) -> Callable[[], None]:
    return lambda: results.append(model(ids, cache, logits_to_keep=1).cache)


def _prefill_row(cache: DecoderCache, seen: int, piece: int, seconds: float) -> Row:
    return {
        "what": "prefill",
        "tokens": seen,
        "piece": piece,
        "seconds": seconds,
        "tokens_s": seen / seconds,
        "state_bytes": cache.num_bytes,
        "resident_bytes": resident_bytes(),
    }


def _measure(what: str, recipe: Recipe, tokens: int, piece: int) -> Iterator[Row]:
    if what not in MEASUREMENTS:
        raise ValueError(f"bench.model: {unknown_name('measurement', what, MEASUREMENTS)}")
    torch.manual_seed(0)
    model = Decoder(recipe.model)
    if what == "prefill":
        yield from measure_prefill(model, tokens, piece)
    else:
        yield measure_training_step(model, tokens, checkpointing=what == "checkpointed")


MEASUREMENTS = ("train", "checkpointed", "prefill")
"""What `bench_model` can measure."""


def main(what: str, recipe: str, tokens: int, piece: int, *settings: str) -> None:
    """Print the rows of one measurement, each as a line of JSON."""
    for row in _measure(what, read_recipe(recipe, settings), tokens, piece):
        print(json.dumps({**row, "recipe": recipe}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
