"""Two memories of whole models, or two memory files, as one."""

import os
from dataclasses import replace
from typing import Any

from fwpkm.memory.files import MemoryFile, read_file
from fwpkm.memory.fingerprint import Fingerprint
from fwpkm.memory.join import MergeRule, merge_states
from fwpkm.memory.pool import iter_memories
from fwpkm.memory.quantise import RowFormat
from fwpkm.memory.saving import SaveReport, decode_file, save_state
from fwpkm.memory.state import FwPKMState
from fwpkm.models.cache import CACHE_CLASSES, BlockState, DecoderCache


def merge_caches(a: DecoderCache, b: DecoderCache, rule: MergeRule = "mean") -> DecoderCache:
    """Merge the FwPKM memories of two caches of one model, layer by layer; see `fwpkm.memory.join.merge_states`.

    What token mixers, short convolutions and fast-weight networks carry cannot be merged and is that of `a`:
    the merged model has just read the first document, and knows both.

    Raises:
        ValueError: If the caches are not of one model or not of as many streams.
    """
    if len(a.blocks) != len(b.blocks):
        raise ValueError(
            f"merge_caches: both must be of one model, got {len(a.blocks)} and {len(b.blocks)} blocks"
        )
    return DecoderCache(
        blocks=tuple(_merge_blocks(x, y, rule) for x, y in zip(a.blocks, b.blocks, strict=True))
    )


def merge_files(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    rule: MergeRule = "mean",
    rows: RowFormat = "exact",
) -> SaveReport:
    """Merge two memory files of one model into a third, without the model.

    Raises:
        ValueError: If a file is damaged, if they are of different models, or where the base table of the model
            would be needed: for rule "sum", and for tokens that a flush would write.
    """
    if rule == "sum":
        raise ValueError(
            "merge_files: rule 'sum' needs the model's base table; load both and use merge_states"
        )
    files = [read_file(path) for path in (first, second)]
    prints = [Fingerprint.from_header(file.header["fingerprint"]) for file in files]
    if differences := prints[0].differences(prints[1], this="the first", that="the second"):
        raise ValueError(f"merge_files: both must be of one model; {'; '.join(differences)}")
    a, b = (decode_file(file, CACHE_CLASSES, bases={}) for file in files)
    if type(a) is not type(b):
        raise ValueError(f"merge_files: a {type(a).__name__} does not merge with a {type(b).__name__}")
    if any(_has_unwritten(memory) for state in (a, b) for memory in iter_memories(state)):
        raise ValueError(
            "merge_files: tokens wait to be written, which needs the model's base table; save after flush(), or "
            "load both and use merge_caches"
        )
    merged = merge_caches(a, b, rule) if isinstance(a, DecoderCache) else merge_states(a, b, rule)
    return save_state(out, merged, prints[0], rows=rows, extra=_both_extras(*files))


def _both_extras(a: MemoryFile, b: MemoryFile) -> dict[str, Any]:
    return {**a.header["extra"], "merged": [dict(file.header["extra"]) for file in (a, b)]}


def _has_unwritten(state: FwPKMState) -> bool:
    return state.flush() is not state


def _merge_blocks(a: BlockState, b: BlockState, rule: MergeRule) -> BlockState:
    if isinstance(a.memory, FwPKMState) and isinstance(b.memory, FwPKMState):
        return replace(a, memory=merge_states(a.memory, b.memory, rule))
    return a
