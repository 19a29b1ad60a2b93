"""The core as the definition says it: dense tables, every gradient by autograd, any float dtype.

One table serves all streams of the call; tables per stream are one call per stream. This is the oracle that
the fast forms are tested against, and the only form of the rarer options (CoreOptions.needs_definition).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fwpkm.ops.addressing.naive import addressing_loss_naive, product_key_topk_naive, product_key_topk_plain
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.schedule import count_written
from fwpkm.ops.core.weights import read_weights

_MOST_EXHAUSTIVE = 64
"""Sub-keys per half up to which the definition scores all N slots of every token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreTrace:
    """What a sequence read, and the fast weights after it."""

    output: Float[Tensor, "B t Dv"]
    """v^, the retrieved values of the tokens not answered before; so for slots and weights."""
    keys: Float[Tensor, "2 H n half"]
    values: Float[Tensor, "N Dv"]
    slots: Int[Tensor, "B t H k"]
    weights: Float[Tensor, "B t H k"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequence:
    """The inputs of one call, sliced by time."""

    q: Tensor
    v: Tensor
    gate: Tensor
    write_mask: Tensor
    masked: bool

    def __getitem__(self, span: slice) -> "_Sequence":
        return _Sequence(
            q=self.q[:, span],
            v=self.v[:, span],
            gate=self.gate[:, span],
            write_mask=self.write_mask[:, span],
            masked=self.masked,
        )


def core_naive(
    q: Float[Tensor, "B T H Dk"],
    v: Float[Tensor, "B T Dv"],
    gate: Float[Tensor, "B T"] | None,
    keys: Float[Tensor, "2 H n half"],
    values: Float[Tensor, "N Dv"],
    options: CoreOptions,
    *,
    temperature: Float[Tensor, ""] | float = 1.0,
    write_mask: Bool[Tensor, "B T"] | Float[Tensor, "B T"] | None = None,
    answered: int = 0,
    flush: bool = False,
) -> CoreTrace:
    """Read and write one shared memory over a sequence, literally as DESIGN's section 1 defines it.

    Args:
        q: Queries.
        v: Values before lookahead.
        gate: Weight of each token's memory loss; None weighs all tokens alike.
        keys: Sub-keys before the first token.
        values: Table before the first token.
        options: The arithmetic.
        temperature: Divides the kept slot scores before they become weights.
        write_mask: Tokens whose pair has zero loss are False (or 0).
        answered: Leading tokens that were answered before the last border, and are only to be written now.
        flush: Write the last, incomplete chunk too, for the tokens whose target is known. "dropped"
            borders always do.
    """
    T = q.shape[1]
    x = _Sequence(
        q=q,
        v=v,
        gate=v.new_ones(v.shape[:2]) if gate is None else gate,
        write_mask=v.new_ones(v.shape[:2]) if write_mask is None else write_mask.to(v.dtype),
        masked=write_mask is not None,
    )
    reads: list[tuple[Tensor, Tensor, Tensor]] = []
    C, ahead = options.chunk_size, options.lookahead
    seen, start = answered, 0
    while seen < T:
        end = start + C + (ahead if options.border == "moved" else 0)
        reads.append(_read(x.q[:, seen : min(end, T)], keys, values, options, temperature))
        if end <= T or options.border == "dropped":
            known = min(end, T) - ahead
            keys, values = _write(
                x, slice(start, known), slice(seen, min(end, T)), keys, values, options, temperature
            )
        seen, start = min(end, T), start + C
    start = count_written(T, options)
    if flush and options.border == "moved" and T - ahead > start:
        recent = slice(start + ahead if start else answered, T)
        keys, values = _write(x, slice(start, T - ahead), recent, keys, values, options, temperature)
    if not reads:
        reads.append(_read(x.q[:, seen:], keys, values, options, temperature))
    v_hat, slots, weights = (torch.cat(parts, dim=1) for parts in zip(*reads, strict=True))
    return CoreTrace(output=v_hat, keys=keys, values=values, slots=slots, weights=weights)


def _search(q: Tensor, keys: Tensor, options: CoreOptions) -> tuple[Tensor, Tensor]:
    """Find the best slots, scoring each of them as long as there are few."""
    search = product_key_topk_naive if keys.shape[2] <= _MOST_EXHAUSTIVE else product_key_topk_plain
    return search(q.flatten(0, 1), keys, options.topk, options.score)


def _read(
    q: Tensor, keys: Tensor, values: Tensor, options: CoreOptions, temperature: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return v^ [B, t, Dv], slots and weights [B, t, H, k]."""
    B, t, H, _ = q.shape
    score, slot = _search(q, keys, options)
    w = read_weights(score.flatten(1), options.weights, temperature)
    v_hat = torch.einsum("mj,mjd->md", w, values[slot.flatten(1)])
    return v_hat.view(B, t, -1), slot.view(B, t, H, -1), w.view(B, t, H, -1)


def _write(
    x: _Sequence,
    pairs: slice,
    recent: slice,
    keys: Tensor,
    values: Tensor,
    options: CoreOptions,
    temperature: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """Take the chunk's one step on keys and table. `recent` are the tokens read since the last border."""
    if pairs.stop <= pairs.start:
        return keys, values
    wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        keys, values = (p if p.requires_grad else p.detach().requires_grad_() for p in (keys, values))
        own = x[pairs]
        aim = x.v[:, pairs.start + options.lookahead : pairs.stop + options.lookahead]
        v_hat, _, w = _read(own.q, keys, values, options, temperature)
        error = (v_hat - aim).square().sum(-1)
        eta = _eta(w, recent, x, pairs, options)
        loss = 0.5 * (eta * own.gate * own.write_mask * error).sum()
        (grad,) = torch.autograd.grad(loss, values, create_graph=True)
        counted = x.q[:, _counted(pairs, recent, options)]
        grad = grad / _read_counts(counted, keys, options, values)[:, None]
        key_grad = _key_gradient(x, pairs, recent, own, error, keys, options)
        values = _descend(values, grad, options.value_lr, options)
        keys = _descend(keys, key_grad, options.key_lr, options)
    return (keys, values) if wanted else (keys.detach(), values.detach())


def _eta(w: Tensor, recent: slice, x: _Sequence, pairs: slice, options: CoreOptions) -> Tensor | float:
    if options.write_rule == "exact":
        return 1 / w.square().sum((-1, -2)).clamp_min(torch.finfo(w.dtype).tiny)
    if options.write_rule == "paper":
        return 1.0
    B = x.q.shape[0]
    num_pairs = B * (pairs.stop - pairs.start)
    num_tokens = int((x[pairs].write_mask > 0).sum()) if x.masked else B * (recent.stop - recent.start)
    return w.shape[-1] * w.shape[-2] * num_tokens / num_pairs


def _counted(pairs: slice, recent: slice, options: CoreOptions) -> slice:
    """Choose the reads that R counts: the chunk's, or, in the release, those since the last border (D1)."""
    return recent if options.border == "dropped" or options.write_rule == "release" else pairs


def _read_counts(q: Tensor, keys: Tensor, options: CoreOptions, values: Tensor) -> Tensor:
    _, slot = _search(q, keys, options)
    return torch.bincount(slot.flatten(), minlength=values.shape[0]).clamp_min(1).to(values.dtype)


def _key_gradient(
    x: _Sequence,
    pairs: slice,
    recent: slice,
    own: _Sequence,
    error: Tensor,
    keys: Tensor,
    options: CoreOptions,
) -> Tensor:
    loss = error.new_zeros(())
    if options.key_loss in ("memory", "both"):
        loss = loss + 0.5 * (own.gate * own.write_mask * error).mean() / x.v.shape[-1]
    if options.key_loss in ("entropy", "both"):
        used = x.q[:, recent if options.border == "dropped" else pairs].flatten(0, 1)
        spread = addressing_loss_naive(used, keys, options.topk, options.score)
        loss = loss + options.addressing_weight * spread
    if options.key_loss == "none":
        return torch.zeros_like(keys)
    return torch.autograd.grad(loss, keys, create_graph=True)[0]


def _descend(p: Tensor, grad: Tensor, lr: float, options: CoreOptions) -> Tensor:
    if options.clip_gradients:
        grad = grad.clamp(-1.0, 1.0)
    return p - lr * (grad + options.weight_decay * p)
