"""Prefill time, decode latency and state of systems by context length."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fwpkm.bench.length_summary import find_crossovers, summarise_system
from fwpkm.bench.measure import Timing, is_out_of_memory, seconds_of
from fwpkm.bench.parity import ParityError, check_parity
from fwpkm.bench.parity_rule import check_delta_rule
from fwpkm.bench.rows import DTYPES, Row, seconds
from fwpkm.bench.shapes import Shape, find_shape
from fwpkm.bench.systems import CausalAttention, delta_rule_backends, fastest_attention, make_delta_net
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.step_graph import StepGraph
from fwpkm.memory.state import FwPKMState
from fwpkm.nested import unknown_name
from fwpkm.ops.backend import name_backend
from fwpkm.report.svg import Curve, line_chart

T = TypeVar("T")
_PIECE = 4096
_PREFILLS, _ROUNDS = 5, 5
_MOST_ATTENDED = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is measured at one length."""

    shape: Shape
    length: int
    device: torch.device
    dtype: torch.dtype
    decoded: int
    """Tokens of a round of decoding."""

    def hidden(self, tokens: int) -> Tensor:
        """Draw hidden states, no two alike."""
        return torch.randn(1, tokens, self.shape.config.dim, device=self.device, dtype=self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What was found of decoding at one length."""

    times: dict[str, Timing]
    """By row: "decode" and kinds of it, such as "decode read"."""
    state_bytes: int
    """After the prefill."""
    bound_bytes: int | None = None
    """What the state can grow to, however long the context; None if there is no such bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A layer that reads a context and decodes behind it."""

    prefill: Callable[[Tensor], Any]
    """From hidden states to what decoding goes on from."""
    decode: Callable[[list[Any], Context], Decoded]
    """Takes what a prefill returned out of a list: were it held elsewhere, each step would copy it."""
    backend: str


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

    A system's lengths are prefilled in turns, so that what slows the machine down for a while slows all of them.
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
        reader = _if_it_fits(partial(make, contexts[0]))
    except ParityError as error:  # a rival's; the others can be measured all the same
        yield {"what": "prefill", **own[0], "failed": str(error)}
        return
    if reader is None:
        yield {"what": "prefill", **own[0], "failed": "out of memory"}
        return
    hidden, num_fitting = _read_each_once(reader, contexts)
    prefills = _prefill_in_turns(reader, hidden, contexts[:num_fitting])
    for number, context in enumerate(contexts):
        part = hidden[:, : context.length]
        fits = number < num_fitting
        decoded = _if_it_fits(partial(_decode_behind, reader, part, context)) if fits else None
        if decoded is None:
            yield {"what": "prefill", **own[number], "failed": "out of memory"}
            return
        yield from _rows_of(prefills[number], decoded, context, own[number] | {"backend": reader.backend})


def _if_it_fits(fn: Callable[[], T]) -> T | None:
    """Return what `fn` does, or nothing if memory is too small for it."""
    try:
        return fn()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _read_each_once(reader: Reader, contexts: Sequence[Context]) -> tuple[Tensor, int]:
    """Prefill contexts unmeasured, shortest first, as far as memory goes; return the longest, and how many fit."""
    longest, count = torch.empty(0), 0
    for context in contexts:
        read = _if_it_fits(partial(_read_once, reader, context))
        if read is None:
            break
        longest, count = read, count + 1
    return longest, count


def _read_once(reader: Reader, context: Context) -> Tensor:
    hidden = context.hidden(context.length)
    reader.prefill(hidden)
    return hidden


def _prefill_in_turns(reader: Reader, hidden: Tensor, contexts: Sequence[Context]) -> list[Timing]:
    rounds = [
        [seconds_of(partial(reader.prefill, hidden[:, : own.length]), own.device) for own in contexts]
        for _ in range(_PREFILLS)
    ]
    return [Timing.of(list(times)) for times in zip(*rounds, strict=True)]


def _decode_behind(reader: Reader, hidden: Tensor, context: Context) -> Decoded:
    return reader.decode([reader.prefill(hidden)], context)


def _rows_of(prefill: Timing, decoded: Decoded, context: Context, common: Row) -> Iterator[Row]:
    sizes: Row = {"state_bytes": decoded.state_bytes}
    if decoded.bound_bytes is not None:
        sizes["bound_bytes"] = decoded.bound_bytes
    for what, times in {"prefill": prefill, **decoded.times}.items():
        speed = {"tokens_s": context.length / times.median} if what == "prefill" else {}
        yield {"what": what, **common, **seconds(times), **speed, **sizes}


@torch.no_grad()
def _read_in_pieces(layer: Any, x: Tensor) -> Any:
    """Stream hidden states through a layer of states; return the last state."""
    state = None
    for piece in x.split(_PIECE, dim=1):
        _, state = layer(piece, state)
    return state


@torch.no_grad()
def _decode_streamed(layer: Any, bound: Callable[[Any], int], states: list[Any], context: Context) -> Decoded:
    """Decode single tokens behind a stream."""
    state_bytes, bound_bytes = states[0].num_bytes, bound(states[0])
    _decode_round(layer, states, context)  # loads code
    rounds = [_decode_round(layer, states, context) for _ in range(_ROUNDS)]
    decoded = _kinds_of_tokens(rounds)
    if context.device.type == "cuda":
        graph = StepGraph(layer, states.pop())
        _decode_graph_round(graph, context)
        rounds = [_decode_graph_round(graph, context) for _ in range(_ROUNDS)]
        decoded |= _kinds_of_tokens(rounds, "decode graph")
    return Decoded(times=decoded, state_bytes=state_bytes, bound_bytes=bound_bytes)


def _decode_round(layer: Any, states: list[Any], context: Context) -> list[tuple[float, bool]]:
    """Decode tokens that all differ; return the seconds of each, and whether it made the memory write."""
    spent = []
    for x in context.hidden(context.decoded).split(1, dim=1):
        waiting = _num_waiting(states[0])

        def step(x: Tensor = x) -> None:
            # What is kept beside a newer state would have to be copied.
            states[0] = layer(x, states[0])[1]

        took = seconds_of(step, context.device)
        spent.append((took, _num_waiting(states[0]) < waiting))
    return spent


def _decode_graph_round(graph: StepGraph[Any], context: Context) -> list[tuple[float, bool]]:
    """Do the same with the graph of a step; what completes a chunk also captures the steps after it."""
    spent = []
    for x in context.hidden(context.decoded).split(1, dim=1):
        writes = not graph.steps_left
        spent.append((seconds_of(partial(graph, x), context.device), writes))
    return spent


def _num_waiting(state: object) -> int:
    """Count the tokens that wait for their chunk to be written; other states than a memory's have none."""
    return state.waiting.counts[0] if isinstance(state, FwPKMState) else 0


def _kinds_of_tokens(
    rounds: Sequence[Sequence[tuple[float, bool]]], what: str = "decode"
) -> dict[str, Timing]:
    kinds = {what: Timing.of([sum(took for took, _ in spent) / len(spent) for spent in rounds])}
    reads = [took for spent in rounds for took, wrote in spent if not wrote]
    writes = [took for spent in rounds for took, wrote in spent if wrote]
    if reads and writes:
        kinds |= {f"{what} read": Timing.of(reads), f"{what} write": Timing.of(writes)}
    return kinds


def _fwpkm(context: Context) -> Reader:
    layer = FwPKM(context.shape.config).to(context.device, context.dtype)
    return Reader(
        prefill=partial(_read_in_pieces, layer),
        decode=partial(_decode_streamed, layer, _bytes_if_all_is_written),
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
        _read_in_pieces(layer, context.hidden(context.length))
    return Reader(
        prefill=partial(_read_in_pieces, layer),
        decode=partial(_decode_streamed, layer, lambda state: state.num_bytes),
        backend="+".join(sorted(used)),
    )


def _attend(context: Context) -> Reader:
    layer = CausalAttention(context.shape.config.dim).to(context.device, context.dtype)
    return Reader(prefill=torch.no_grad()(layer), decode=partial(_decode_attention, layer), backend="torch")


@torch.no_grad()
def _decode_attention(layer: CausalAttention, _: list[Any], context: Context) -> Decoded:
    """Let single tokens attend to a cache of the whole context, without appending to it."""
    size = (2, 1, layer.num_heads, context.length, context.shape.config.dim // layer.num_heads)
    k, v = torch.randn(size, device=context.device, dtype=context.dtype)

    def decode(token: Tensor) -> None:
        q, _, _ = layer.qkv(token).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
        with fastest_attention(context.device):
            mixed = F.scaled_dot_product_attention(q, k, v)
        layer.out(mixed.transpose(1, 2).flatten(-2))

    tokens = context.hidden(min(context.decoded, _MOST_ATTENDED)).split(1, dim=1)
    decode(tokens[0])
    rounds = [
        [(seconds_of(partial(decode, x), context.device), False) for x in tokens] for _ in range(_ROUNDS)
    ]
    return Decoded(times=_kinds_of_tokens(rounds), state_bytes=2 * k.numel() * k.element_size())


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
