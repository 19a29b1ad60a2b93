"""The FwPKM recurrence on states: one definition, carried out with a graph, in place, or literally.

All three take a rectangular block of tokens, the first of which begins a chunk, and give what the tokens
not yet `answered` retrieve, together with the fast weights after the last write.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from fwpkm.memory.overlay import OverlayEditor
from fwpkm.memory.places import answer_places, leading_places, written_places
from fwpkm.memory.tokens import Tokens
from fwpkm.memory.windows import FastWeights, address_all, address_at_once, address_window
from fwpkm.ops.addressing import can_scan
from fwpkm.ops.core.naive import core_naive
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.schedule import Window, plan_windows
from fwpkm.ops.core.weights import read_weights
from fwpkm.ops.memory_scan import memory_scan
from fwpkm.ops.slots import mark_rows, number_cells, read_counts, window_counts
from fwpkm.ops.weigh import can_weigh, weigh

_PAIRS_AT_ONCE = 1 << 14
"""Reads that are carried out together, so that what they need stays in the cache. Changes speed alone."""


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
    scores, cells, moved = address_all(x, weights, windows, options)
    B = x.q.shape[0]
    reads, writes = [B * win.num_tokens for win in windows], [B * win.num_written for win in windows]
    ids, rows = number_cells(cells, weights.table.store.num_cells)
    writing = leading_places(tuple(reads), tuple(writes), scores.device)
    w, step = _weigh(x, scores, rows, writing, windows, options, temperature, ids.shape[0])
    fresh = weights.table.untouched_base
    answer, table = memory_scan(
        weights.table.gather(ids) if fresh is None else fresh,
        rows,
        w,
        step,
        x.v.flatten(0, 1),
        reads,
        writes,
        None if fresh is None else ids % fresh.shape[0],
        aims=written_places(windows, B, x.num_tokens, options.lookahead, w.device),
        answers=answer_places(windows, B, w.device),
    )
    written = mark_rows(rows, writing, ids.shape[0])
    new = replace(moved, table=weights.table.put(ids, table, written))
    return answer.view(B, -1, answer.shape[1]), new


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
    at_once = weights.table.base_is_here and can_scan(x.q, weights.keys)
    form = _scan_group if at_once else _scan_window
    # A journal notes window by window; so does whatever is not done at once.
    tokens = _PAIRS_AT_ONCE // (B * J) if at_once and weights.table.journal is None else 1
    moved, out = weights, []
    with weights.table.editing(sum(B * win.num_written * J for win in windows)) as editor:
        for group in _groups(windows, tokens):
            part, moved = form(x, moved, group, options, temperature, editor)
            out.append(part)
    return torch.cat(out, dim=1), replace(moved, table=editor.result)


def _groups(windows: Sequence[Window], tokens: int) -> Iterator[tuple[Window, ...]]:
    """Take windows together up to so many tokens, but at least one."""
    group: list[Window] = []
    for win in windows:
        if group and sum(own.num_tokens for own in group) + win.num_tokens > tokens:
            yield tuple(group)
            group = []
        group.append(win)
    if group:
        yield tuple(group)


def _scan_window(
    x: Tokens,
    weights: FastWeights,
    windows: tuple[Window, ...],
    options: CoreOptions,
    temperature: Tensor | float,
    editor: OverlayEditor,
) -> tuple[Tensor, FastWeights]:
    """Read and write one window on the streams' own rows; return its answers, and weights with the keys after it."""
    (win,), B = windows, x.q.shape[0]
    score, cells, moved = address_window(x.q[:, win.start : win.stop], weights, win, options)
    w = read_weights(score, options.weights, temperature)
    m = B * win.num_written
    rest = editor.store.read(w[m:], cells[m:])
    if m:
        own, num_cells = w[:m], editor.store.num_cells
        ids, number = number_cells(cells[:m], num_cells)
        # What R counts are mostly the written tokens' reads; if not, all of the window's are numbered too.
        counts_others = options.border == "dropped" or options.write_rule == "release"
        seen, rows = number_cells(cells, num_cells) if counts_others else (ids, number)
        scale = _scale(x, rows, win, options, seen.shape[0], w.dtype)
        step = _write_weights(x, windows, options, own, scale)
        target = _of_written(x.v, windows, options.lookahead)
        rest = torch.cat((editor.write(own, ids, number, step, target), rest))
    return _first_answers(rest, win, B), moved


