"""The gated delta rule in plain PyTorch: chunks of tokens at a time, matrix products only."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fwpkm.ops.compiling import uncompiled

MAX_CHUNK = 64
"""Most tokens that are worked on at once. Changes speed and rounding, never the result."""


def gated_delta_rule_torch(
    q: Float[Tensor, "B T H Dk"],
    keys: Float[Tensor, "B T H Dk"],
    v: Float[Tensor, "B T H Dv"],
    g: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    state: Float[Tensor, "B H Dk Dv"],
) -> tuple[Float[Tensor, "B T H Dv"], Float[Tensor, "B H Dk Dv"]]:
    """Run `gated_delta_rule_naive` in chunks (arXiv:2412.06464v3, Sec. 3.3).

    Args:
        q: Queries.
        keys: Where to write.
        v: What to write there.
        g: Log decay, at most 0; 0 for padding.
        beta: Share of the old content that is replaced, 0 to 1; 0 for padding.
        state: S before the first token.

    Returns:
        Outputs and S after the last token, both new tensors (S itself if there are no tokens).
    """
    q, keys = l2_normalize(q) * q.shape[-1] ** -0.5, l2_normalize(keys)
    T = q.shape[1]
    if T == 0:
        return torch.zeros_like(v), state
    if T == 1:
        out, state = _one_token(q[:, 0], keys[:, 0], v[:, 0], g[:, 0], beta[:, 0], state)
        return out[:, None], state
    return _in_chunks(q, keys, v, g, beta, state)


@uncompiled  # a graph would hold every chunk one by one, and be made anew for every number of them
def _in_chunks(
    q: Float[Tensor, "B T H Dk"],
    keys: Float[Tensor, "B T H Dk"],
    v: Float[Tensor, "B T H Dv"],
    g: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    state: Float[Tensor, "B H Dk Dv"],
) -> tuple[Float[Tensor, "B T H Dv"], Float[Tensor, "B H Dk Dv"]]:
    T = q.shape[1]
    size = _chunk_size(T, q.shape[-1], q.device.type)
    q, keys, v, g, beta = (_cut(x, size) for x in (q, keys, v, g, beta))
    out, state = _all_chunks(q, keys, v, _decays(g), beta, state)
    return out.flatten(2, 3)[:, :, :T].transpose(1, 2), state


def _chunk_size(T: int, Dk: int, device_type: str) -> int:
    """Cut evenly, and finer for narrow heads on the CPU, where work within chunks outweighs carrying."""
    limit = MAX_CHUNK // 2 if device_type == "cpu" and Dk <= 64 else MAX_CHUNK
    return -(-T // -(-T // limit))


def l2_normalize(x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
    """Divide by sqrt(|x|^2 + 1e-6) over the last dimension."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def _one_token(
    q: Float[Tensor, "B H Dk"],
    keys: Float[Tensor, "B H Dk"],
    v: Float[Tensor, "B H Dv"],
    g: Float[Tensor, "B H"],
    beta: Float[Tensor, "B H"],
    state: Float[Tensor, "B H Dk Dv"],
) -> tuple[Float[Tensor, "B H Dv"], Float[Tensor, "B H Dk Dv"]]:
    state = state * g.exp()[..., None, None]
    error = beta[..., None] * (v - (keys[..., None, :] @ state).squeeze(-2))
    state = state + keys[..., :, None] * error[..., None, :]
    return (q[..., None, :] @ state).squeeze(-2), state


def _cut(x: Float[Tensor, "B T H *D"], size: int) -> Float[Tensor, "B H N {size} *D"]:
    """Cut time into chunks; the last is filled up with tokens of zeros, which write nothing."""
    if missing := -x.shape[1] % size:
        x = torch.cat((x, x.new_zeros(x.shape[0], missing, *x.shape[2:])), dim=1)
    return x.transpose(1, 2).unflatten(2, (-1, size))


class Decays(NamedTuple):
    """What a chunk's tokens leave of older things; no number is above 1."""

    since_start: Float[Tensor, "B H N C"]
    """exp(b_t): what is left of the chunk's first S at token t."""
    between: Float[Tensor, "B H N C C"]
    """exp(b_t - b_s): what is left at t of what s wrote; 0 for s > t."""
    to_end: Float[Tensor, "B H N C"]
    """exp(b_end - b_s): what is left at the chunk's end of what s wrote."""


