"""What `generate()` carries from token to token: a handle on the decoder's cache, memories included."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from transformers.cache_utils import Cache

from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """One call of the decoder, to do again up to an earlier token."""

    decoder: Decoder
    before: DecoderCache | None
    h: Float[Tensor, "B T D"]
    mask: Bool[Tensor, "B T"] | None

    @property
    def num_tokens(self) -> int:
        """Tokens of each stream, padding counted."""
        return self.h.shape[1]

    def shortened(self, num_tokens: int) -> "_Call":
        """Return the same call on its first tokens only."""
        mask = None if self.mask is None else self.mask[:, :num_tokens]
        return replace(self, h=self.h[:, :num_tokens], mask=mask)

    @torch.no_grad()
    def repeat(self) -> DecoderCache:
        """Do it again."""
        return self.decoder.read(self.h, self.before, self.mask, logits_to_keep=0).cache


class FwPKMCache(Cache):
    """What `generate()` calls `cache`: a handle on a `DecoderCache` that moves on with every call.

    The cache behind it is a value. `copy.copy(cache)` therefore costs nothing, and gives a continuation of its
    own, as many as you like, from the same memory.

    Args:
        state: What the streams have seen so far; None is nothing.
        seq_length: Tokens so far, padding counted; None is as many as the longest stream has seen.
    """

    def __init__(self, state: DecoderCache | None = None, seq_length: int | None = None) -> None:
        super().__init__(layers=[])
        self.state = state
        """All states of all layers; None before the first token."""
        seen = 0 if state is None else int(state.tokens_seen.max())
        self._seq_length = seen if seq_length is None else seq_length
        self._calls: list[_Call] | None = None

    def advance(
        self, decoder: Decoder, h: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None
    ) -> Float[Tensor, "B T D"]:
        """Let `decoder` read embedded tokens, go on to the state after them, and return hidden states.

        Raises:
            ValueError: If the state is not of so many streams.
        """
        if self.state is not None and self.state.num_streams != h.shape[0]:
            raise ValueError(
                f"FwPKMCache: the tokens must be of the same streams as the cache, got {h.shape[0]} and "
                f"{self.state.num_streams}; use batch_select_indices or batch_repeat_interleave"
            )
        output = decoder.read(h, self.state, mask, logits_to_keep=0)
        if self._calls is not None:
            self._calls.append(_Call(decoder=decoder, before=self.state, h=h.detach(), mask=mask))
        self.state = output.cache
        self._seq_length += h.shape[1]
        return output.hidden

    def crop(self, tokens_to_remove: int) -> None:
        """Go back by -tokens_to_remove tokens, at most to where recording began or `crop` was last called.

        Writes are undone by going back to the state before the last calls, and reading again what stays.

        Raises:
            ValueError: If `tokens_to_remove` is positive.
            RuntimeError: If the calls were not recorded.
        """
        number = -tokens_to_remove
        if number < 0:
            raise ValueError(f"FwPKMCache.crop: give tokens to remove as a negative number, got {-number}")
        calls = self._calls or []
        if number > sum(call.num_tokens for call in calls):
            raise RuntimeError(
                f"FwPKMCache.crop: cannot take back {number} tokens, as writes to a memory are not undone unless "
                "they are recorded; call activate_past_recording() before reading them, or keep a copy.copy(cache)"
            )
        self._seq_length -= number
        while number > 0:
            call = calls.pop()
            self.state, kept = call.before, call.num_tokens - number
            if kept > 0:
                self.state = call.shortened(kept).repeat()
            number = -kept
        calls.clear()

    def activate_past_recording(self) -> None:
        """Remember all calls from now on, so that `crop` can take them back."""
        self._calls = self._calls or []

    def reorder_cache(self, beam_idx: Int[Tensor, " b"]) -> None:
        """Let beams go on from the states of others, memories included."""
        self._select(beam_idx)

    def batch_select_indices(self, indices: Shaped[Tensor, " b"]) -> None:
        """Keep some streams: their numbers, or True for each to keep."""
        self._select(indices.nonzero().flatten() if indices.dtype == torch.bool else indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every stream, copies of one stream next to each other."""
        if self.state is not None:
            self._select(torch.arange(self.batch_size).repeat_interleave(repeats))

    def _select(self, streams: Tensor) -> None:
        if self.state is not None:
            self.state = self.state.select(streams.to(self.state.tokens_seen.device))
        if self._calls:
            self._calls.clear()  # they were calls of other streams

    def reset(self) -> None:
        """Forget everything."""
        self.state, self._seq_length = None, 0
        if self._calls:
            self._calls.clear()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the tokens so far, padding counted."""
        return self._seq_length

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return -1: there is no longest sequence."""
        return -1

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: the decoder goes on by `advance`."""
        raise NotImplementedError("FwPKMCache: only a FwPKM model can write to it, through advance()")

    @property
    def batch_size(self) -> int:
        """Streams; -1 before the first token."""
        return -1 if self.state is None else self.state.num_streams

    @property
    def is_croppable(self) -> bool:
        """Whether `crop` can take back what comes."""
        return self._calls is not None

    @property
    def is_initialized(self) -> bool:
        """Whether a token was seen."""
        return self.state is not None

    @property
    def is_compileable(self) -> bool:
        """Whether it has a fixed size: no."""
        return False

    @property
    def is_linear(self) -> list[bool]:
        """Whether layers cannot say how much was read: they can, so `generate()` reads only what is new."""
        return [False] * max(1, len(self))

    def __len__(self) -> int:
        """Layers that have a state."""
        return 0 if self.state is None else len(self.state.blocks)

    def __copy__(self) -> "FwPKMCache":
        other = FwPKMCache(self.state, self._seq_length)
        other._calls = None if self._calls is None else list(self._calls)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> "FwPKMCache":
        return copy.copy(self)  # what is shared is never edited

    def __repr__(self) -> str:
        return f"FwPKMCache(batch_size={self.batch_size}, seq_length={self._seq_length})"
