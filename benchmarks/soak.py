"""The soak: one stream of many tokens through a model with memory, in pieces of all sizes, single tokens among them.

python benchmarks/soak.py small/swa_fwpkm --tokens 1000000 --out results/soak/untrained.json

First the stream is read alone: its state must hold the rows that were written and nothing else that grows, and the
process must not grow beyond them. Then the same pieces are read side by side with regular blocks, in float32 and
in float64. In float64 both must agree to `--tolerance`. In float32 a rounding error may now and then decide which
of two nearly equal slots is read, whatever the pieces; so there the pieces may be at most twice as far from float64
as the blocks are. The exit code is 0 where all of this holds.
"""

import argparse
import copy
import json
import math
import random
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fwpkm.bench.measure import resident_bytes
from fwpkm.data.books import load_novel
from fwpkm.data.files import write_json
from fwpkm.machine import describe_machine
from fwpkm.memory.state import FwPKMState
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import load_model
from fwpkm.recipe import read_recipe

MAX_RATIO = 2.0
"""How many times as far from float64 as blocks are the pieces may be, in float32 (fwpkm.testing.accuracy)."""
SPARE_BYTES = 16 << 20
"""How far a process's resident memory may move by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a stream is read: lap by lap, each lap cut anew."""

    tokens: int = 1_000_000
    """Of the whole stream, rounded up to whole laps."""
    lap: int = 16_384
    """Tokens between two looks at memory."""
    singles: int = 160
    """Tokens of each lap that are read one by one."""
    largest: int = 4_096
    """The largest piece."""
    block: int = 4_096
    """Tokens of the regular pieces that the others are compared with."""
    seed: int = 0
    """Decides how laps are cut."""

    def __post_init__(self) -> None:
        if not (1 <= self.block <= self.lap and self.largest >= 1 and 0 <= self.singles <= self.lap):
            raise ValueError(
                f"Plan: block and singles must fit into a lap, largest be at least 1, got {self}"
            )

    @property
    def num_laps(self) -> int:
        """Laps of the whole stream."""
        return -(-self.tokens // self.lap)

    def pieces(self, lap: int) -> list[int]:
        """Cut a lap: single tokens at one place, and sizes drawn evenly on a logarithmic scale around it."""
        draw = random.Random(f"{self.seed} {lap}")
        left, sizes = self.lap - self.singles, []
        while left:
            sizes.append(min(left, round(math.exp(draw.uniform(0, math.log(self.largest))))))
            left -= sizes[-1]
        place = draw.randrange(len(sizes) + 1)
        return [*sizes[:place], *[1] * self.singles, *sizes[place:]]

    def blocks(self) -> list[int]:
        """Cut a lap regularly."""
        whole, rest = divmod(self.lap, self.block)
        return [self.block] * whole + [rest] * (rest > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Memory after some tokens."""

    tokens: int
    state_bytes: int
    rows: int
    """Rows written, of all layers."""
    row_bytes: int
    """Bytes of these rows."""
    resident_bytes: int | None

    @property
    def other_bytes(self) -> int:
        """The state without the written rows."""
        return self.state_bytes - self.row_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far hidden states of one lap lie apart: root mean square over that of the states, and the worst token's."""

    tokens: int
    float64: float
    """Pieces from blocks, both in float64."""
    float64_worst: float
    pieces: float
    """Pieces in float32 from blocks in float64."""
    blocks: float
    """Blocks in float32 from blocks in float64."""
    apart: float
    """Pieces from blocks, both in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """What came out."""

    plan: Plan
    tolerance: float
    samples: tuple[Sample, ...]
    drifts: tuple[Drift, ...]
    tokens_per_second: float
    calls: int
    origin: dict[str, str] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Say what does not hold."""
        return [*memory_problems(self.samples), *drift_problems(self.drifts, self.tolerance)]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, with a summary."""
        return {"problems": self.problems(), "summary": self.summary(), **asdict(self)}

    def summary(self) -> dict[str, Any]:
        """Return the figures that count."""
        warm, last = _warm(self.samples)[0], self.samples[-1]
        return {
            "tokens": last.tokens,
            "calls": self.calls,
            "tokens_per_second": self.tokens_per_second,
            "rows": last.rows,
            "row_bytes": last.row_bytes,
            "other_state_bytes": last.other_bytes,
            "resident_bytes_after_a_tenth": warm.resident_bytes,
            "resident_bytes_at_the_end": last.resident_bytes,
            "float64_drift": max((d.float64 for d in self.drifts), default=None),
            "float64_worst_token": max((d.float64_worst for d in self.drifts), default=None),
            "float32_pieces_from_float64": _rms([d.pieces for d in self.drifts]),
            "float32_blocks_from_float64": _rms([d.blocks for d in self.drifts]),
        }


def memory_problems(samples: Sequence[Sample]) -> list[str]:
    """Say what grew besides the written rows."""
    found, others = [], {s.other_bytes for s in samples}
    if len(others) > 1:
        found.append(f"the state without its rows must stay as large, got {sorted(others)} bytes")
    warm = _warm(samples)
    first, last = warm[0], warm[-1]
    if first.resident_bytes is not None and last.resident_bytes is not None:
        growth, allowed = last.resident_bytes - first.resident_bytes, last.row_bytes - first.row_bytes
        if growth > allowed + SPARE_BYTES:
            found.append(
                f"the process may grow by {allowed} bytes of rows and {SPARE_BYTES} of its own, got {growth} between "
                f"{first.tokens} and {last.tokens} tokens"
            )
    return found


def drift_problems(drifts: Sequence[Drift], tolerance: float) -> list[str]:
    """Say where pieces and blocks do not agree."""
    found = [
        f"pieces and blocks must agree to {tolerance:g} in float64, got {d.float64_worst:.1e} before token {d.tokens}"
        for d in drifts
        if not d.float64_worst <= tolerance
    ]
    pieces, blocks = _rms([d.pieces for d in drifts]), _rms([d.blocks for d in drifts])
    if not pieces <= MAX_RATIO * blocks:
        found.append(
            f"pieces in float32 may be {MAX_RATIO:g} times as far from float64 as blocks, got {pieces:.1e} and "
            f"{blocks:.1e}"
        )
    return found


def _warm(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Leave the first tenth out, in which code is loaded and storage finds its size."""
    return samples[len(samples) // 10 :]


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(x * x for x in values) / len(values)) if values else 0.0


class Reading:
    """One model on its way through a stream."""

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.cache: DecoderCache | None = None
        self.calls = 0

    @torch.inference_mode()
    def read(self, tokens: Tensor, pieces: Sequence[int]) -> Tensor:
        """Read on, piece by piece; returns the hidden states [T, D]."""
        out = []
        for piece in tokens.split(list(pieces)):
            output = self.model(piece[None], self.cache, logits_to_keep=0)
            self.cache = output.cache
            out.append(output.hidden[0])
            self.calls += 1
        return torch.cat(out)

    def sample(self, tokens: int) -> Sample:
        """Look at memory."""
        assert self.cache is not None, "something was read"
        tables = [b.memory.table for b in self.cache.blocks if isinstance(b.memory, FwPKMState)]
        rows = [(t.num_rows, t.store.rows.shape[1] * t.store.rows.element_size()) for t in tables]
        return Sample(
            tokens=tokens,
            state_bytes=self.cache.num_bytes,
            rows=sum(count for count, _ in rows),
            row_bytes=sum(count * width for count, width in rows),
            resident_bytes=resident_bytes(),
        )


def laps(plan: Plan, vocab_size: int) -> Iterator[Tensor]:
    """Yield the novel's bytes, again and again, lap by lap."""
    text = torch.tensor(list(load_novel().encode())) % vocab_size
    for lap in range(plan.num_laps):
        yield text[torch.arange(lap * plan.lap, (lap + 1) * plan.lap) % len(text)]


def watch_memory(model: Decoder, plan: Plan) -> tuple[list[Sample], float, int]:
    """Read the stream alone; returns memory lap by lap, tokens per second, and calls."""
    reading, samples, began = Reading(model), [], time.perf_counter()
    for lap, tokens in enumerate(laps(plan, model.config.vocab_size)):
        reading.read(tokens, plan.pieces(lap))
        samples.append(reading.sample((lap + 1) * plan.lap))
        _tell("memory", samples[-1])
    speed = samples[-1].tokens / (time.perf_counter() - began)
    return samples, speed, reading.calls


def watch_drift(model: Decoder, plan: Plan) -> list[Drift]:
    """Read the stream in pieces and in blocks, in float32 and float64, side by side."""
    exact = copy.deepcopy(model).double()
    pieces, blocks, exact_pieces, exact_blocks = (Reading(m) for m in (model, model, exact, exact))
    drifts = []
    for lap, tokens in enumerate(laps(plan, model.config.vocab_size)):
        cut = plan.pieces(lap)
        oracle = exact_blocks.read(tokens, plan.blocks())
        own, other = pieces.read(tokens, cut), blocks.read(tokens, plan.blocks())
        drifts.append(_drift((lap + 1) * plan.lap, own, other, exact_pieces.read(tokens, cut), oracle))
        _tell("drift", drifts[-1])
    return drifts


def _drift(tokens: int, own: Tensor, other: Tensor, exact: Tensor, oracle: Tensor) -> Drift:
    size = oracle.square().mean().sqrt()

    def apart(x: Tensor, y: Tensor) -> float:
        return float((x.double() - y.double()).square().mean().sqrt() / size)

    return Drift(
        tokens=tokens,
        float64=apart(exact, oracle),
        float64_worst=float((exact - oracle).square().mean(-1).sqrt().amax() / size),
        pieces=apart(own, oracle),
        blocks=apart(other, oracle),
        apart=apart(own, other),
    )


def _tell(what: str, value: Sample | Drift) -> None:
    print(what, json.dumps(asdict(value)), file=sys.stderr, flush=True)


def soak(model: Decoder, plan: Plan, tolerance: float) -> Soak:
    """Do both."""
    samples, speed, calls = watch_memory(model, plan)
    return Soak(
        plan=plan,
        tolerance=tolerance,
        samples=tuple(samples),
        drifts=tuple(watch_drift(model, plan)),
        tokens_per_second=speed,
        calls=calls,
        origin={
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            **describe_machine(),
        },
    )


def open_model(name: str) -> Decoder:
    """Load the model of a folder, or build a recipe's with fresh weights."""
    if Path(name).is_dir():
        return load_model(name)
    torch.manual_seed(0)
    return Decoder(read_recipe(name).model).eval()


def main() -> int:
    """Soak a model and write down what came out; 0 if nothing grew or drifted."""
    defaults = Plan()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a folder that fwpkm train exported, or a recipe (fresh weights)")
    parser.add_argument("--tokens", type=int, default=defaults.tokens)
    parser.add_argument("--lap", type=int, default=defaults.lap, help="tokens between two looks")
    parser.add_argument("--singles", type=int, default=defaults.singles, help="single tokens of each lap")
    parser.add_argument("--tolerance", type=float, default=1e-9, help="in float64, of any token")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args()
    plan = Plan(tokens=options.tokens, lap=options.lap, singles=options.singles, seed=options.seed)
    torch.set_num_threads(1)
    result = soak(open_model(options.model), plan, options.tolerance)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result.to_dict())
    print(json.dumps(result.summary(), indent=1))
    print("\n".join(result.problems()) or "nothing grew, nothing drifted")
    return 1 if result.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
