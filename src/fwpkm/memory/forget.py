"""Take a document's writes out of a memory again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fwpkm.memory.journal import Write
from fwpkm.memory.overlay import Overlay, OverlayEditor
from fwpkm.memory.state import FwPKMState


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What became of a `forget`."""

    state: FwPKMState
    """The memory without these tokens."""
    tokens_removed: int
    """Tokens whose writes were taken out."""
    tokens_replayed: int
    """Later tokens whose writes were carried out anew on what was left."""


@torch.no_grad()
def forget(state: FwPKMState, start: int, stop: int) -> Forgotten:
    """Take the writes of tokens [start, stop) of a stream out again, and those that learned these tokens.

    All writes since `start` are undone, and then those of other tokens are carried out anew, on the slots and
    with the step sizes that they had. So slots that only these tokens wrote are, bit by bit, what they were
    before, and later writes are what they would have been on a table without these tokens.

    Limits. Sub-keys stay where these tokens moved them. In a deep model, later tokens' queries and values stay
    what they were, although they may owe something to having seen these. Where these tokens shared a chunk with
    others (the last `lookahead` tokens of a document do), the others keep their step sizes. Nothing of this
    matters if nothing was read since: but then the state from before the document is the exact answer.

    Raises:
        ValueError: If `state` keeps no journal, or tokens wait that a flush would write.
    """
    journal = state.table.journal
    problems = []
    if journal is None:
        problems.append("the memory keeps no journal; use state.with_journal() before the first token")
    if not 0 <= start <= stop:
        problems.append(f"start and stop must be 0 <= start <= stop, got start={start} and stop={stop}")
    if max(state.waiting.counts, default=0) > state.options.lookahead:
        problems.append("tokens wait to be written; use state.flush()")
    if problems or journal is None:
        raise ValueError("forget: " + "; ".join(problems))
    first = start - state.options.lookahead
    writes = list(journal)
    writes = writes[_first_affected(writes, first) :]
    keeps = [(write.tokens < first) | (write.tokens >= stop) for write in writes]
    table = _replayed(_undone(state.table, writes), writes, keeps)
    kept = sum(int(keep.sum()) for keep in keeps)
    new = _without_waiting(replace(state, table=table), first, stop)
    return Forgotten(state=new, tokens_removed=sum(len(keep) for keep in keeps) - kept, tokens_replayed=kept)


def _first_affected(writes: Sequence[Write], first: int) -> int:
    """Return the place of the first write that has a token from `first` on."""
    return next((i for i, write in enumerate(writes) if bool((write.tokens >= first).any())), len(writes))


def _undone(table: Overlay, writes: Sequence[Write]) -> Overlay:
    """Return the table before `writes`, which are its last ones."""
    assert table.journal is not None
    store = table.store.copy()
    for write in reversed(writes):
        store.rows[store.locate(write.cells)] = write.before.to(store.rows.dtype)
        store.index.view(-1)[write.cells[~write.was_written]] = -1
    return Overlay(store.compacted(), table.journal.before(len(writes)))


def _replayed(table: Overlay, writes: Sequence[Write], keeps: Sequence[Tensor]) -> Overlay:
    """Carry out what is to be kept of `writes`."""
    editor = OverlayEditor(table.store, table.journal)
    for write, keep in zip(writes, keeps, strict=True):
        if bool(keep.any()):
            used, number = write.number[keep].unique(return_inverse=True)
            editor.write(
                write.w[keep],
                write.cells[used],
                number,
                write.write_w[keep],
                write.target[keep],
                tokens=write.tokens[keep],
            )
    return editor.result


def _without_waiting(state: FwPKMState, first: int, stop: int) -> FwPKMState:
    """Let no token from [first, stop) be written later; the journal goes on with the next one that will be."""
    table, waiting = state.table, state.waiting
    assert table.journal is not None
    held, start = waiting.counts[0], state.tokens_seen[0] - waiting.counts[0]
    gone = min(held, max(0, stop - start)) if stop > start and first < start + held else 0
    journal = table.journal.skipped_to(start + gone)
    kept = waiting.tokens([0], held)[:, gone:].clone()
    return replace(state, waiting=waiting.replaced([0], kept), table=Overlay(table.store.copy(), journal))
