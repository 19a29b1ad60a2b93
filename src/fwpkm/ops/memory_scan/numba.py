"""The memory scan as compiled CPU loops, the tokens of each chunk shared out among the threads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fwpkm.ops.memory_scan import loops
from fwpkm.ops.threads import Span, array_of, run_spans, split_range

_FEWEST_NUMBERS = 1 << 16
"""Numbers of the table that are worth a thread."""


def scan_(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    reads: Sequence[int],
    writes: Sequence[int],
    base: Tensor | None = None,
    ids: Tensor | None = None,
    aims: Tensor | None = None,
    answers: Tensor | None = None,
    place: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Do what `memory_scan_` does, to a table that may have to be brought together first.

    Args:
        base: Where the table's rows come from, if they are not there yet.
        ids: Row r comes from base[ids[r]], or where that is negative from table[-1 - ids[r]].
        place: Row r is to be in table[place[r]] afterwards, and is there already if it comes from there; None: in
            table[r].

    Returns:
        What all tokens read, and what is asked for of it: the same tensor if all is.
    """
    v_hat = table.new_empty(rows.shape[0], table.shape[1])
    if answers is None:
        answer, places = v_hat, np.full(rows.shape[0], -1)  # nothing is to be put elsewhere
    else:
        answer = table.new_empty(answers.shape[0], table.shape[1])
        places = _places(answers, rows.shape[0])
    V, row, out, w_all, a_all, targets = (array_of(x) for x in (table, rows, v_hat, w, write_w, target))
    to = np.arange(len(V)) if place is None else array_of(place)
    check_places("rows", rows, "R", len(to))
    asked, aim = array_of(answer), _aims(aims, target, sum(writes))
    source, of_row = (V, to[:0]) if base is None or ids is None else (array_of(base), array_of(ids))
    seen = np.full(len(to), True) if base is None else of_row == -1 - to
    fresh = np.zeros((max(reads, default=0), row.shape[1]), dtype=np.bool_)
    for chunk in _chunks((len(to), V.shape[1]), row, reads, writes):
        r, t = chunk.read, chunk.written
        if base is not None:
            loops.fetch_shared(V, to, source, of_row, row[r], seen, *chunk.groups, chunk.num_shared)
            loops.note_seen(row[r], chunk.alone, seen, fresh)
        from_to = (V, to, source, of_row, row[r])
        args = (w_all[r], a_all[t], targets, aim[t], chunk.alone, fresh, out[r], places[r], asked)
        run_spans(loops.read_and_write, chunk.tokens, *from_to, *args)
        given = (V, to, row[r], V.dtype.type(1), a_all[t], out[r], targets, aim[t])
        run_spans(loops.write_shared, chunk.shared, *given, *chunk.groups)
    if base is not None:
        loops.fetch_rows(V, to, source, of_row, ~seen)
    return v_hat, answer


