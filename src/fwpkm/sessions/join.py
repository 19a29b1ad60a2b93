"""The caches of several sessions as one batch."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from fwpkm.layers.kv import KVState
from fwpkm.memory.chunks import ChunkedState
from fwpkm.memory.join import join_states
from fwpkm.memory.state import FwPKMState
from fwpkm.memory.waiting import Waiting
from fwpkm.models.cache import DecoderCache


def join_caches(caches: Sequence[DecoderCache]) -> DecoderCache:
    """Return one cache whose streams are those of `caches`, one after the other; the inverse of `select`.

    Raises:
        ValueError: If they are not of one model, or only some are frozen.
    """
    if len({len(cache.blocks) for cache in caches}) != 1:
        raise ValueError(
            f"join_caches: all must be of one model, got {[len(cache.blocks) for cache in caches]} blocks"
        )
    return caches[0] if len(caches) == 1 else _join(caches)


def _join(parts: Sequence[Any]) -> Any:
    """Join whatever a cache is made of: streams are the first dimension of every tensor."""
    first = parts[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(parts))
    if isinstance(first, FwPKMState):
        return join_states(parts)
    if isinstance(first, ChunkedState):
        return _join_chunked(parts)
    if isinstance(first, KVState):
        return _join_kv(parts)
    if isinstance(first, tuple):
        return tuple(_join(items) for items in zip(*parts, strict=True))
    if is_dataclass(first) and not isinstance(first, type):
        return replace(
            first, **{f.name: _join([getattr(part, f.name) for part in parts]) for f in fields(first)}
        )
    if any(part != first for part in parts):
        raise ValueError(f"join_caches: all must be of one model, got {list(parts)}")
    return first


def _join_kv(parts: Sequence[KVState]) -> KVState:
    """Put zeros in front of the shorter ones, which stand for places without a token."""
    longest = max(part.keys.shape[1] for part in parts)
    keys, v = (
        torch.cat([F.pad(x, (0, 0, 0, 0, longest - x.shape[1], 0)) for x in tensors])
        for tensors in ([part.keys for part in parts], [part.v for part in parts])
    )
    return KVState(
        keys=keys,
        v=v,
        tokens_seen=torch.cat([part.tokens_seen for part in parts]),
        shortest=min(part.shortest for part in parts),
        longest=max(part.longest for part in parts),
    )


def _join_chunked(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if any(part.is_shared for part in parts) or any(part.frozen != first.frozen for part in parts):
        raise ValueError(
            f"join_caches: {type(first).__name__}s must be one per stream, and all or none of them frozen"
        )
    return replace(
        first,
        fast=_join([part.fast for part in parts]),
        waiting=Waiting.join([part.waiting for part in parts]),
        tokens_seen=tuple(seen for part in parts for seen in part.tokens_seen),
    )