def _all_chunks(
    q: Float[Tensor, "B H N C Dk"],
    keys: Float[Tensor, "B H N C Dk"],
    v: Float[Tensor, "B H N C Dv"],
    decays: Decays,
    beta: Float[Tensor, "B H N C"],
    state: Float[Tensor, "B H Dk Dv"],
) -> tuple[Float[Tensor, "B H N C Dv"], Float[Tensor, "B H Dk Dv"]]:
    r"""Solve each chunk for what its tokens write, then carry S from chunk to chunk.

    With b_t the log decay since the chunk began, S_t = exp(b_t) S_0 + sum_{s<=t} exp(b_t - b_s) k_s u_s^T
    and the writes u solve  (I + A) u = beta v - beta exp(b) k^T S_0,
    A_ts = beta_t exp(b_t - b_s) k_t . k_s  for s < t.  Both right sides are solved before S_0 is known.
    """
    since_start, between, to_end = decays
    lower = (keys @ keys.mT) * between * beta[..., None]
    right = torch.cat((beta[..., None] * v, (beta * since_start)[..., None] * keys), dim=-1)
    solved = torch.linalg.solve_triangular(lower, right, upper=False, unitriangular=True)
    fresh, reads = solved.split((v.shape[-1], keys.shape[-1]), dim=-1)
    u, starts, state = _carry(fresh, reads, to_end[..., None] * keys, since_start[..., -1], state)
    inside = ((q @ keys.mT) * between) @ u
    return inside + (since_start[..., None] * q) @ starts, state


def _decays(g: Float[Tensor, "B H N C"]) -> Decays:
    # A difference of two long float32 sums would lose what a weak decay after strong ones still knows; MPS
    # has nothing wider.
    b = _running_sum(g if g.device.type == "mps" else g.double(), in_order=_refuses_cumsum(g))
    future = torch.ones(g.shape[-1], g.shape[-1], dtype=torch.bool, device=g.device).triu(1)
    gap = (b[..., :, None] - b[..., None, :]).to(g.dtype)
    between = gap.masked_fill(future, float("-inf")).exp()
    return Decays(b.to(g.dtype).exp(), between, between[..., -1, :])


def _running_sum(x: Float[Tensor, "*B C"], *, in_order: bool) -> Float[Tensor, "*B C"]:
    """Return  sum_{s<=t} x_s ; with `in_order` by a matrix product, which repeats bit for bit on any device."""
    return x @ x.new_ones(x.shape[-1], x.shape[-1]).triu() if in_order else x.cumsum(-1)


def _refuses_cumsum(x: Tensor) -> bool:
    """Return whether torch has no `cumsum` for `x`: CUDA's never repeats bit for bit (torch 2.11)."""
    return x.is_cuda and torch.are_deterministic_algorithms_enabled()


def _carry(
    fresh: Float[Tensor, "B H N C Dv"],
    reads: Float[Tensor, "B H N C Dk"],
    keys: Float[Tensor, "B H N C Dk"],
    decay: Float[Tensor, "B H N"],
    state: Float[Tensor, "B H Dk Dv"],
) -> tuple[Float[Tensor, "B H N C Dv"], Float[Tensor, "B H N Dk Dv"], Float[Tensor, "B H Dk Dv"]]:
    """Finish the writes u = fresh - reads S_0 chunk by chunk; also return S at every chunk's start."""
    B, H = state.shape[:2]
    S = state.flatten(0, 1)
    writes, starts = [], []
    for n in range(fresh.shape[2]):
        starts.append(S)
        u = torch.baddbmm(fresh[:, :, n].flatten(0, 1), reads[:, :, n].flatten(0, 1), S, alpha=-1)
        S = torch.baddbmm(decay[:, :, n].flatten()[:, None, None] * S, keys[:, :, n].flatten(0, 1).mT, u)
        writes.append(u)
    stack = (torch.stack(part, dim=1).unflatten(0, (B, H)) for part in (writes, starts))
    return *stack, S.unflatten(0, (B, H))
