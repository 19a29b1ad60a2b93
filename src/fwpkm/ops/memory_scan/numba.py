"""The memory scan as compiled CPU loops, the tokens of each chunk shared out among the threads."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fwpkm.ops.memory_scan.chunks import scan_chunks, scan_chunks_back
from fwpkm.ops.pointers import LINE
from fwpkm.ops.threads import array_of, drive

_FEWEST_NUMBERS = 1 << 16
"""Numbers of the table that are worth a thread."""
_STREAMED_BYTES = 8 << 20
"""Bytes of a call's rows from which on they are written past the cache."""


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
    V, row = array_of(table), array_of(rows)
    to = np.arange(len(V)) if place is None else array_of(place)
    check_places("rows", rows, "R", len(to))
    source, of_row = (V, to[:0]) if base is None or ids is None else (array_of(base), array_of(ids))
    aim, counts = _aims(aims, target, sum(writes)), _counts(reads, writes)
    given = (V, to, base is not None, source, of_row, row, w, write_w, target, aim, *counts, places)
    streams = _streams(table, rows.numel())
    drive(scan_chunks, *given, v_hat, answer, streams, *_sharing(row.shape[1], V.shape[1]))
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
    aim = _aims(aims, target, sum(writes))
    no_aim = np.ones(d_target.shape[0], dtype=np.bool_)
    no_aim[aim] = False
    array_of(d_target)[no_aim] = 0
    given = (table, V, G, rows, w, write_w, target, aim, *_counts(reads, writes))
    how = (_places(answers, rows.shape[0]), v_hat, d_answer, has_gradient, wants_gradient)
    drive(scan_chunks_back, *given, *how, dw, d_write, d_target, *_sharing(rows.shape[1], table.shape[1]))
    return dw, d_write, d_target


def _counts(reads: Sequence[int], writes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(reads, dtype=np.int64), np.array(writes, dtype=np.int64)


def _streams(table: Tensor, num_pairs: int) -> bool:
    """Return whether rows are written past the cache: where they are whole lines, and too many to stay there."""
    row = table.shape[1] * table.element_size()
    return row % LINE == 0 and table.data_ptr() % LINE == 0 and num_pairs * row >= _STREAMED_BYTES


def _sharing(pairs: int, width: int) -> tuple[int, int]:
    """Return how many threads there are, and how many tokens are worth one."""
    return torch.get_num_threads(), max(1, _FEWEST_NUMBERS // max(1, pairs * width))


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
