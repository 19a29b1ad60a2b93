"""The FwPKM recurrence on states: one definition, carried out with a graph, in place, or literally.

All three take a rectangular block of tokens, the first of which begins a chunk, and give what the tokens
not yet `answered` retrieve, together with the fast weights after the last write.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.memory.overlay import Overlay
from fwpkm.memory.spans import take_spans
from fwpkm.memory.tokens import Tokens
from fwpkm.ops.addressing import address
from fwpkm.ops.core.naive import core_naive
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.schedule import Window, plan_windows
from fwpkm.ops.core.weights import read_weights
from fwpkm.ops.memory_scan import memory_scan
from fwpkm.ops.slots import number_cells, read_counts


@dataclass(frozen=True, slots=True, kw_only=True)
class FastWeights:
    """The part of a state that is learned while answering."""

    keys: Float[Tensor, "S 2 H n half"]
    table: Overlay
    streams: tuple[int, ...]
    """Which of the table's streams each of the B token streams belongs to; `keys` are theirs alone."""

    @property
    def first_cells(self) -> Int[Tensor, " B"]:
        """Number of slot 0 of each token stream, through all the table's streams."""
        num_slots = self.keys.shape[-2] ** 2
        return torch.tensor(self.streams, dtype=torch.int64, device=self.keys.device) * num_slots


def scan_with_graph(
    x: Tokens,
    weights: FastWeights,
    options: CoreOptions,
    temperature: Tensor | float,
    *,
    answered: int = 0,
    flush: bool = False,
) -> tuple[Float[Tensor, "B t Dv"], FastWeights]:
    """Carry out the recurrence on a compact copy of the rows it touches, differentiable in everything."""
    windows = plan_windows(x.num_tokens, options, answered=answered, flush=flush)
    scores, cells, keys = _address_all(x, weights, windows, options)
    B = x.q.shape[0]
    reads, writes = [B * win.num_tokens for win in windows], [B * win.num_written for win in windows]
    w = read_weights(torch.cat(scores), options.weights, temperature)
    own = torch.cat(take_spans(w[None], _leading(reads, writes)), dim=1)[0]
    ids, rows = number_cells(torch.cat(cells), weights.table.store.index.numel())
    parts = zip(rows.split(reads), windows, strict=True)
    scale = torch.cat([_scale(x, part, win, options, ids.shape[0]) for part, win in parts])
    step = _write_weights(x, windows, options, own, scale)
    target = _of_written(x.v, windows, options.lookahead)
    fresh = weights.table.untouched_base
    if fresh is None:
        v_hat, table = memory_scan(weights.table.gather(ids), rows, w, step, target, reads, writes)
    else:
        base_rows = ids % fresh.shape[0]
        v_hat, table = memory_scan(fresh, rows, w, step, target, reads, writes, base_rows)
    written = _written_rows(rows, reads, writes, ids.shape[0])
    new = replace(weights, keys=keys, table=weights.table.put(ids, table, written))
    return _all_first_answers(v_hat, windows, B), new


def scan_in_place(
    x: Tokens,
    weights: FastWeights,
    options: CoreOptions,
    temperature: Tensor | float,
    *,
    answered: int = 0,
    flush: bool = False,
) -> tuple[Float[Tensor, "B t Dv"], FastWeights]:
    """Carry out the recurrence window by window on the streams' own rows, for inference."""
    windows = plan_windows(x.num_tokens, options, answered=answered, flush=flush)
    B, J = x.q.shape[0], x.q.shape[2] * options.topk
    keys, out = weights.keys, []
    with weights.table.editing(sum(B * win.num_written * J for win in windows)) as editor:
        for win in windows:
            q = x.q[:, win.start : win.stop]
            score, cells, keys = _address_window(q, replace(weights, keys=keys), win, options)
            w = read_weights(score, options.weights, temperature)
            m = B * win.num_written
            rest = editor.store.read(w[m:], cells[m:])
            if m:
                own = w[:m]
                seen, rows = number_cells(cells, editor.store.index.numel())
                step = _write_weights(x, (win,), options, own, _scale(x, rows, win, options, seen.shape[0]))
                written = number_cells(cells[:m], editor.store.index.numel())
                rest = torch.cat(
                    (editor.write(own, *written, step, _of_written(x.v, (win,), options.lookahead)), rest)
                )
            out.append(_first_answers(rest, win, B))
    return torch.cat(out, dim=1), replace(weights, keys=keys, table=editor.result)


