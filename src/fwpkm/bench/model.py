"""What a whole model takes in time and memory: a training step, reading a long stream in pieces, answering behind it.

Each measurement has a process of its own, whose resident memory is what is reported, code and weights included:
python -m fwpkm.bench.model train|checkpointed|prefill|decode|decode-compiled RECIPE TOKENS PIECE DEVICE [SETTING ...]
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from fwpkm.bench.measure import (
    Timing,
    peak_bytes,
    peak_device_bytes,
    peak_extra_bytes,
    resident_bytes,
    seconds_of,
)
from fwpkm.bench.model_parity import check_model, decode_compiled
from fwpkm.bench.parity import Check
from fwpkm.bench.rows import Row, seconds
from fwpkm.bench.systems import delta_rule_backends
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.nested import unknown_name
from fwpkm.recipe import Recipe, read_recipe
from fwpkm.train.config import OptimizerConfig
from fwpkm.train.optimizer import Optimizer

RECIPE = "paper/gdn_pkm_fwpkm"
"""The paper's model with both memories."""
DECODED = 512
"""Tokens that are decoded: a chunk of the paper's, so that what a memory writes is among them."""
_UNMEASURED = 64
"""Tokens that are decoded before."""
_CHECKS: dict[str, tuple[Check, ...]] = {
    "prefill": ("streaming",),
    "decode": ("streaming", "decode"),
    "decode-compiled": ("streaming", "decode"),
}


def bench_model(
    *,
    recipe: str,
    settings: Sequence[str],
    tokens: int,
    longest: int,
    piece: int,
    whats: Sequence[str],
    device: str = "cpu",
) -> Iterator[Row]:
    """Yield the parity check's row, and those of each measurement as it makes them.

    Args:
        recipe: Whose model is measured.
        settings: Changes to it.
        tokens: Length of the sequence that is trained on.
        longest: Tokens that are read in pieces, and behind which single ones are decoded.
        piece: Tokens of one piece.
        whats: Which of `MEASUREMENTS` to make.
        device: Where to measure.

    Raises:
        ValueError: If the recipe's model is not valid, or a length is below 1.
        ParityError: If a fast form differs from its definition; nothing is measured then.
        RuntimeError: If a measurement breaks off, for want of memory for example.
    """
    for name, length in (("tokens", tokens), ("longest", longest), ("piece", piece)):
        if length < 1:
            raise ValueError(f"bench model: {name} must be at least 1, got {name}={length}")
    checks = {check for what in whats for check in _CHECKS.get(what, ("training",))}
    model = read_recipe(recipe, settings).model
    worst = check_model(model, sorted(checks), device=torch.device(device))
    yield {"what": "parity", "relative_error": worst, "recipe": recipe}
    for what in whats:
        length = longest if what in _CHECKS else tokens
        yield from _in_new_process(what, recipe, length, piece, device, settings)


