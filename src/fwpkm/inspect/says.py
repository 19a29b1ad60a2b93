"""What a slot says: the words that its row would speak for, alone, if the model had to answer with it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.models.decoder import Decoder

_ROWS_AT_ONCE = 512
"""Their scores over the vocabulary are in memory together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """The nearest words of the vocabulary for each of some rows, nearest first."""

    token: Int[Tensor, "R words"]
    chance: Float[Tensor, "R words"]
    """The softmax of their scores over the vocabulary."""


@torch.no_grad()
def nearest_words(
    model: Decoder, layer: int, rows: Float[Tensor, "R Dv"], *, words: int, vocab_size: int
) -> Says:
    r"""Project rows of a layer's table as if a gate of 1 had let them through, and score the vocabulary.

        y = W_o RMSNorm(V_i) ;   scores = W_head RMSNorm(y)

    The blocks above the memory are left out, so of a low layer this is what the row adds to the residual
    stream, not what the model would say in the end.

    Args:
        model: The model.
        layer: The block whose memory it is.
        rows: Rows of its table.
        words: How many words to name for each.
        vocab_size: Ids from here on stand for nothing, although the model may score them.
    """
    memory = model.get_submodule(f"blocks.{layer}.memory")
    assert isinstance(memory, FwPKM), "only these have slots"
    token, chance = [], []
    for part in rows.split(_ROWS_AT_ONCE):
        y = memory.out_proj(memory.out_norm(part.to(memory.out_proj.weight.dtype)))
        scores = (model.norm(y) @ model.head_weight.T)[:, :vocab_size].float()
        best = scores.softmax(-1).topk(min(words, scores.shape[1]))
        token.append(best.indices)
        chance.append(best.values)
    return Says(token=torch.cat(token), chance=torch.cat(chance))
