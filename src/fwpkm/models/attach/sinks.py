"""First tokens that stay in sight of a text longer than the base was trained for: they follow at a distance."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from fwpkm.models.attach.families import decoder_of

_ROTARY = ("llama", "mistral", "qwen2", "qwen3")
"""Families that turn the keys of all layers alike, by their position alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SinkTurner:
    """Moves the first tokens' keys to where they are as near as in training.

    A text is cut in spans. Tokens of the first one see the first tokens where these are, at 0; tokens of any later
    one see them just before the span's first window. So what a token sees follows from its position alone.
    """

    span: int
    """Tokens of a span: half of the positions that the base was trained for."""
    window: int
    rotary: Any
    """The base's own module that turns keys by their positions."""

    def span_of(self, position: int) -> int:
        """Number the span that a position is in."""
        return position // self.span

    def place(self, span: int) -> int:
        """Return where tokens of a span see the text's first token."""
        return max(0, span * self.span - self.window)

    def moved(
        self, keys: Float[Tensor, "B G S Dh"], old_span: int, new_span: int
    ) -> Float[Tensor, "B G S Dh"]:
        """Turn keys from where one span sees them to where another one does."""
        far = self.place(new_span) - self.place(old_span)
        cos, sin = self.rotary(keys.float(), position_ids=torch.full((1, 1), far, device=keys.device))
        first, second = keys.float().chunk(2, dim=-1)
        turned = torch.cat((-second, first), dim=-1)
        return (keys.float() * cos[:, None] + turned * sin[:, None]).to(keys.dtype)


def sink_turner(model: PreTrainedModel, window: int, sinks: int) -> SinkTurner | None:
    """Return what moves a model's first tokens; None where there are none, or they cannot be moved."""
    config, rotary = model.config, getattr(decoder_of(model), "rotary_emb", None)
    span = (getattr(config, "max_position_embeddings", None) or 0) // 2
    plain = getattr(rotary, "attention_scaling", None) == 1.0 and config.model_type in _ROTARY
    if not sinks or not plain or span <= window + sinks:
        return None
    return SinkTurner(span=span, window=window, rotary=rotary)
