"""Prefill time, decode latency and state of systems by context length."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fwpkm.bench.decoding import Context, Decoding, begin_attention, begin_streamed, decode_in_turns
from fwpkm.bench.length_summary import find_crossovers, summarise_system
from fwpkm.bench.measure import Timing, if_it_fits
from fwpkm.bench.parity import ParityError, check_parity
from fwpkm.bench.parity_rule import check_delta_rule
from fwpkm.bench.prefilling import Reader, prefill_what_fits
from fwpkm.bench.rows import DTYPES, Row, seconds
from fwpkm.bench.shapes import Shape, find_shape
from fwpkm.bench.systems import CausalAttention, delta_rule_backends, make_delta_net
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.memory.state import FwPKMState
from fwpkm.nested import unknown_name
from fwpkm.ops.backend import name_backend
from fwpkm.report.svg import Curve, line_chart

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
    """Yield prefill seconds and seconds of a decoded token of one stream, for each length and system, with summaries.

    A system's lengths are prefilled piece by piece in turns, and decoded behind in turns, so that what slows the
    machine down for a while slows all of them. The time of a prefill is the mean of those of a round, and there are
    five rounds.
    "decode" is the mean token of a round, with its share of writes; "decode read" is a token that writes nothing,
    "decode write" one that completes a chunk. Every token is another one and is waited for before the next. On a CUDA
    device "decode graph" is the same under CUDA graphs, captured anew after every write.

    Args:
        lengths: Tokens of context.
        shape_name: Of `SHAPES`: its layer.
        device: Where to measure.
        dtype: Of hidden states and projections.
        decoded: Tokens of a round of decoding; None is a chunk, so that each round has one write. Attention decodes
            32 at most.
        systems: Of `SYSTEMS_BY_LENGTH`; None is all.

    Raises:
        ValueError: If a name is not known.
        ParityError: If a fast form differs from the definition; no time is reported then.
    """
    shape, where, known = find_shape(shape_name), torch.device(device), SYSTEMS_BY_LENGTH
    systems = list(known) if systems is None else systems
    problems = [unknown_name("system", name, known) for name in systems if name not in known]
    if dtype not in DTYPES:
        problems.append(unknown_name("dtype", dtype, DTYPES))
    if problems:
        raise ValueError("bench lengths: " + "; ".join(problems))
    _check(systems, shape, where, DTYPES[dtype])
    rows: list[Row] = []
    for name in systems:
        common = {"system": name, "shape": shape_name, "streams": 1, "dtype": dtype}
        contexts = [
            Context(
                shape=shape, length=length, device=where, dtype=DTYPES[dtype],
                decoded=decoded or shape.config.chunk_size,
            )
            for length in sorted(lengths)
        ]  # fmt: skip
        of_system: list[Row] = []
        for row in _rows(known[name], contexts, common):
            of_system.append(row)
            yield row
        yield from summarise_system(of_system)
        rows += of_system
    yield from find_crossovers(rows)


def _check(systems: Sequence[str], shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
    for name, config in (("fwpkm", shape.config), ("fwpkm-bfloat16", _narrow(shape).config)):
        if name in systems:
            check_parity(["streaming", "decode"], device=device, dtype=dtype, config=config)


def _rows(make: Callable[[Context], Reader], contexts: Sequence[Context], common: Row) -> Iterator[Row]:
    """Measure a system at all lengths, up to the first that there is too little memory for."""
    own = [common | {"tokens": context.length} for context in contexts]
    try:
        reader = if_it_fits(partial(make, contexts[0]))
    except ParityError as error:  # a rival's; the others can be measured all the same
        yield {"what": "prefill", **own[0], "failed": str(error)}
        return
    if reader is None:
        yield {"what": "prefill", **own[0], "failed": "out of memory"}
        return
    hidden, num_fitting = _read_each_once(reader, contexts)
    prefills = prefill_what_fits(reader, hidden, contexts[:num_fitting])
    decodings = _begin_all(reader, hidden, contexts[: len(prefills)])
    for number, (decoding, times) in enumerate(zip(decodings, decode_in_turns(decodings), strict=True)):
        how = own[number] | {"backend": reader.backend}
        yield from _rows_of(prefills[number], decoding, times, contexts[number], how)
    if len(decodings) < len(contexts):
        yield {"what": "prefill", **own[len(decodings)], "failed": "out of memory"}


def _read_each_once(reader: Reader, contexts: Sequence[Context]) -> tuple[Tensor, int]:
    """Prefill contexts unmeasured, shortest first, as far as memory goes; return the longest, and how many fit."""
    longest, count = torch.empty(0), 0
    for context in contexts:
        read = if_it_fits(partial(_read_once, reader, context))
        if read is None:
            break
        longest, count = read, count + 1
    return longest, count


def _read_once(reader: Reader, context: Context) -> Tensor:
    hidden = context.hidden(context.length)
    reader.prefill(hidden)
    return hidden


def _begin_all(reader: Reader, hidden: Tensor, contexts: Sequence[Context]) -> list[Decoding]:
    """Prefill contexts to decode behind, shortest first, and decode a round behind each, as far as memory goes."""
    begun: list[Decoding] = []
    for context in contexts:
        decoding = if_it_fits(partial(_begin, reader, hidden[:, : context.length], context))
        if decoding is None:
            break
        begun.append(decoding)
    return begun


def _begin(reader: Reader, hidden: Tensor, context: Context) -> Decoding:
    decoding = reader.begin([reader.prefill(hidden)], context)
    decoding.rounds["decode"]()  # loads code
    return decoding


def _rows_of(
    prefill: Timing, decoding: Decoding, decoded: dict[str, Timing], context: Context, common: Row
) -> Iterator[Row]:
    sizes: Row = {"state_bytes": decoding.state_bytes}
    if decoding.bound_bytes is not None:
        sizes["bound_bytes"] = decoding.bound_bytes
    for what, times in {"prefill": prefill, **decoded}.items():
        speed = {"tokens_s": context.length / times.median} if what == "prefill" else {}
        yield {"what": what, **common, **seconds(times), **speed, **sizes}


@torch.no_grad()
def _read_on(layer: Any, piece: Tensor, state: Any) -> Any:
    return layer(piece, state)[1]


def _fwpkm(context: Context) -> Reader:
    layer = FwPKM(context.shape.config).to(context.device, context.dtype)
    return Reader(
        read=partial(_read_on, layer),
        piece=_PIECE,
        begin=partial(begin_streamed, layer, _bytes_if_all_is_written),
        backend=name_backend(context.device),
    )


def _bytes_if_all_is_written(state: FwPKMState) -> int:
    rows = state.table.store.rows
    unwritten = state.table.store.num_cells - state.table.num_rows
    return state.num_bytes + unwritten * rows.shape[1] * rows.element_size()


def _narrow(shape: Shape) -> Shape:
    return replace(shape, config=replace(shape.config, table_dtype="bfloat16"))


def _fwpkm_narrow(context: Context) -> Reader:
    """Measure the same with tables in bfloat16."""
    return _fwpkm(replace(context, shape=_narrow(context.shape)))


def _gated(context: Context) -> Reader:
    check_delta_rule(device=context.device, dtype=context.dtype)
    with delta_rule_backends() as used:
        layer = make_delta_net(context.shape, context.device, context.dtype)
        _read_on(layer, context.hidden(min(_PIECE, context.length)), None)
    return Reader(
        read=partial(_read_on, layer),
        piece=_PIECE,
        begin=partial(begin_streamed, layer, lambda state: state.num_bytes),
        backend="+".join(sorted(used)),
    )


def _attend(context: Context) -> Reader:
    layer = CausalAttention(context.shape.config.dim).to(context.device, context.dtype)
    return Reader(
        read=partial(_attend_at_once, layer),
        piece=None,
        begin=partial(begin_attention, layer),
        backend="torch",
    )


@torch.no_grad()
def _attend_at_once(layer: CausalAttention, hidden: Tensor, _: None) -> None:
    layer(hidden)


SYSTEMS_BY_LENGTH = {"fwpkm": _fwpkm, "fwpkm-bfloat16": _fwpkm_narrow, "gdn": _gated, "attention": _attend}


def draw_lengths(rows: Iterable[Mapping[str, Any]], what: str) -> str:
    """Draw "prefill" as microseconds a token, or "decode" as microseconds of one token, against context length.

    Takes rows of `measure_lengths`, and those that a file of them has, old or new.
    """
    own = [row for row in rows if row["what"] == what and row.get("median_s")]
    curves = []
    for name in dict.fromkeys(row["system"] for row in own):
        points = [
            (float(row["tokens"]), 1e6 * float(row["median_s"])) for row in own if row["system"] == name
        ]
        per = tuple(y / x if what == "prefill" else y for x, y in points)
        curves.append(Curve(name=name, x=tuple(x for x, _ in points), y=per))
    return line_chart(curves, x_title="tokens of context", y_title=f"{what}: microseconds a token", low=0.0)
