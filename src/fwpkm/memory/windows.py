"""Addressing of a recurrence's windows, all at once where compiled loops run, or one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.memory.overlay import Overlay
from fwpkm.memory.places import listed
from fwpkm.memory.spans import take_spans
from fwpkm.memory.tokens import Tokens
from fwpkm.ops.addressing import address, address_windows, can_scan
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.schedule import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class FastWeights:
    """The part of a state that is learned while answering."""

    keys: Float[Tensor, "S 2 H n half"]
    table: Overlay
    streams: tuple[int, ...]
    """Which of the table's streams each of the B token streams belongs to; `keys` are theirs alone."""
    squares: Float[Tensor, "S 2 H n"] | None = None
    """|K|^2 of the keys (fwpkm.ops.addressing.key_squares), where they are known."""

    @property
    def first_cells(self) -> Int[Tensor, " B"]:
        """Number of slot 0 of each token stream, through all the table's streams."""
        return listed(self.streams, self.keys.device) * self.keys.shape[-2] ** 2


def address_all(
    x: Tokens, weights: FastWeights, windows: Sequence[Window], options: CoreOptions
) -> tuple[Tensor, Tensor, FastWeights]:
    """Return scores and cells [R, J], window after window, and the weights with the keys after the last one."""
    if can_scan(x.q, weights.keys):
        return address_at_once(x, weights, windows, options)
    scores, cells = [], []
    queries = take_spans(x.q, [(win.start, win.stop) for win in windows])
    for q, win in zip(queries, windows, strict=True):
        score, cell, weights = address_window(q, weights, win, options)
        scores.append(score)
        cells.append(cell)
    return torch.cat(scores), torch.cat(cells), weights


def address_at_once(
    x: Tokens, weights: FastWeights, windows: Sequence[Window], options: CoreOptions
) -> tuple[Tensor, Tensor, FastWeights]:
    """Do the same in one operation, where `can_scan` says that there is one."""
    first, last = windows[0].start, max(win.stop for win in windows)
    score, slot, keys, squares = address_windows(
        x.q if (first, last) == (0, x.num_tokens) else x.q[:, first:last],
        weights.keys,
        [(win.start - first, win.stop - first, win.num_written, win.num_key_tokens) for win in windows],
        topk=options.topk,
        score=options.score,
        step_size=options.key_lr * options.addressing_weight,
        squares=weights.squares,
    )
    new = replace(weights, keys=keys, squares=squares)
    if weights.streams == tuple(range(keys.shape[0])):
        return score, slot, new
    num_slots = keys.shape[-2] ** 2
    return score, weights.first_cells[slot // num_slots] + slot % num_slots, new


def address_window(
    q: Tensor, weights: FastWeights, win: Window, options: CoreOptions
) -> tuple[Tensor, Tensor, FastWeights]:
    """Return scores and cells [B*M, J] of a window's tokens, the written ones of all streams first, and the weights."""
    keys = weights.keys
    B, S, m = q.shape[0], keys.shape[0], win.num_written
    shared = S < B
    if shared:
        q = torch.cat((q[:, :m].flatten(0, 1), q[:, m:].flatten(0, 1)))[None]
    score, slot, keys = address(
        q,
        keys,
        topk=options.topk,
        score=options.score,
        step_tokens=win.num_key_tokens * (B if shared else 1),
        step_size=keys.new_full((S,), options.key_lr * options.addressing_weight),
    )
    score, slot, new = score.flatten(2), slot.flatten(2), replace(weights, keys=keys, squares=None)
    if shared:
        return score[0], slot[0] + weights.first_cells[0], new
    cells = slot + weights.first_cells[:, None, None]
    return _written_first(score, m), _written_first(cells, m), new


def _written_first(per_token: Tensor, num_written: int) -> Tensor:
    """Flatten [B, M, J] to [B*M, J] so that the written tokens of all streams come first."""
    if per_token.shape[0] == 1:
        return per_token[0]
    return torch.cat((per_token[:, :num_written].flatten(0, 1), per_token[:, num_written:].flatten(0, 1)))
