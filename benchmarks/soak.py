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
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from soak_result import Drift, Plan, Sample, Soak
from torch import Tensor

from fwpkm.bench.measure import resident_bytes
from fwpkm.data.books import load_novel
from fwpkm.machine import describe_machine
from fwpkm.memory.state import FwPKMState
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import load_model
from fwpkm.recipe import read_recipe


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


def watch_drift(model: Decoder, plan: Plan) -> Iterator[Drift]:
    """Read the stream in pieces and in blocks, in float32 and float64, side by side, and compare lap by lap."""
    exact = copy.deepcopy(model).double()
    pieces, blocks, exact_pieces, exact_blocks = (Reading(m) for m in (model, model, exact, exact))
    for lap, tokens in enumerate(laps(plan, model.config.vocab_size)):
        cut = plan.pieces(lap)
        oracle = exact_blocks.read(tokens, plan.blocks())
        own, other = pieces.read(tokens, cut), blocks.read(tokens, plan.blocks())
        yield _drift((lap + 1) * plan.lap, own, other, exact_pieces.read(tokens, cut), oracle)


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


def soak(model: Decoder, plan: Plan, tolerance: float) -> Iterator[Soak]:
    """Do both; yields what is known after the first reading, and after each lap of the others."""
    samples, speed, calls = watch_memory(model, plan)
    result = Soak(
        plan=plan,
        tolerance=tolerance,
        samples=tuple(samples),
        tokens_per_second=speed,
        calls=calls,
        origin={"command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), **describe_machine()},
    )
    yield result
    for drift in watch_drift(model, plan):
        _tell("drift", drift)
        result = replace(result, drifts=(*result.drifts, drift))
        yield result


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
    for result in soak(open_model(options.model), plan, options.tolerance):
        result.save(options.out)
    print(json.dumps(result.summary(), indent=1))
    print("\n".join(result.problems()) or "nothing grew, nothing drifted")
    return 1 if result.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
