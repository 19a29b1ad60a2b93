"""What the layer's core costs, against its dense form and against the machine's own speed.

All figures are of the core, from queries, values and gates to what the memory answers, as in the golden
cases; the projections around it are ordinary matrix products.
"""

import statistics
from collections.abc import Iterator
from dataclasses import replace

import torch

from fwpkm.bench.ceilings import Ceilings, Work, core_work
from fwpkm.bench.core_step import PAPER, Inputs, core_inputs, spread_and_hot_inputs, train_step
from fwpkm.bench.measure import Timing, peak_device_bytes, seconds_of, timed
from fwpkm.bench.parity import check_parity
from fwpkm.bench.peak import FORMS, peak_in_new_process
from fwpkm.bench.rows import Row, seconds
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.memory.state import FwPKMState
from fwpkm.ops.backend import use_backend


def bench_layer(
    *, tokens: int, longest: int, runs: int, dense_runs: int, device: str = "cpu"
) -> Iterator[Row]:
    """Yield one row a measurement; the first is the parity check, without which no other is made.

    Raises:
        ParityError: If a fast form differs from the definition.
    """
    yield {"what": "parity", "relative_error": _check(device)}
    layer = FwPKM(PAPER).to(device)
    ceilings, fast, shares = _beside_ceilings(layer, tokens, runs)
    yield {"what": "ceilings", "gflops": ceilings.flops / 1e9, "gbytes_s": ceilings.bytes / 1e9}
    yield _against_ceiling(fast, tokens, core_work(PAPER.core, layer, tokens), ceilings, shares)
    yield from _other_rows(layer, tokens, runs, fast)
    yield from _dense_rows(layer, tokens, dense_runs, fast)
    yield from _length_rows(layer, longest)
    yield from _slot_rows(layer, tokens, runs, ceilings)
    yield _decode_row(layer)


def _check(device: str) -> float:
    worst = check_parity(["core", "streaming", "decode"], device=device)
    return max(worst, check_parity(["core"], device=device, backend="torch"))


def _inputs(layer: FwPKM, tokens: int) -> Inputs:
    return spread_and_hot_inputs(layer.config, 1, tokens, _device(layer))["spread"]


def _device(layer: FwPKM) -> torch.device:
    return layer.initial_keys.device


def _train_times(layer: FwPKM, tokens: int, runs: int) -> Timing:
    inputs = _inputs(layer, tokens)
    return timed(lambda: train_step(layer, inputs), runs=runs, warmup=3, device=_device(layer))


