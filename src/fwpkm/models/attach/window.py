"""Let a base see only a window of its text and the first tokens of it, so that far recall is left to the memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fwpkm.models.attach.families import check_family
from fwpkm.models.attach.sinks import SinkTurner, sink_turner

_PREFIX = "fwpkm_window"
_PLAIN = "sdpa"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionWindow:
    """Which tokens a base's attention sees."""

    window: int
    """How far back, the token itself counted."""
    sinks: int = 1
    """How many of a text's first tokens stay visible. Trained models rest their attention on the first one, and
    without it are of little use (arXiv:2309.17453)."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least {low}, got {name}={value}"
            for name, low in (("window", 1), ("sinks", 0))
            if (value := getattr(self, name)) < low
        ]
        if problems:
            raise ValueError("AttentionWindow: " + "; ".join(problems))

    @property
    def name(self) -> str:
        """What transformers calls it among its kinds of attention."""
        return f"{_PREFIX}_{self.window}_{self.sinks}"


def limit_attention(model: PreTrainedModel, window: int, sinks: int = 1) -> None:
    """Let all layers of a model see the last `window` tokens and the first `sinks` ones, and no others.

    Weights stay as they are. Layers that slide by themselves keep their own window where it is shorter. The models'
    own caches go on to hold all tokens; `window_cache` holds those that can be seen.

    >>> limit_attention(model, window=128)

    Raises:
        TypeError: If it is no transformers model.
        ValueError: If the model is of another family or does not use PyTorch's attention, or the numbers make no
            sense.
    """
    base = check_family("limit_attention", model)
    wanted = AttentionWindow(window=window, sinks=sinks)
    free_attention(base)
    own = base.config._attn_implementation
    capped = getattr(base.config, "attn_logit_softcapping", None) is not None
    if own != _PLAIN or capped:
        got = "attn_logit_softcapping in its config" if capped else f"attn_implementation={own!r}"
        raise ValueError(
            f"limit_attention: the model must use PyTorch's attention, got {got}; load it with "
            f"attn_implementation={_PLAIN!r}, or set sliding_window in its config where it has one"
        )
    AttentionInterface.register(wanted.name, AttentionInterface()[_PLAIN])
    AttentionMaskInterface.register(wanted.name, partial(_window_mask, wanted))
    base.set_attn_implementation(wanted.name)


def free_attention(model: PreTrainedModel) -> None:
    """Let a model see all that it saw before `limit_attention`; one without a limit stays as it is."""
    if attention_window(model) is not None:
        model.set_attn_implementation(_PLAIN)


def attention_window(model: PreTrainedModel) -> AttentionWindow | None:
    """Return what `limit_attention` set, or None."""
    name = str(model.config._attn_implementation)
    if not name.startswith(f"{_PREFIX}_"):
        return None
    window, sinks = name.removeprefix(f"{_PREFIX}_").split("_")
    return AttentionWindow(window=int(window), sinks=int(sinks))


def window_cache(model: PreTrainedModel) -> DynamicCache:
    """Return a fresh cache that holds the keys and values that a limited model can still see, and no others.

    Prompts must not be padded on the left: the first tokens of all streams are kept, and must be text. In a text
    longer than half of what a Llama, Mistral or Qwen was trained for, the first tokens follow at a distance, since
    farther away they are of no use; calls that begin and end at multiples of that half give the same however else the
    text is cut.

    Raises:
        ValueError: If the model's attention has no limit.
    """
    limit = attention_window(model)
    if limit is None:
        raise ValueError(
            f"window_cache: the attention of the {type(model).__name__} has no limit; call limit_attention(model, ...)"
        )
    turner = sink_turner(model, limit.window, limit.sinks)
    cache = DynamicCache()
    cache.layers = [WindowLayer(limit, turner) for _ in range(model.config.num_hidden_layers)]
    cache.layer_class_to_replicate = None
    return cache


class WindowLayer(DynamicLayer):
    """Keys and values of the first tokens and of those within the window of the next one.

    Args:
        limit: Which tokens are seen.
        turner: Lets the first tokens follow in long texts; None leaves them where they are.
    """

    _layer_type = None
    is_croppable = False

    def __init__(self, limit: AttentionWindow, turner: SinkTurner | None = None) -> None:
        super().__init__()
        self.limit, self.turner = limit, turner
        self.cumulative_length = 0
        self.span = 0
        """Where the first tokens' keys are: before the first window of this span."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens, return all that they may see, and let go of what the next one will not."""
        self._follow()
        keys, values = super().update(key_states, value_states)
        self.cumulative_length += key_states.shape[-2]
        self.keys, self.values = self._kept(keys), self._kept(values)
        return keys, values

    def _follow(self) -> None:
        """Move the first tokens' keys to where the next token sees them."""
        if self.turner is None or self.span == (span := self.turner.span_of(self.cumulative_length)):
            return
        sinks = self.limit.sinks
        assert self.keys is not None, "tokens of an earlier span were read"
        moved = self.turner.moved(self.keys[..., :sinks, :], self.span, span)
        self.keys, self.span = torch.cat([moved, self.keys[..., sinks:, :]], dim=-2), span

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.span = 0

    def _kept(self, x: Tensor) -> Tensor:
        sinks, recent = self.limit.sinks, self.limit.window - 1
        if x.shape[-2] <= sinks + recent:
            return x
        return torch.cat([x[..., :sinks, :], x[..., x.shape[-2] - recent :, :]], dim=-2)

    def get_seq_length(self) -> int:
        """Return how many tokens were read."""
        return self.cumulative_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys the next tokens meet, and 0."""
        held = min(self.cumulative_length, self.limit.sinks + self.limit.window - 1)
        return held + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse to go back once tokens were let go."""
        if tokens_to_remove < 0 and self.cumulative_length > self.limit.sinks + self.limit.window - 1:
            raise RuntimeError(
                f"window_cache: cannot take back {-tokens_to_remove} tokens, as those before them were let go; use "
                "the model's own cache"
            )
        super().crop(tokens_to_remove)
        self.cumulative_length += tokens_to_remove


