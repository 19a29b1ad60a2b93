"""Prefill time and decode latency of systems by context length."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fwpkm.bench.compare import DTYPES
from fwpkm.bench.layer import check_parity
from fwpkm.bench.measure import Timing, seconds_of, timed
from fwpkm.bench.shapes import Shape, find_shape
from fwpkm.bench.systems import CausalAttention
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.gated_delta_net import GatedDeltaNet, GatedDeltaNetConfig
from fwpkm.memory.state import FwPKMState
from fwpkm.nested import unknown_name
from fwpkm.report.svg import Curve, line_chart

Row = dict[str, Any]
Token = Callable[[], object]
_PIECE = 4096


def measure_lengths(
    lengths: Sequence[int],
    shape_name: str,
    *,
    device: str,
    dtype: str,
    decoded: int | None = None,
    systems: Sequence[str] | None = None,
) -> Iterator[Row]:
    """Yield prefill seconds and seconds of a decoded token of one stream, for each length and system.

    Args:
        lengths: Tokens of context.
        shape_name: Of `SHAPES`: its layer.
        device: Where to measure.
        dtype: Of hidden states and projections.
        decoded: Tokens whose mean makes one measurement of decoding; None is a chunk, so that each measurement
            has one write. Attention decodes 32 at most.
        systems: Of `SYSTEMS_BY_LENGTH`; None is all.

    Raises:
        ValueError: If a name is not known.
        RuntimeError: If the fast forms differ from the definition; no time is reported then.
    """
    shape, where = find_shape(shape_name), torch.device(device)
    check_parity(device=where)
    known = SYSTEMS_BY_LENGTH
    systems = list(known) if systems is None else systems
    if problems := [unknown_name("system", name, known) for name in systems if name not in known]:
        raise ValueError("bench lengths: " + "; ".join(problems))
    for name in systems:
        run = known[name]
        for length in lengths:
            row = {"system": name, "shape": shape_name, "streams": 1, "tokens": length, "dtype": dtype}
            try:
                prefill, decode = run(shape, length, where, DTYPES[dtype], decoded or shape.config.chunk_size)
            except torch.OutOfMemoryError:
                yield {"what": "prefill", **row, "failed": "out of memory"}
                break
            yield {"what": "prefill", **row, **_spread(prefill), "tokens_s": length / prefill.median}
            yield {"what": "decode", **row, **_spread(decode)}


def _spread(times: Timing) -> Row:
    return {"median_s": times.median, "p20_s": times.p20, "p80_s": times.p80, "runs": times.runs}


@torch.no_grad()
def _stream(layer: Any, x: Tensor, decoded: int) -> tuple[Timing, Timing]:
    """Stream a context through a layer of states in pieces, then single tokens."""
    states: list[Any] = [None]

    def prefill() -> None:
        state = None
        for piece in x.split(_PIECE, dim=1):
            _, state = layer(piece, state)
        states[0] = state

    def decode() -> None:
        state: FwPKMState | None = states[0]
        for _ in range(decoded):
            _, state = layer(x[:, :1], state)
        states[0] = state  # what is kept beside a newer state would have to be copied

    times = timed(prefill, runs=3, warmup=1)
    decode()
    spent = [seconds_of(decode) / decoded for _ in range(5)]
    return times, Timing.of(spent)


def _fwpkm(
    shape: Shape, length: int, device: torch.device, dtype: torch.dtype, decoded: int
) -> tuple[Timing, Timing]:
    layer = FwPKM(shape.config).to(device, dtype)
    return _stream(layer, torch.randn(1, length, shape.config.dim, device=device, dtype=dtype), decoded)


def _narrow(
    shape: Shape, length: int, device: torch.device, dtype: torch.dtype, decoded: int
) -> tuple[Timing, Timing]:
    """Measure the same with tables in bfloat16."""
    narrow = replace(shape, config=replace(shape.config, table_dtype="bfloat16"))
    return _fwpkm(narrow, length, device, dtype, decoded)


def _gated(
    shape: Shape, length: int, device: torch.device, dtype: torch.dtype, decoded: int
) -> tuple[Timing, Timing]:
    dim = shape.config.dim
    heads = max(1, dim // 128)
    config = GatedDeltaNetConfig(num_key_heads=heads, num_value_heads=heads, value_head_dim=dim // heads)
    layer = GatedDeltaNet(dim, config).to(device, dtype)
    return _stream(layer, torch.randn(1, length, dim, device=device, dtype=dtype), decoded)


@torch.no_grad()
def _attend(
    shape: Shape, length: int, device: torch.device, dtype: torch.dtype, decoded: int
) -> tuple[Timing, Timing]:
    """Prefill in one call; a decoded token attends to a cache of the whole context, without appending to it."""
    layer = CausalAttention(shape.config.dim).to(device, dtype)
    x = torch.randn(1, length, shape.config.dim, device=device, dtype=dtype)
    k, v = torch.randn(
        2, 1, layer.num_heads, length, shape.config.dim // layer.num_heads, device=device, dtype=dtype
    )

    decoded = min(decoded, 32)

    def decode() -> None:
        for _ in range(decoded):
            q, _, _ = layer.qkv(x[:, :1]).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
            layer.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))

    times = timed(lambda: layer(x), runs=3, warmup=1)
    decode()
    return times, Timing.of([seconds_of(decode) / decoded for _ in range(5)])


SYSTEMS_BY_LENGTH = {"fwpkm": _fwpkm, "fwpkm-bfloat16": _narrow, "gdn": _gated, "attention": _attend}


def draw_lengths(rows: Sequence[Row], what: str) -> str:
    """Draw "prefill" as microseconds a token, or "decode" as microseconds of one token, against context length."""
    curves = []
    for name in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == name and row["what"] == what and "median_s" in row]
        per = [1e6 * row["median_s"] / (row["tokens"] if what == "prefill" else 1) for row in own]
        curves.append(Curve(name=name, x=tuple(float(row["tokens"]) for row in own), y=tuple(per)))
    return line_chart(curves, x_title="tokens of context", y_title=f"{what}: microseconds a token", low=0.0)
