"""Decoding behind contexts: single tokens, all different, in rounds that take turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fwpkm.bench.measure import Timing, seconds_of
from fwpkm.bench.shapes import Shape
from fwpkm.bench.systems import CausalAttention, fastest_attention
from fwpkm.layers.step_graph import StepGraph
from fwpkm.memory.state import FwPKMState

ROUNDS = 15
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


Round = list[tuple[float, bool]]
"""Of each decoded token the seconds, and whether it made the memory write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """Decoding behind one context."""

    rounds: dict[str, Callable[[], Round]]
    """By row, "decode" and "decode graph": decodes some tokens more. What comes later ends what came before."""
    state_bytes: int
    """After the prefill."""
    bound_bytes: int | None = None
    """What the state can grow to, however long the context; None if there is no such bound."""


def decode_in_turns(decodings: Sequence[Decoding]) -> list[dict[str, Timing]]:
    """Measure rounds of all decodings, one behind the other; return the times of each by row."""
    found: list[dict[str, Timing]] = [{} for _ in decodings]
    for what in decodings[0].rounds if decodings else ():
        if what != "decode":
            for own in decodings:
                own.rounds[what]()
        rounds = [[own.rounds[what]() for own in decodings] for _ in range(ROUNDS)]
        for times, spent in zip(found, zip(*rounds, strict=True), strict=True):
            times |= _kinds_of_tokens(spent, what)
    return found


def begin_streamed(layer: Any, bound: Callable[[Any], int], states: list[Any], context: Context) -> Decoding:
    """Decode single tokens behind a stream."""
    rounds: dict[str, Callable[[], Round]] = {"decode": partial(_decode_round, layer, states, context)}
    if context.device.type == "cuda":
        graphs: list[StepGraph[Any]] = []

        def play() -> Round:
            if states:
                graphs.append(StepGraph(layer, states.pop()))
            return _decode_graph_round(graphs[0], context)

        rounds["decode graph"] = play
    return Decoding(rounds=rounds, state_bytes=states[0].num_bytes, bound_bytes=bound(states[0]))


@torch.no_grad()
def _decode_round(layer: Any, states: list[Any], context: Context) -> Round:
    """Decode tokens that all differ."""
    spent = []
    for x in context.hidden(context.decoded).split(1, dim=1):
        waiting = _num_waiting(states[0])

        def step(x: Tensor = x) -> None:
            # What is kept beside a newer state would have to be copied.
            states[0] = layer(x, states[0])[1]

        took = seconds_of(step, context.device)
        spent.append((took, _num_waiting(states[0]) < waiting))
    return spent


@torch.no_grad()
def _decode_graph_round(graph: StepGraph[Any], context: Context) -> Round:
    """Do the same with the graph of a step; what completes a chunk also captures the steps after it."""
    spent = []
    for x in context.hidden(context.decoded).split(1, dim=1):
        writes = not graph.steps_left
        spent.append((seconds_of(partial(graph, x), context.device), writes))
    return spent


def _num_waiting(state: object) -> int:
    """Count the tokens that wait for their chunk to be written; other states than a memory's have none."""
    return state.waiting.counts[0] if isinstance(state, FwPKMState) else 0


def _kinds_of_tokens(rounds: Sequence[Round], what: str) -> dict[str, Timing]:
    kinds = {what: Timing.of([sum(took for took, _ in spent) / len(spent) for spent in rounds])}
    reads = [took for spent in rounds for took, wrote in spent if not wrote]
    writes = [took for spent in rounds for took, wrote in spent if wrote]
    if reads and writes:
        kinds |= {f"{what} read": Timing.of(reads), f"{what} write": Timing.of(writes)}
    return kinds


def begin_attention(layer: CausalAttention, _: list[Any], context: Context) -> Decoding:
    """Let single tokens attend to a cache of the whole context, without appending to it."""
    size = (2, 1, layer.num_heads, context.length, context.shape.config.dim // layer.num_heads)
    k, v = torch.randn(size, device=context.device, dtype=context.dtype)

    @torch.no_grad()
    def decode(token: Tensor) -> None:
        q, _, _ = layer.qkv(token).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
        with fastest_attention(context.device):
            mixed = F.scaled_dot_product_attention(q, k, v)
        layer.out(mixed.transpose(1, 2).flatten(-2))

    def play() -> Round:
        tokens = context.hidden(min(context.decoded, _MOST_ATTENDED)).split(1, dim=1)
        return [(seconds_of(partial(decode, x), context.device), False) for x in tokens]

    return Decoding(rounds={"decode": play}, state_bytes=2 * k.numel() * k.element_size())