def _window_mask(
    limit: AttentionWindow,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Tensor] | None = None,
    attention_mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    **_: Any,
) -> Bool[Tensor, "B 1 Q K"]:
    """Say which keys each new token sees: what transformers asks of a kind of attention."""
    q = (torch.arange(q_length, device=device) + q_offset)[None, None, :, None]
    held = torch.arange(kv_length, device=device) + kv_offset
    let_go = q_offset + q_length - kv_length - kv_offset
    place = torch.where(held >= limit.sinks, held + let_go, held) if let_go > 0 and not kv_offset else held
    batch = torch.arange(batch_size, device=device)[:, None, None, None]
    kv = place[None, None, None, :]
    seen = (q - kv < limit.window) | (
        kv - _first(attention_mask, batch_size, let_go).to(device) < limit.sinks
    )
    if mask_function is not None:
        seen = seen & mask_function(batch, torch.zeros_like(batch), q, kv)
    if attention_mask is not None:
        padded = attention_mask.to(device=device, dtype=torch.bool)
        inside = place < padded.shape[1]
        seen = seen & (padded[:, place.clamp_max(padded.shape[1] - 1)] & inside)[:, None, None, :]
    # A token of padding sees itself: a softmax over nothing has no value.
    return (seen | (q == kv)).expand(batch_size, 1, q_length, kv_length)


def _first(attention_mask: Tensor | None, batch_size: int, let_go: int) -> Int[Tensor, "B 1 1 1"]:
    """Return where each stream's text begins."""
    if attention_mask is None:
        return torch.zeros(batch_size, 1, 1, 1, dtype=torch.int64)
    first = attention_mask.bool().int().argmax(-1)
    if let_go > 0 and bool(first.any()):
        raise ValueError(
            "window_cache: prompts must not be padded on the left, as the first tokens stay in the cache; pad on the "
            "right, or use the model's own cache"
        )
    return first[:, None, None, None]
