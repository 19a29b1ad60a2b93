"""Who is examined: anything that reads documents and answers questions about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.data.needles import Question
from fwpkm.eval.ablate import carry_over, exchange, has_memory, shares_memory, silence
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.sessions.engine import flushed, fresh_cache, read_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What a reader says to one question, token by token, the right tokens before each one given.

    All tokens are right exactly if answering greedily, without any help, gives the answer: up to the first
    wrong token both are the same.
    """

    tokens: Int[np.ndarray, " A"]
    """The likeliest token at each place of the answer."""
    nats: Float[np.ndarray, " A"]
    """What each token of the answer cost: -log p."""


@runtime_checkable
class Reader(Protocol):
    """Reads documents, several streams at once, and answers; what it knows is a value that it hands out.

    Asking changes nothing, and streams know nothing of each other.
    """

    @property
    def has_memory(self) -> bool:
        """Whether there is a memory to silence, freeze, exchange or carry over."""

    @property
    def shares_memory(self) -> bool:
        """Whether streams of one batch write into one memory, so that each must be read alone."""

    def fresh(self, num_streams: int) -> Any:
        """Return what streams know that have read nothing."""

    def silence(self, known: Any) -> Any:
        """Let the memory retrieve nothing from now on."""

    def freeze(self, known: Any) -> Any:
        """Let the memory learn nothing from now on."""

    def exchange(self, known: Any) -> Any:
        """Swap the memories, and nothing else, of streams 0 and 1, 2 and 3, ..."""

    def carry_over(self, known: Any) -> Any:
        """Begin another document, with the memory and nothing else of what is known."""

    def close(self, known: Any) -> Any:
        """Let the memory take in what waits for its chunk to fill."""

    def read(self, known: Any, documents: Sequence[Int[np.ndarray, " _"]]) -> Any:
        """Read on: one run of tokens for each stream."""

    def ask(self, known: Any, questions: Sequence[Question]) -> list[Guess]:
        """Ask each stream its own question."""


class ModelReader:
    """A decoder as a reader.

    Args:
        model: The decoder, on its device.
        piece: Tokens that are read at once; decides speed and room, not results.
    """

    def __init__(self, model: Decoder, *, piece: int = 2048) -> None:
        self.model, self.piece = model.eval(), piece

    @property
    def has_memory(self) -> bool:
        """Whether some layer has a memory of its own."""
        return has_memory(self.model)

    @property
    def shares_memory(self) -> bool:
        """Whether the config gives a batch one memory."""
        return shares_memory(self.model)

    def fresh(self, num_streams: int) -> DecoderCache:
        """Return what streams know that have read nothing."""
        return fresh_cache(self.model, num_streams)

    def silence(self, known: DecoderCache) -> DecoderCache:
        """Let all memories retrieve zeros from now on."""
        return silence(known)

    def freeze(self, known: DecoderCache) -> DecoderCache:
        """Let no memory learn from now on."""
        return known.freeze()

    def exchange(self, known: DecoderCache) -> DecoderCache:
        """Swap the memories, and nothing else, of streams 0 and 1, 2 and 3, ..."""
        return exchange(known)

    def carry_over(self, known: DecoderCache) -> DecoderCache:
        """Begin another document, with the memories and nothing else of what is known."""
        return carry_over(known, self.fresh(known.num_streams))

    def close(self, known: DecoderCache) -> DecoderCache:
        """Write the tokens that wait for their chunk to fill and whose targets are known."""
        return flushed(known)

    def read(self, known: DecoderCache, documents: Sequence[Int[np.ndarray, " _"]]) -> DecoderCache:
        """Read on, in pieces."""
        ids = [torch.from_numpy(np.asarray(tokens)) for tokens in documents]
        return read_tokens(self.model, known, ids, piece=self.piece)[1]

    @torch.no_grad()
    def ask(self, known: DecoderCache, questions: Sequence[Question]) -> list[Guess]:
        """Read each question and all but the last token of its answer, and see what would have come next."""
        asked = [np.concatenate([q.prompt, q.answer[:-1]]) for q in questions]
        ids, mask = padded(asked, self.model.head_weight.device)
        hidden = self.model(ids, known, mask, logits_to_keep=0).hidden
        return [
            self._guess(own[len(q.prompt) - 1 : len(tokens)], q)
            for own, q, tokens in zip(hidden, questions, asked, strict=True)
        ]

    def _guess(self, hidden: Float[Tensor, "A D"], question: Question) -> Guess:
        logits = (hidden @ self.model.head_weight.T).double()
        target = torch.from_numpy(question.answer).to(logits.device)
        nats = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        return Guess(tokens=logits.argmax(-1).cpu().numpy(), nats=nats.cpu().numpy())


def padded(
    parts: Sequence[Int[np.ndarray, " _"]], device: torch.device | str
) -> tuple[Int[Tensor, "B T"], Tensor | None]:
    """Put runs of tokens side by side, zeros behind the shorter ones; the mask is None if none is shorter."""
    longest = max(len(part) for part in parts)
    ids = np.zeros((len(parts), longest), np.int64)
    lengths = np.array([len(part) for part in parts])
    for row, part in zip(ids, parts, strict=True):
        row[: len(part)] = part
    mask = None
    if (lengths < longest).any():
        mask = torch.from_numpy(np.arange(longest) < lengths[:, None]).to(device)
    return torch.from_numpy(ids).to(device), mask