def scan_by_definition(
    x: Tokens,
    weights: FastWeights,
    options: CoreOptions,
    temperature: Tensor | float,
    *,
    answered: int = 0,
    flush: bool = False,
) -> tuple[Float[Tensor, "B t Dv"], FastWeights]:
    """Carry out the recurrence on dense tables, every gradient by autograd: for tests and rare options."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():  # the inner gradients need autograd
            x, keys = x.map(Tensor.clone), weights.keys.clone()
            temperature = temperature.clone() if isinstance(temperature, Tensor) else temperature
            weights = replace(weights, keys=keys)
            return scan_by_definition(x, weights, options, temperature, answered=answered, flush=flush)
    S, N = weights.keys.shape[0], weights.keys.shape[-2] ** 2
    own = weights.first_cells if S > 1 else weights.first_cells[:1]
    cells = (own[:, None] + torch.arange(N, device=own.device)).flatten()
    tables = weights.table.gather(cells).view(S, N, -1)
    traces = []
    for s in range(S):
        b = slice(s, s + 1) if S > 1 else slice(None)
        traces.append(
            core_naive(
                x.q[b],
                x.v[b],
                None if x.gate is None else x.gate[b],
                weights.keys[s],
                tables[s],
                options,
                temperature=temperature,
                write_mask=None if x.write_mask is None else x.write_mask[b],
                answered=answered,
                flush=flush,
            )
        )
    rows = torch.cat([trace.values for trace in traces])
    table = weights.table.put(cells, rows, torch.ones_like(cells, dtype=torch.bool))
    new = replace(weights, keys=torch.stack([trace.keys for trace in traces]), table=table)
    return torch.cat([trace.output for trace in traces]), new


def _address_all(
    x: Tokens, weights: FastWeights, windows: Sequence[Window], options: CoreOptions
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    scores, cells = [], []
    queries = take_spans(x.q, [(win.start, win.stop) for win in windows])
    for q, win in zip(queries, windows, strict=True):
        score, cell, keys = _address_window(q, weights, win, options)
        weights = replace(weights, keys=keys)
        scores.append(score)
        cells.append(cell)
    return scores, cells, weights.keys


def _address_window(
    q: Tensor, weights: FastWeights, win: Window, options: CoreOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores and cells [B*M, J] of a window's tokens, the written ones of all streams first, and keys."""
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
    score, slot = score.flatten(2), slot.flatten(2)
    if shared:
        return score[0], slot[0] + weights.first_cells[0], keys
    cells = slot + weights.first_cells[:, None, None]
    return _written_first(score, m), _written_first(cells, m), keys


def _written_first(per_token: Tensor, num_written: int) -> Tensor:
    """Flatten [B, M, J] to [B*M, J] so that the written tokens of all streams come first."""
    if per_token.shape[0] == 1:
        return per_token[0]
    return torch.cat((per_token[:, :num_written].flatten(0, 1), per_token[:, num_written:].flatten(0, 1)))


def _first_answers(part: Tensor, win: Window, B: int) -> Tensor:
    """Put a window's [B*M, D] in the order of the tokens, [B, M, D], without those answered before."""
    m, width = win.num_written, part.shape[-1]
    own, rest = part[: B * m].view(B, m, width), part[B * m :].view(B, win.num_tokens - m, width)
    return torch.cat((own, rest), dim=1)[:, win.num_repeated :]


def _all_first_answers(v_hat: Tensor, windows: Sequence[Window], B: int) -> Tensor:
    """Do the same for all windows, one behind the other."""
    lengths = [B * win.num_tokens for win in windows]
    if B > 1:
        parts = zip(v_hat.split(lengths), windows, strict=True)
        return torch.cat([_first_answers(part, win, B) for part, win in parts], dim=1)
    ends = accumulate(lengths)
    spans = [(end - win.num_recent, end) for end, win in zip(ends, windows, strict=True)]
    return torch.cat(take_spans(v_hat[None], spans), dim=1)


def _of_written(per_token: Tensor, windows: Sequence[Window], ahead: int) -> Tensor:
    """Return what lies `ahead` tokens behind the windows' written ones: [B, L, *] to [Tw, *]."""
    spans = [(win.start + ahead, win.start + ahead + win.num_written) for win in windows]
    return torch.cat([part.flatten(0, 1) for part in take_spans(per_token, spans)])


def _leading(lengths: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int]]:
    """Return the spans of the first counts[c] of every lengths[c], which follow each other."""
    starts = accumulate(lengths, initial=0)
    return [(start, start + count) for start, count in zip(starts, counts, strict=False)]


def _write_weights(
    x: Tokens, windows: Sequence[Window], options: CoreOptions, w: Tensor, scale: Tensor
) -> Tensor:
    """Return the write weights  a = eta g w / R  of the windows' written tokens."""
    step = w * scale
    if options.write_rule == "exact":
        step = step / w.square().sum(-1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
    for factor in (x.gate, x.write_mask):
        if factor is not None:
            step = step * _of_written(factor, windows, 0)[:, None]
    return step


def _scale(x: Tokens, rows: Tensor, win: Window, options: CoreOptions, num_rows: int) -> Tensor:
    """Return the part of the write weights that no gradient flows through: eta / R for each written pair."""
    B, m = x.q.shape[0], win.num_written
    counts = read_counts(rows[: B * m], _counted(rows, win, options, B), num_rows)
    eta = options.value_lr
    if options.write_rule == "release" and m:
        eta = eta * rows.shape[1] * _num_release_tokens(x, win) / (B * m)
    return eta / counts.to(x.v.dtype)


def _num_release_tokens(x: Tokens, win: Window) -> int:
    if x.write_mask is None:
        return x.q.shape[0] * win.num_recent
    return int((x.write_mask[:, win.start : win.start + win.num_written] > 0).sum())


def _counted(rows: Tensor, win: Window, options: CoreOptions, B: int) -> Tensor:
    """Choose the reads that R counts: the chunk's, or, in the release, those since the last border (D1)."""
    if options.border == "dropped":
        return rows
    if options.write_rule == "release":
        return _first_answers(rows, win, B)
    return rows[: B * win.num_written]


def _written_rows(rows: Tensor, reads: Sequence[int], writes: Sequence[int], num_rows: int) -> Tensor:
    own = torch.cat([rows[first:last] for first, last in _leading(reads, writes)])
    return rows.new_zeros(num_rows, dtype=torch.bool).index_fill(0, own.flatten(), True)
