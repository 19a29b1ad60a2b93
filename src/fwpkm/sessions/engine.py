"""Reading and answering with one model for several streams of different lengths."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder

Progress = Callable[[int, int], None]
"""Told how many tokens are done, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How answers are drawn."""

    max_tokens: int = 64
    """Tokens of an answer, at most."""
    temperature: float = 0.0
    """Divides the logits before a token is drawn; 0 takes the likeliest."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that have this probability together."""
    stop: tuple[str, ...] = ()
    """An answer ends before any of these."""
    seed: int = 0
    """Of what is drawn."""

    def __post_init__(self) -> None:
        problems = []
        if self.max_tokens < 1:
            problems.append(f"max_tokens must be at least 1, got max_tokens={self.max_tokens}")
        if not self.temperature >= 0:
            problems.append(f"temperature must be at least 0, got temperature={self.temperature}")
        if not 0 < self.top_p <= 1:
            problems.append(f"top_p must be above 0 and at most 1, got top_p={self.top_p}")
        if any(not text for text in self.stop):
            problems.append("stop must hold no empty text, which every answer contains")
        if problems:
            raise ValueError("Sampling: " + "; ".join(problems))


@torch.no_grad()
def fresh_cache(model: Decoder, num_streams: int = 1) -> DecoderCache:
    """Return what a model knows that has read nothing."""
    return model(torch.zeros(num_streams, 0, dtype=torch.int64, device=_device(model))).cache


@torch.no_grad()
def flushed(cache: DecoderCache) -> DecoderCache:
    """Write all tokens whose targets are known, without a graph."""
    return cache.flush()


@torch.no_grad()
def read_tokens(
    model: Decoder,
    cache: DecoderCache,
    ids: Sequence[Int[Tensor, " _"]],
    *,
    piece: int,
    progress: Progress | None = None,
) -> tuple[Float[Tensor, "B D"], DecoderCache]:
    """Let each stream read its own tokens, in pieces that bound the memory it takes.

    Returns:
        Each stream's last hidden state (zeros for a stream without a token), and the cache.
    """
    longest = max(len(own) for own in ids)
    padded = torch.zeros(len(ids), longest, dtype=torch.int64, device=_device(model))
    lengths = torch.tensor([len(own) for own in ids], device=padded.device)
    for b, own in enumerate(ids):
        padded[b, : len(own)] = own
    mask = torch.arange(longest, device=padded.device) < lengths[:, None]
    last = model.head_weight.new_zeros(len(ids), model.config.dim)
    for start in range(0, longest, piece):
        span = slice(start, start + piece)
        some = None if bool(mask[:, span].all()) else mask[:, span]
        output = model(padded[:, span], cache, some, logits_to_keep=0)
        cache, T = output.cache, output.hidden.shape[1]
        ends = ((lengths > start) & (lengths <= start + T)).nonzero().squeeze(1)
        last[ends] = output.hidden[ends, lengths[ends] - 1 - start].to(last.dtype)
        if progress is not None:
            progress(min(start + T, longest), longest)
    return last, cache


def generate(
    model: Decoder,
    cache: DecoderCache,
    hidden: Float[Tensor, "B D"],
    sampling: Sampling,
    going_on: Callable[[int, int], bool],
) -> Iterator[tuple[dict[int, int], DecoderCache]]:
    """Yield each stream's next token and the cache that has read all tokens before it, until none goes on.

    Args:
        model: The model.
        cache: Of streams that have read their prompts.
        hidden: The last hidden state of each.
        sampling: How tokens are drawn.
        going_on: Told a stream and its new token; says whether the stream wants another one.
    """
    draw = torch.Generator().manual_seed(sampling.seed)
    live = list(range(hidden.shape[0]))
    for _ in range(sampling.max_tokens):
        tokens = _choose(hidden @ model.head_weight.detach().T, sampling, draw)
        yield {b: int(tokens[b]) for b in live}, cache
        live = [b for b in live if going_on(b, int(tokens[b]))]
        if not live:
            return
        mask = torch.zeros(len(tokens), dtype=torch.bool, device=hidden.device)
        mask[live] = True
        hidden, cache = _read_one(model, cache, tokens, mask)


@torch.no_grad()
def _read_one(
    model: Decoder, cache: DecoderCache, tokens: Int[Tensor, " B"], mask: Bool[Tensor, " B"]
) -> tuple[Float[Tensor, "B D"], DecoderCache]:
    some = None if bool(mask.all()) else mask[:, None]
    output = model(tokens[:, None], cache, some, logits_to_keep=0)
    return output.hidden[:, -1], output.cache


def _choose(logits: Float[Tensor, "B V"], sampling: Sampling, draw: torch.Generator) -> Int[Tensor, " B"]:
    if sampling.temperature == 0:
        return logits.argmax(-1)
    p = (logits.float().cpu() / sampling.temperature).softmax(-1)
    ordered, order = p.sort(dim=-1, descending=True)
    # The likeliest token stays, however likely it is.
    ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0
    drawn = torch.multinomial(ordered, 1, generator=draw)
    return order.gather(-1, drawn).squeeze(-1).to(logits.device)


def _device(model: Decoder) -> torch.device:
    return model.head_weight.device
