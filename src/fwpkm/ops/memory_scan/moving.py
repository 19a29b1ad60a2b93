"""The scan on rows of a storage that others look at too: what it writes goes to places of its own."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.backend import runs_compiled
from fwpkm.ops.memory_scan.operation import check_scan


def can_move(storage: Float[Tensor, "P Dv"], base: Float[Tensor, "N Dv"] | None) -> bool:
    """Return whether `memory_scan_moving_` is there for these tensors."""
    alike = base is None or (base.dtype == storage.dtype and base.is_contiguous())
    if torch.compiler.is_compiling() or not alike or storage.dtype == torch.bfloat16:
        return False
    return storage.is_contiguous() and runs_compiled(storage)


def memory_scan_moving_(
    storage: Float[Tensor, "P Dv"],
    place: Int[Tensor, " R"],
    source: Int[Tensor, " R"],
    base: Float[Tensor, "N Dv"] | None,
    rows: Int[Tensor, "Tr J"],
    w: Float[Tensor, "Tr J"],
    write_w: Float[Tensor, "Tw J"],
    target: Float[Tensor, "Tt Dv"],
    reads: Sequence[int],
    writes: Sequence[int],
    aims: Int[Tensor, " Tw"] | None = None,
    answers: Int[Tensor, " Ta"] | None = None,
) -> Float[Tensor, "Ta Dv"]:
    """Do what `memory_scan_` does to a table of R rows that come from two places and go to a third.

    Not differentiable, for inference; only where `can_move` says so.

    Args:
        storage: Holds some of the rows, and all of them afterwards; edited at `place` alone.
        place: Where each row is to be in `storage`, no two alike.
        source: Row r comes from base[source[r]], or where that is negative from storage[-1 - source[r]]: a place of
            its own, which it stays in, or one that no row goes to.
        base: Holds the other rows; None stands for zeros.
        rows: As in `memory_scan`, like the others: they number the R rows.

    Raises:
        ValueError: If the counts do not fit the tensors.
        IndexError: If a row is not where it is said to be.
    """
    from fwpkm.ops.memory_scan.numba import check_places, scan_

    check_scan(storage, rows, w, write_w, target, reads, writes, aims)
    if base is None:
        base, source = storage.new_zeros(1, storage.shape[1]), source.clamp_max(0)
    check_places("place", place, "P", storage.shape[0])
    check_places("source", source, "N", base.shape[0], least=-storage.shape[0])
    given = (rows, w, write_w, target.to(storage.dtype), reads, writes)
    return scan_(storage, *given, base, source, aims, answers, place)[1]
