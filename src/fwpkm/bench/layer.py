"""What the layer's core costs, against its dense form and against the machine's own speed.

All figures are of the core, from queries, values and gates to what the memory answers, as in the golden
cases; the projections around it are ordinary matrix products.
"""

import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from fwpkm.bench.ceilings import Ceilings, Work, core_work
from fwpkm.bench.core_step import PAPER, core_inputs, train_step
from fwpkm.bench.measure import Timing, seconds_of, timed
from fwpkm.bench.peak import FORMS, peak_in_new_process
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.memory.state import FwPKMState
from fwpkm.ops.backend import use_backend

Row = dict[str, Any]


def bench_layer(*, tokens: int, longest: int, runs: int, dense_runs: int) -> Iterator[Row]:
    """Yield one row a measurement; the first is the parity check, without which no other is made."""
    yield {"what": "parity", **check_parity()}
    layer = FwPKM(PAPER)
    ceilings, fast, shares = _beside_ceilings(layer, tokens, runs)
    yield {"what": "ceilings", "gflops": ceilings.flops / 1e9, "gbytes_s": ceilings.bytes / 1e9}
    yield _against_ceiling(fast, tokens, core_work(PAPER.core, layer, tokens), ceilings, shares)
    yield from _other_rows(layer, tokens, runs, fast)
    yield from _dense_rows(layer, tokens, dense_runs, fast)
    yield from _length_rows(layer, longest)
    yield from _slot_rows(tokens, runs, ceilings)
    yield _decode_row(layer)


def check_parity(seed: int = 0, device: torch.device | str = "cpu") -> Row:
    """Compare fast and dense form on `device`, in float64 at a small size.

    Raises:
        RuntimeError: If they differ by more than rounding; a speed means nothing then.
    """
    torch.manual_seed(seed)
    config = FwPKMConfig(dim=8, num_subkeys=24, key_dim=12, value_dim=10, chunk_size=16, topk=5)
    layer = FwPKM(config).double().to(device)
    q, v, gate = (x.detach().to(device).requires_grad_() for x in core_inputs(config, 2, 75, torch.float64))
    results = []
    for by_definition in (False, True):
        out, state = layer.initial_state(2).advance(q, v, gate, by_definition=by_definition)
        grads = torch.autograd.grad(out.sin().sum() + state.table.dense().cos().sum(), (q, v, gate))
        results.append([x.detach() for x in (out, state.keys, state.table.dense(), *grads)])
    errors = [(a - b).norm() / b.norm() for a, b in zip(*results, strict=True)]
    worst = float(torch.stack(errors).max())  # unlike Python's max, not silent about NaN
    if not worst < 1e-9:
        raise RuntimeError(
            f"bench: fast and dense form differ by {worst:.1e} (relative norm); no times reported"
        )
    return {"relative_error": worst}


def _train_times(layer: FwPKM, tokens: int, runs: int) -> Timing:
    inputs = core_inputs(layer.config, 1, tokens)
    return timed(lambda: train_step(layer, inputs), runs=runs, warmup=3)