def _in_new_process(
    what: str, recipe: str, tokens: int, piece: int, device: str, settings: Sequence[str]
) -> Iterator[Row]:
    sizes = [str(tokens), str(piece), device]
    command = [sys.executable, "-m", "fwpkm.bench.model", what, recipe, *sizes, *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it was asked for"
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise RuntimeError(f"bench model: measuring {what!r} broke off with exit code {process.returncode}")


def measure_training_step(model: Decoder, tokens: int, *, checkpointing: bool, runs: int = 3) -> Row:
    """Take the same step on random tokens, batch 1: forward, backward, clipping, AdamW; the first one unmeasured."""
    model.train().gradient_checkpointing = checkpointing
    optimizer, device = Optimizer(model, OptimizerConfig()), _device(model)
    ids = torch.randint(model.config.vocab_size, (1, tokens), device=device)
    losses: list[float] = []

    def step() -> None:
        optimizer.zero_grad()
        loss, _ = model.loss(ids)
        loss.backward()
        optimizer.clip()
        optimizer.step()
        losses.append(loss.item())

    step()
    times = Timing.of([seconds_of(step, device) for _ in range(runs)])
    return {
        "what": "checkpointed training step" if checkpointing else "training step",
        "tokens": tokens,
        **seconds(times),
        "tokens_s": tokens / times.median,
        "losses": losses,
        "peak_bytes": _most_ever(device),
    }


@torch.no_grad()
def measure_prefill(model: Decoder, tokens: int, piece: int) -> Iterator[Row]:
    """Read random tokens piece by piece, and yield a row whenever their number has doubled.

    Times are of single pieces since the last row. `piece_bytes` is the most that any of them needed above what was
    resident before it: what it works with, and what it adds to the state. `peak_bytes` is the most that was resident
    since the first piece.
    """
    model.eval()
    device = _device(model)
    ids = torch.randint(model.config.vocab_size, (1, tokens), device=device)
    model(ids[:, :piece], logits_to_keep=1)  # loads and compiles code
    results: list[DecoderCache | None] = [None]
    mark, spent, extra = piece, list[float](), 0
    total = 0.0
    for start in range(0, tokens, piece):
        read = _reader(model, ids[:, start : start + piece], results)
        needed = _extra_bytes(partial(_timed, read, spent, device), device)
        extra, seen = max(extra, needed or 0), min(start + piece, tokens)
        if seen >= mark or seen == tokens:
            total += sum(spent)
            cache = results[0]
            assert cache is not None, "a piece was read"
            yield {
                "what": "prefill",
                "tokens": seen,
                "piece": piece,
                "seconds": total,
                "tokens_s": seen / total,
                **seconds(Timing.of(spent)),
                "state_bytes": cache.num_bytes,
                "resident_bytes": resident_bytes() if device.type == "cpu" else None,
                "piece_bytes": extra,
                "peak_bytes": _most_ever(device),
            }
            mark, extra, spent = 2 * mark, 0, []


@torch.no_grad()
def measure_decoding(model: Decoder, tokens: int, piece: int, *, compiled: bool = False) -> Row:
    """Read random tokens piece by piece, then decode `DECODED` more, one at a time, each waited for.

    With `compiled`, by what `torch.compile` makes of the model's blocks: their first token is held to the model's own.

    "mean_s" is the mean of all, those that complete a chunk and write among them; the median is of one that does not.
    """
    model.eval()
    device = _device(model)
    ids = torch.randint(model.config.vocab_size, (1, tokens + _UNMEASURED + DECODED), device=device)
    results: list[DecoderCache | None] = [None]
    for part in ids[:, :tokens].split(piece, dim=1):
        _reader(model, part, results)()
    if compiled:
        decode_compiled(model, ids[:, tokens : tokens + 1], results[0])
    steps = [_reader(model, one, results) for one in ids[:, tokens:].split(1, dim=1)]
    for step in steps[:_UNMEASURED]:
        step()
    spent = [seconds_of(step, device) for step in steps[_UNMEASURED:]]
    mean = sum(spent) / len(spent)
    return {
        "what": "decode",
        "compiled": compiled,
        "tokens": tokens,
        **seconds(Timing.of(spent)),
        "mean_s": mean,
        "tokens_s": 1 / mean,
    }


def _timed(fn: Callable[[], object], spent: list[float], device: torch.device) -> None:
    spent.append(seconds_of(fn, device))


def _device(model: Decoder) -> torch.device:
    return model.embed.weight.device


def _extra_bytes(fn: Callable[[], object], device: torch.device) -> int | None:
    return peak_extra_bytes(fn) if device.type == "cpu" else peak_device_bytes(fn, device)


def _most_ever(device: torch.device) -> int | None:
    return peak_bytes() if device.type == "cpu" else torch.cuda.max_memory_allocated(device)


def _reader(model: Decoder, ids: torch.Tensor, results: list[DecoderCache | None]) -> Callable[[], None]:
    def read() -> None:
        results[0] = model(ids, results[0], logits_to_keep=1).cache

    return read


def _measure(what: str, recipe: Recipe, tokens: int, piece: int, device: str) -> Iterator[Row]:
    if what not in MEASUREMENTS:
        raise ValueError(f"bench.model: {unknown_name('measurement', what, MEASUREMENTS)}")
    torch.manual_seed(0)
    model = Decoder(recipe.model).to(device)
    with delta_rule_backends() as used:
        if what == "prefill":
            rows = measure_prefill(model, tokens, piece)
        elif what in ("decode", "decode-compiled"):
            rows = iter([measure_decoding(model, tokens, piece, compiled=what == "decode-compiled")])
        else:
            rows = iter([measure_training_step(model, tokens, checkpointing=what == "checkpointed")])
        for row in rows:
            yield {**row, "gdn_backend": "+".join(sorted(used))}


MEASUREMENTS = ("train", "checkpointed", "prefill", "decode", "decode-compiled")
"""What `bench_model` can measure."""


def main(what: str, recipe: str, tokens: int, piece: int, device: str, *settings: str) -> None:
    """Print the rows of one measurement, each as a line of JSON."""
    for row in _measure(what, read_recipe(recipe, settings), tokens, piece, device):
        print(json.dumps({**row, "recipe": recipe}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
