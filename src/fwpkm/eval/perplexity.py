"""Perplexity of long documents read from end to end, by position in the document."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int

from fwpkm.data.documents import TokenDocuments
from fwpkm.data.tokenizer import Tokenizer
from fwpkm.eval.ablate import has_memory, shares_memory, silence
from fwpkm.eval.positions import bin_of, octaves
from fwpkm.eval.reader import padded
from fwpkm.eval.result import Origin
from fwpkm.layers.checks import below_one, refuse
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.models.loss import token_losses
from fwpkm.nested import unknown_name
from fwpkm.sessions.engine import fresh_cache

MemoryMode = Literal["normal", "memory_off", "frozen_memory"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexitySettings:
    """What is read, and with which memory."""

    length: int = 16384
    """Tokens of a run: documents are cut into runs, and every run begins with nothing read."""
    max_runs: int = 16
    """How many runs to read at most, spread evenly over all there are."""
    memory: MemoryMode = "normal"
    """The model as it is, with a memory that retrieves zeros, or with one that never learns."""
    batch_size: int = 8
    """Runs that are read side by side; changes no result."""
    piece: int = 1024
    """Tokens that are read at once; changes no result."""

    def __post_init__(self) -> None:
        problems = below_one(self, "max_runs", "batch_size", "piece")
        if self.length < 2:
            problems.append(f"length must be at least 2, got length={self.length}")
        if self.memory not in get_args(MemoryMode):
            problems.append(unknown_name("memory", self.memory, get_args(MemoryMode)))
        refuse("PerplexitySettings", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionBin:
    """Tokens with start <= position < stop in their runs."""

    start: int
    stop: int
    tokens: int
    nats: float
    """Mean of -log p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLoss:
    """One run: a document's beginning, or a later piece of it."""

    name: str
    tokens: int
    """Tokens that were predicted: all but the first."""
    num_bytes: int
    """Bytes of their text, to within a character that a run's border cuts."""
    nats: float
    """Mean of -log p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityResult:
    """Losses of one model, in nats per token."""

    origin: Origin
    settings: PerplexitySettings
    bins: tuple[PositionBin, ...]
    runs: tuple[RunLoss, ...]

    @property
    def nats(self) -> float:
        """Mean over all tokens."""
        return sum(run.nats * run.tokens for run in self.runs) / sum(run.tokens for run in self.runs)

    @property
    def bits_per_byte(self) -> float:
        """Bits of all tokens over bytes of their text."""
        bits = sum(run.nats * run.tokens for run in self.runs) / float(np.log(2))
        return bits / max(1, sum(run.num_bytes for run in self.runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Tokens that are read in one go."""

    name: str
    tokens: Int[np.ndarray, " T"]


def measure_perplexity(
    model: Decoder,
    tokenizer: Tokenizer,
    documents: TokenDocuments,
    settings: PerplexitySettings,
    progress: Progress | None = None,
) -> tuple[tuple[PositionBin, ...], tuple[RunLoss, ...]]:
    """Let a model read runs of text in a stream, and note what each token cost it before it was read.

    Raises:
        ValueError: If there is nothing to read, or the model has no memory that could be taken away.
    """
    if settings.memory != "normal" and not has_memory(model):
        raise ValueError(f"perplexity: the model has no memory of its own, got memory={settings.memory!r}")
    runs = cut_runs(documents, settings.length, settings.max_runs)
    size = 1 if shares_memory(model) else settings.batch_size
    losses: list[Float[np.ndarray, " _"]] = []
    for i in range(0, len(runs), size):
        losses += _read(model.eval(), [run.tokens for run in runs[i : i + size]], settings)
        if progress is not None:
            progress(min(i + size, len(runs)), len(runs))
    summed = [_run_loss(run, nats, tokenizer) for run, nats in zip(runs, losses, strict=True)]
    return bins_of(losses), tuple(summed)


def cut_runs(documents: TokenDocuments, length: int, most: int) -> list[Run]:
    """Cut documents, without their end tokens, into runs of `length`, and take at most so many, evenly spread.

    Raises:
        ValueError: If no document holds two tokens.
    """
    places = [
        (i, start) for i in range(len(documents)) for start in range(0, int(documents.lengths[i]) - 2, length)
    ]
    if not places:
        raise ValueError("perplexity: a document must hold at least two tokens, got none")
    chosen = np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int))
    runs = []
    for i, start in (places[j] for j in chosen):
        begin = int(documents.offsets[i])
        stop = min(begin + start + length, int(documents.offsets[i + 1]) - 1)
        name = documents.name(i) + (f" from {start}" if start else "")
        runs.append(Run(name=name, tokens=documents.slice(begin + start, stop)))
    return runs


def _read(
    model: Decoder, runs: Sequence[Int[np.ndarray, " _"]], settings: PerplexitySettings
) -> list[Float[np.ndarray, " _"]]:
    """Return -log p of all tokens but the first, run by run, from nothing read."""
    return read_losses(model, runs, _start(model, len(runs), settings.memory), settings.piece)[0]


@torch.no_grad()
def read_losses(
    model: Decoder, runs: Sequence[Int[np.ndarray, " _"]], cache: DecoderCache, piece: int
) -> tuple[list[Float[np.ndarray, " _"]], DecoderCache]:
    """Let each stream read on, and return -log p of all its tokens but the first, and what it knows then.

    A run's last token is predicted and not read.
    """
    ids, mask = padded(runs, model.head_weight.device)
    nats = []
    for start in range(0, ids.shape[1] - 1, piece):
        span = slice(start, min(start + piece, ids.shape[1] - 1))
        some = None if mask is None else mask[:, span]
        output = model(ids[:, span], cache, some, logits_to_keep=0)
        cache = output.cache
        following = ids[:, span.start + 1 : span.stop + 1]
        hidden, targets = output.hidden.flatten(0, 1), following.flatten()
        losses = token_losses(
            hidden, model.head_weight, targets, torch.ones_like(targets, dtype=torch.float32)
        )
        nats.append(losses.entropy.view(following.shape))
    together = torch.cat(nats, dim=1).cpu().numpy()
    return [own[: len(run) - 1] for own, run in zip(together, runs, strict=True)], cache


def _start(model: Decoder, num_streams: int, memory: MemoryMode) -> DecoderCache:
    cache = fresh_cache(model, num_streams)
    if memory == "memory_off":
        return silence(cache)
    return cache.freeze() if memory == "frozen_memory" else cache


def bins_of(losses: Sequence[Float[np.ndarray, " _"]]) -> tuple[PositionBin, ...]:
    """Average the costs of positions 1, 2, ... of several runs in octaves."""
    longest = max(len(nats) for nats in losses) + 1
    borders = octaves(longest)
    sums, counts = np.zeros(len(borders) - 1), np.zeros(len(borders) - 1, np.int64)
    for nats in losses:
        place = bin_of(np.arange(1, len(nats) + 1), borders)
        np.add.at(sums, place, nats.astype(np.float64))
        np.add.at(counts, place, 1)
    return tuple(
        PositionBin(start=int(borders[i]), stop=int(borders[i + 1]), tokens=int(n), nats=float(sums[i] / n))
        for i, n in enumerate(counts)
        if n
    )


def _run_loss(run: Run, nats: Float[np.ndarray, " _"], tokenizer: Tokenizer) -> RunLoss:
    text = tokenizer.decode(run.tokens[1:])
    size = len(text.encode("utf-8", "surrogatepass"))
    return RunLoss(
        name=run.name, tokens=len(nats), num_bytes=size, nats=float(nats.astype(np.float64).mean())
    )