def _beside_ceilings(
    layer: FwPKM, tokens: int, runs: int, rounds: int = 5
) -> tuple[Ceilings, Timing, Timing]:
    """Measure ceilings and training steps in turns, as the machine's speed drifts.

    Returns:
        The medians of the ceilings, all steps' times, and of every round its median step over its ceiling.
    """
    inputs = core_inputs(layer.config, 1, tokens)
    work = core_work(layer.config.core, layer, tokens)
    measured, seconds, shares = list[Ceilings](), list[float](), list[float]()
    warmup, own_runs = 3, max(1, runs // rounds)
    for _ in range(rounds):
        measured.append(Ceilings.measure())
        own = [seconds_of(lambda: train_step(layer, inputs)) for _ in range(warmup + own_runs)][warmup:]
        seconds += own
        shares.append(statistics.median(own) / measured[-1].seconds(work))
    middle = Ceilings(
        flops=statistics.median(x.flops for x in measured), bytes=statistics.median(x.bytes for x in measured)
    )
    return middle, Timing.of(seconds), Timing.of(shares)


def _other_rows(layer: FwPKM, tokens: int, runs: int, fast: Timing) -> Iterator[Row]:
    """Measure the same step without compiled loops, and on the worst input: all tokens read the same slots."""
    with use_backend("torch"):
        plain = _train_times(layer, tokens, runs)
    yield {
        "what": "train torch",
        "tokens": tokens,
        **_seconds(plain),
        "times_fast": plain.median / fast.median,
    }
    hot = tuple(
        x.detach()[:, :1].expand_as(x).clone().requires_grad_() for x in core_inputs(PAPER, 1, tokens)
    )
    times = timed(lambda: train_step(layer, hot), runs=runs, warmup=2)
    yield {"what": "train hot", "tokens": tokens, **_seconds(times), "times_fast": times.median / fast.median}


def _against_ceiling(times: Timing, tokens: int, work: Work, ceilings: Ceilings, shares: Timing) -> Row:
    return {
        "what": "train fast",
        "tokens": tokens,
        **_seconds(times),
        "tokens_s": tokens / times.median,
        "gflop": work.flops / 1e9,
        "mbytes": work.bytes / 1e6,
        "ceiling_s": ceilings.seconds(work),
        "times_ceiling": shares.median,
        "times_ceiling_p20": shares.p20,
        "times_ceiling_p80": shares.p80,
    }


def _seconds(times: Timing) -> Row:
    return {"median_s": times.median, "p20_s": times.p20, "p80_s": times.p80, "runs": times.runs}


def _dense_rows(layer: FwPKM, tokens: int, runs: int, fast: Timing) -> Iterator[Row]:
    """Measure the release's arithmetic: dense tables, every gradient by autograd."""
    inputs = core_inputs(layer.config, 1, tokens)
    times = timed(lambda: train_step(layer, inputs, by_definition=True), runs=runs, warmup=1)
    yield {"what": "train dense", "tokens": tokens, **_seconds(times), "speedup": times.median / fast.median}
    fast_peak, dense_peak = (peak_in_new_process(form, tokens) for form in FORMS)
    if fast_peak is not None and dense_peak is not None:
        ratio = fast_peak / dense_peak
        yield {"what": "peak memory", "fast_bytes": fast_peak, "dense_bytes": dense_peak, "ratio": ratio}


@torch.no_grad()
def _length_rows(layer: FwPKM, longest: int, piece: int = 4096) -> Iterator[Row]:
    """Stream up to `longest` tokens through one state; a row at every doubling.

    Done twice and reported once, so that no length pays for memory that this process has not touched before.
    """
    list(_stream_rows(layer, longest, piece))
    yield from _stream_rows(layer, longest, piece)


def _stream_rows(layer: FwPKM, longest: int, piece: int) -> Iterator[Row]:
    state, seen, spent, mark = layer.initial_state(1), 0, 0.0, 512
    before = 0.0
    while seen < longest:
        size = min(piece, mark - seen)
        inputs = tuple(x.detach() for x in core_inputs(layer.config, 1, size))
        results: list[FwPKMState] = []
        spent += seconds_of(lambda: results.append(state.advance(*inputs)[1]))  # noqa: B023 - called at once
        state, seen = results[0], seen + size
        if seen == mark:
            half = seen / 2 if seen > 512 else seen
            yield {
                "what": "prefill",
                "tokens": seen,
                "seconds": spent,
                "tokens_s": seen / spent,
                "us_per_token_of_second_half": 1e6 * (spent - before) / half,
                "state_bytes": state.num_bytes,
            }
            before, mark = spent, 2 * mark


def _slot_rows(tokens: int, runs: int, ceilings: Ceilings) -> Iterator[Row]:
    """Measure tables of other sizes; the score product, which grows with n, is taken off at its ceiling."""
    rest = {}
    for num_subkeys in (256, 512, 1024):
        layer = FwPKM(replace(PAPER, num_subkeys=num_subkeys))
        times = _train_times(layer, tokens, runs)
        work = core_work(layer.config.core, layer, tokens)
        rest[num_subkeys] = times.median - work.flops / ceilings.flops
        yield {
            "what": "slots",
            "num_slots": num_subkeys**2,
            "tokens": tokens,
            **_seconds(times),
            "without_products_s": rest[num_subkeys],
        }
    for num_subkeys in (256, 1024):
        yield {"what": "slots ratio", "num_slots": num_subkeys**2, "ratio": rest[num_subkeys] / rest[512]}


@torch.no_grad()
def _decode_row(layer: FwPKM, tokens: int = 1024) -> Row:
    """Decode token by token on one core through the whole layer, projections included, after a prefill."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x = torch.randn(1, 2 * tokens, layer.config.dim)
        _, state = layer(x[:, :tokens])
        layer(x[:, tokens : tokens + 1], state)  # loads code
        seconds = []
        for t in range(tokens, 2 * tokens):
            results: list[FwPKMState] = []
            seconds.append(seconds_of(lambda: results.append(layer(x[:, t : t + 1], state)[1])))  # noqa: B023
            state = results[0]
    finally:
        torch.set_num_threads(threads)
    mean = sum(seconds) / len(seconds)
    return {"what": "decode", "tokens": tokens, "ms_per_token": 1e3 * mean, **_seconds(Timing.of(seconds))}