def scan_back(
    table: Tensor,
    V: Tensor,
    G: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    v_hat: Tensor,
    d_answer: Tensor,
    reads: Sequence[int],
    writes: Sequence[int],
    aims: Tensor | None,
    answers: Tensor | None,
    *,
    has_gradient: bool,
    wants_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk back from the final table.

    Args:
        table: The final table.
        V: Room for its rows on their way back.
        G: The gradient of the final table, or room for it; becomes that of the first one.
        rows: As in `memory_scan`, like the others.
        v_hat: What all tokens have read.
        d_answer: The gradient of what was asked for of it.
        has_gradient: Whether there is a gradient in G to begin with.
        wants_gradient: Whether G is looked at afterwards; it is all there only then, and only for rows
            that some token reads.

    Returns:
        Gradients of w, write_w and target.
    """
    dw, d_write = torch.zeros_like(w), torch.zeros_like(write_w)
    d_target = torch.empty_like(target)
    final, back, grad, row, w_all, a_all = (array_of(x) for x in (table, V, G, rows, w, write_w))
    got, d_got, d_w, d_a, d_aim = (array_of(x) for x in (v_hat, d_answer, dw, d_write, d_target))
    targets, places, aim = array_of(target), _places(answers, len(row)), _aims(aims, target, sum(writes))
    no_aim = np.ones(len(d_aim), dtype=np.bool_)
    no_aim[aim] = False
    d_aim[no_aim] = 0
    most, J = max(reads, default=0), row.shape[1]
    d_read = np.empty((most, final.shape[1]), dtype=final.dtype)
    later, earlier = (np.empty((most, J), dtype=np.bool_) for _ in range(2))
    first_chunk, last_chunk = np.full(len(final), len(reads)), np.full(len(final), -1)
    loops.note_chunks(row, np.array(reads, dtype=np.int64), first_chunk, last_chunk)
    to = np.arange(len(final))
    for chunk in _chunks(final.shape, row, reads, writes, backwards=True):
        r, t = chunk.read, chunk.written
        loops.look_around(row[r], chunk.number, first_chunk, last_chunk, later, earlier)
        loops.bring_shared(final, back, grad, row[r], later, has_gradient, *chunk.groups, chunk.num_shared)
        written = (a_all[t], got[r], targets, aim[t])
        minus = final.dtype.type(-1)
        run_spans(loops.write_shared, chunk.shared, back, to, row[r], minus, *written, *chunk.groups)
        given = (final, back, grad, row[r], w_all[r], *written, d_got, places[r], chunk.alone)
        flags = (later, earlier, has_gradient, wants_gradient)
        run_spans(loops.walk_back, chunk.tokens, *given, *flags, d_w[r], d_a[t], d_aim, d_read)
        run_spans(loops.add_shared, chunk.shared, grad, row[r], w_all[r], d_read, *chunk.groups)
    return dw, d_write, d_target


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """Where one chunk's tokens lie, and which of their pairs share a row."""

    number: int
    read: slice
    written: slice
    alone: np.ndarray
    groups: tuple[np.ndarray, np.ndarray]
    num_shared: int
    tokens: list[Span]
    shared: list[Span]


def _chunks(
    table_size: tuple[int, ...],
    rows: np.ndarray,
    reads: Sequence[int],
    writes: Sequence[int],
    *,
    backwards: bool = False,
) -> Iterator[_Chunk]:
    """Go through the chunks that have tokens. What is yielded is valid until the next one."""
    (num_rows, width), most, J = table_size, max(reads, default=0), rows.shape[1]
    count, alone = np.zeros(num_rows, dtype=np.int64), np.empty((most, J), dtype=np.bool_)
    order, start = np.empty(most * J, dtype=np.int64), np.empty(most * J + 1, dtype=np.int64)
    ends = zip(np.cumsum(reads).tolist(), np.cumsum(writes).tolist(), reads, writes, strict=True)
    fewest = max(1, _FEWEST_NUMBERS // max(1, J * width))
    for number, (r, t, num_reads, num_writes) in sorted(enumerate(ends), reverse=backwards):
        if not num_reads:
            continue
        read = slice(r - num_reads, r)
        num_shared = loops.find_shared(rows[read], count, alone, order, start)
        # A shared row has two pairs or more, a hot one as many as there are tokens.
        a_thread = -(-fewest * J * num_shared // max(1, int(start[num_shared])))
        shared = split_range(num_shared, smallest=a_thread) if num_shared else []
        yield _Chunk(
            number=number,
            read=read,
            written=slice(t - num_writes, t),
            alone=alone,
            groups=(order, start),
            num_shared=num_shared,
            tokens=split_range(num_reads, smallest=fewest),
            shared=shared,
        )


def _places(answers: Tensor | None, num_tokens: int) -> np.ndarray:
    """Return where among the answers each token's lies, -1 where it was not asked for."""
    if answers is None:
        return np.arange(num_tokens)
    check_places("answers", answers, "Tr", num_tokens)
    places = np.full(num_tokens, -1)
    places[array_of(answers)] = np.arange(answers.shape[0])
    return places


def _aims(aims: Tensor | None, target: Tensor, num_written: int) -> np.ndarray:
    """Return which row of `target` each written token aims at."""
    if aims is None:
        return np.arange(num_written)
    check_places("aims", aims, "Tt", target.shape[0])
    return array_of(aims)


def check_places(name: str, places: Tensor, stop: str, size: int, *, least: int = 0) -> None:
    """Raise IndexError if a place is not there: compiled loops look up what they are told to."""
    if not places.numel():
        return
    first, last = (int(x) for x in places.aminmax())
    if first < least or last >= size:
        raise IndexError(
            f"memory_scan: {name} must be in [{least}, {stop}), got {first} to {last} with {stop}={size}"
        )