def _scan_group(
    x: Tokens,
    weights: FastWeights,
    windows: tuple[Window, ...],
    options: CoreOptions,
    temperature: Tensor | float,
    editor: OverlayEditor,
) -> tuple[Tensor, FastWeights]:
    """Do the same for several windows at once."""
    B, num_cells = x.q.shape[0], editor.store.num_cells
    scores, cells, moved = address_at_once(x, weights, windows, options)
    reads, writes = [B * win.num_tokens for win in windows], [B * win.num_written for win in windows]
    ids, rows = number_cells(cells, num_cells)
    writing = leading_places(tuple(reads), tuple(writes), scores.device)
    w, step = _weigh(x, scores, rows, writing, windows, options, temperature, ids.shape[0])
    written = mark_rows(rows, writing, ids.shape[0])
    if editor.result.journal is not None and writes[0]:
        target = _of_written(x.v, windows, options.lookahead)
        own = number_cells(cells[: writes[0]], num_cells)
        editor.note(w.index_select(0, writing), *own, step, target)
    answer = editor.write_chunks(
        w,
        ids,
        rows,
        step,
        x.v.flatten(0, 1),
        reads,
        writes,
        written,
        aims=written_places(windows, B, x.num_tokens, options.lookahead, w.device),
        answers=answer_places(windows, B, w.device),
    )
    return answer.view(B, -1, answer.shape[1]), moved


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
    new = replace(weights, keys=torch.stack([trace.keys for trace in traces]), squares=None, table=table)
    return torch.cat([trace.output for trace in traces]), new


def _first_answers(part: Tensor, win: Window, B: int) -> Tensor:
    """Put a window's [B*M, D] in the order of the tokens, [B, M, D], without those answered before."""
    m, width = win.num_written, part.shape[-1]
    own, rest = part[: B * m].view(B, m, width), part[B * m :].view(B, win.num_tokens - m, width)
    return torch.cat((own, rest), dim=1)[:, win.num_repeated :]


def _of_written(per_token: Tensor, windows: tuple[Window, ...], ahead: int) -> Tensor:
    """Return what lies `ahead` tokens behind the windows' written ones: [B, L, *] to [Tw, *]."""
    B, L = per_token.shape[:2]
    places = written_places(windows, B, L, ahead, per_token.device)
    return per_token.flatten(0, 1).index_select(0, places)


def _weigh(
    x: Tokens,
    scores: Tensor,
    rows: Tensor,
    writing: Tensor,
    windows: tuple[Window, ...],
    options: CoreOptions,
    temperature: Tensor | float,
    num_rows: int,
) -> tuple[Tensor, Tensor]:
    """Return the read weights of all windows' tokens, and the write weights of those that are written."""
    plain = options.weights == "softmax" and options.write_rule != "release"
    if not (plain and can_weigh(scores, x.gate, x.write_mask)):
        w = read_weights(scores, options.weights, temperature)
        scale = _scales(x, rows, windows, options, num_rows, w.dtype)
        return w, _write_weights(x, windows, options, w.index_select(0, writing), scale)
    return weigh(
        scores,
        temperature,
        writing,
        _counts(rows, windows, options, x.q.shape[0], num_rows),
        _factor(x),
        written_places(windows, x.q.shape[0], x.num_tokens, 0, scores.device),
        rate=options.value_lr,
        exact=options.write_rule == "exact",
    )


def _factor(x: Tokens) -> Float[Tensor, " BL"] | None:
    """Return gate times mask of all tokens."""
    factors = [factor.flatten() for factor in (x.gate, x.write_mask) if factor is not None]
    if len(factors) < 2:
        return factors[0] if factors else None
    return factors[0] * factors[1]


def _write_weights(
    x: Tokens, windows: tuple[Window, ...], options: CoreOptions, w: Tensor, scale: Tensor
) -> Tensor:
    """Return the write weights  a = eta g w / R  of the windows' written tokens."""
    step = w * scale
    if options.write_rule == "exact":
        step = step / w.square().sum(-1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
    for factor in (x.gate, x.write_mask):
        if factor is not None:
            step = step * _of_written(factor, windows, 0)[:, None]
    return step


def _scales(
    x: Tokens,
    rows: Tensor,
    windows: Sequence[Window],
    options: CoreOptions,
    num_rows: int,
    dtype: torch.dtype,
) -> Tensor:
    """Return the part of all windows' write weights that no gradient flows through: eta / R for each written pair."""
    B = x.q.shape[0]
    if options.write_rule == "release":
        parts = zip(rows.split([B * win.num_tokens for win in windows]), windows, strict=True)
        return torch.cat([_scale(x, part, win, options, num_rows, dtype) for part, win in parts])
    return options.value_lr / _counts(rows, windows, options, B, num_rows).to(dtype)


def _counts(rows: Tensor, windows: Sequence[Window], options: CoreOptions, B: int, num_rows: int) -> Tensor:
    """Return R of each written pair, unless the release's rule chooses what counts."""
    reads, writes = [B * win.num_tokens for win in windows], [B * win.num_written for win in windows]
    return window_counts(rows, reads, writes, reads if options.border == "dropped" else writes, num_rows)


def _scale(
    x: Tokens, rows: Tensor, win: Window, options: CoreOptions, num_rows: int, dtype: torch.dtype
) -> Tensor:
    """Return the part of the write weights that no gradient flows through: eta / R for each written pair."""
    B, m = x.q.shape[0], win.num_written
    counts = read_counts(rows[: B * m], _counted(rows, win, options, B), num_rows)
    eta = options.value_lr
    if options.write_rule == "release" and m:
        eta = eta * rows.shape[1] * _num_release_tokens(x, win) / (B * m)
    return eta / counts.to(dtype)


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
