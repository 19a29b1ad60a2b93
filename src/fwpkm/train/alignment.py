"""An auxiliary loss on queries: where a text repeats itself, what was written must be asked for at the same address."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fwpkm.data.batches import IGNORED
from fwpkm.layers.frame import normalise
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.models.decoder import Decoder
from fwpkm.train.hooks import hooked

_BASE = 0x2545F4914F6CDD1D
"""Odd and large; the hash of a context is a polynomial in it, modulo 2^64."""


class Repeats(NamedTuple):
    """Which earlier tokens each token's query is compared with."""

    positive: Bool[Tensor, "B T T"]
    """[b, t, s]: the same tokens stand before s < t as before t, and the same one comes next; or t is before a token
    of an answer that s is before too."""
    candidate: Bool[Tensor, "B T T"]
    """[b, t, s]: positive, or the tokens before s are others. Where only the next one differs, nothing is asked."""

    context: Int[Tensor, "B T"]
    """Equal where the same tokens stand before and are `known`."""
    known: Bool[Tensor, "B T"]
    """Tokens with a whole context, whose next one counts."""
    counts: Bool[Tensor, "B T"]
    """Tokens whose next one counts."""

    @property
    def anchors(self) -> Bool[Tensor, "B T"]:
        """Tokens that repeat an earlier one."""
        return self.positive.any(-1)


def find_repeats(
    input_ids: Int[Tensor, "B T"],
    targets: Int[Tensor, "B T"],
    context: int,
    *,
    stressed: Bool[Tensor, "B T"] | None = None,
    run: int = 0,
) -> Repeats:
    """Find the tokens that stand after the same `context` tokens, themselves counted, and before the same next one.

    Args:
        input_ids: What was read.
        targets: What comes next.
        context: Tokens that must be the same.
        stressed: Targets that are answers. Those within `run` of them in a row that also stood further up repeat what
            stood there, whatever was before.
        run: Tokens; 0 asks for no such rows.
    """
    T = input_ids.shape[1]
    counts = targets != IGNORED
    known = counts.clone()
    known[:, : context - 1] = False
    code = torch.zeros_like(input_ids)
    for back in range(context):
        code = code * _BASE + input_ids.roll(back, 1) + 1
    earlier = torch.ones(T, T, dtype=torch.bool, device=input_ids.device).tril(-1)
    same = (code[:, :, None] == code[:, None, :]) & known[:, :, None] & known[:, None, :] & earlier
    agree = targets[:, :, None] == targets[:, None, :]
    positive = same & agree
    if run and stressed is not None:
        positive = positive | earlier & _in_runs(agree & (stressed & counts)[:, :, None], run)
    return Repeats(positive, earlier & counts[:, None, :] & ~(same & ~agree), code, known, counts)


def _in_runs(pairs: Bool[Tensor, "B T T"], run: int) -> Bool[Tensor, "B T T"]:
    """Keep the pairs that lie in `run` pairs in a row: (t, s), (t + 1, s + 1) and so on."""
    whole = pairs.clone()
    for ahead in range(1, run):
        whole[:, :-ahead, :-ahead] &= pairs[:, ahead:, ahead:]
        whole[:, -ahead:], whole[:, :, -ahead:] = False, False
    kept = whole.clone()
    for back in range(1, run):
        kept[:, back:, back:] |= whole[:, :-back, :-back]
    return kept


class Queries:
    """Collects the queries of a decoder's product-key memories, with the graph."""

    def __init__(self, num_layers: int) -> None:
        self.num_layers, self._units = num_layers, list[Tensor]()

    def note(self, half: int, module: nn.Module, inputs: object, queries: Float[Tensor, "B T Dq"]) -> None:
        """Take in what a query projection returned, in halves of a width; a forward hook."""
        halves = normalise(queries.float().unflatten(-1, (-1, half)), "zscore")
        self._units.append(nn.functional.normalize(halves.flatten(-2), dim=-1))

    def misses(self, repeats: Repeats, temperature: float, *, across: bool = False) -> Float[Tensor, ""]:
        """Return the sum over anchors of  log sum_candidates e^(s/tau) - log sum_positives e^(s/tau), layers averaged.

        s is the cosine of two tokens' queries, each half of each head z-scored first. With `across` the tokens of
        other sequences that stand after other tokens are candidates too.

        Raises:
            RuntimeError: If a memory was passed by, so that its queries are not known.
        """
        if len(self._units) != self.num_layers:
            raise RuntimeError(
                f"Queries: {self.num_layers} memories must have run once, got {len(self._units)}"
            )
        return torch.stack([_misses(unit, repeats, temperature, across) for unit in self._units]).mean()


def _misses(unit: Tensor, repeats: Repeats, temperature: float, across: bool) -> Tensor:
    total = unit.new_zeros(())
    for b, anchors in enumerate(repeats.anchors):
        scores = unit[b, anchors] @ unit[b].T / temperature
        found = scores.masked_fill(~repeats.positive[b, anchors], -torch.inf).logsumexp(-1)
        among = scores.masked_fill(~repeats.candidate[b, anchors], -torch.inf).logsumexp(-1)
        if across:
            others = unit[b, anchors] @ unit.flatten(0, 1).T / temperature
            hidden = others.masked_fill(~_elsewhere(repeats, b, anchors), -torch.inf).logsumexp(-1)
            among = torch.logaddexp(among, hidden)
        total = total + (among - found).sum()
    return total


def _elsewhere(repeats: Repeats, b: int, anchors: Bool[Tensor, " T"]) -> Bool[Tensor, "A others"]:
    """Say which tokens of other sequences an anchor of sequence b must be told from."""
    own = repeats.context[b, anchors]
    told = ~((own[:, None, None] == repeats.context) & repeats.known) & repeats.counts
    told[:, b] = False
    return told.flatten(1)


@contextmanager
def watch_queries(model: Decoder) -> Iterator[Queries]:
    """Watch the queries of a decoder's product-key memories.

    Raises:
        ValueError: If the decoder has none.
    """
    memories = [block.memory for block in model.blocks if isinstance(block.memory, FwPKM)]
    if not memories:
        raise ValueError("train: alignment.cost needs a FwPKM, got a model with none; unset it")
    watched = Queries(len(memories))
    with hooked((memory.q_proj, partial(watched.note, memory.config.key_dim // 2)) for memory in memories):
        yield watched