def _beside_ceilings(
    layer: FwPKM, tokens: int, runs: int, rounds: int = 5
) -> tuple[Ceilings, Timing, Timing]:
    """Measure ceilings and training steps in turns, as the machine's speed drifts.

    Returns:
        The medians of the ceilings, all steps' times, and of every round its median step over its ceiling.
    """
    inputs, device = _inputs(layer, tokens), _device(layer)
    work = core_work(layer.config.core, layer, tokens)
    measured, spent, shares = list[Ceilings](), list[float](), list[float]()
    warmup, own_runs = 3, max(1, runs // rounds)
    for _ in range(rounds):
        measured.append(Ceilings.measure(device))
        own = [seconds_of(lambda: train_step(layer, inputs), device) for _ in range(warmup + own_runs)][
            warmup:
        ]
        spent += own
        shares.append(statistics.median(own) / measured[-1].seconds(work))
    middle = Ceilings(
        flops=statistics.median(x.flops for x in measured), bytes=statistics.median(x.bytes for x in measured)
    )
    return middle, Timing.of(spent), Timing.of(shares)


def _other_rows(layer: FwPKM, tokens: int, runs: int, fast: Timing) -> Iterator[Row]:
    """Measure the same step without compiled loops, and on the worst input: all tokens read the same slots."""
    with use_backend("torch"):
        plain = _train_times(layer, tokens, runs)
    yield {
        "what": "train torch",
        "tokens": tokens,
        "backend": "torch",
        **seconds(plain),
        "times_fast": plain.median / fast.median,
    }
    hot, device = spread_and_hot_inputs(PAPER, 1, tokens, _device(layer))["hot"], _device(layer)
    times = timed(lambda: train_step(layer, hot), runs=runs, warmup=2, device=device)
    yield {"what": "train hot", "tokens": tokens, **seconds(times), "times_fast": times.median / fast.median}


def _against_ceiling(times: Timing, tokens: int, work: Work, ceilings: Ceilings, shares: Timing) -> Row:
    return {
        "what": "train fast",
        "tokens": tokens,
        **seconds(times),
        "tokens_s": tokens / times.median,
        "gflop": work.flops / 1e9,
        "mbytes": work.bytes / 1e6,
        "ceiling_s": ceilings.seconds(work),
        "times_ceiling": shares.median,
        "times_ceiling_p20": shares.p20,
        "times_ceiling_p80": shares.p80,
    }


def _dense_rows(layer: FwPKM, tokens: int, runs: int, fast: Timing) -> Iterator[Row]:
    """Measure the release's arithmetic: dense tables, every gradient by autograd."""
    inputs, device = _inputs(layer, tokens), _device(layer)
    times = timed(lambda: train_step(layer, inputs, by_definition=True), runs=runs, warmup=1, device=device)
    row = {"what": "train dense", "tokens": tokens, "backend": "torch", **seconds(times)}
    yield {**row, "speedup": times.median / fast.median}
    fast_peak, dense_peak = (_peak(layer, inputs, form) for form in FORMS)
    if fast_peak is not None and dense_peak is not None:
        ratio = fast_peak / dense_peak
        yield {"what": "peak memory", "fast_bytes": fast_peak, "dense_bytes": dense_peak, "ratio": ratio}


def _peak(layer: FwPKM, inputs: Inputs, form: str) -> int | None:
    if _device(layer).type == "cpu":
        return peak_in_new_process(form, inputs[0].shape[1])
    return peak_device_bytes(lambda: train_step(layer, inputs, by_definition=form == "dense"), _device(layer))


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
        inputs = tuple(x.detach().to(_device(layer)) for x in core_inputs(layer.config, 1, size))
        results: list[FwPKMState] = []
        spent += seconds_of(lambda: results.append(state.advance(*inputs)[1]), _device(layer))  # noqa: B023 - at once
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


def _slot_rows(paper: FwPKM, tokens: int, runs: int, ceilings: Ceilings) -> Iterator[Row]:
    """Measure tables of other sizes; the score product, which grows with n, is taken off at its ceiling."""
    rest = {}
    for num_subkeys in (256, 512, 1024):
        layer = FwPKM(replace(PAPER, num_subkeys=num_subkeys)).to(_device(paper))
        times = _train_times(layer, tokens, runs)
        work = core_work(layer.config.core, layer, tokens)
        rest[num_subkeys] = times.median - work.flops / ceilings.flops
        yield {
            "what": "slots",
            "num_slots": num_subkeys**2,
            "tokens": tokens,
            **seconds(times),
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
        x = torch.randn(1, 2 * tokens, layer.config.dim, device=_device(layer))
        _, state = layer(x[:, :tokens])
        layer(x[:, tokens : tokens + 1], state)  # loads code
        spent = []
        for t in range(tokens, 2 * tokens):
            results: list[FwPKMState] = []
            token = x[:, t : t + 1]
            spent.append(seconds_of(lambda: results.append(layer(token, state)[1]), _device(layer)))  # noqa: B023
            state = results[0]
    finally:
        torch.set_num_threads(threads)
    mean = sum(spent) / len(spent)
    return {"what": "decode", "tokens": tokens, "ms_per_token": 1e3 * mean, **seconds(Timing.of(spent))}
