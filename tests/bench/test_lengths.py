"""Prefill, decoding and state by context length: what is measured, and what it comes to."""

import csv
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fwpkm.bench import decoding, lengths, prefilling
from fwpkm.bench.decoding import Context
from fwpkm.bench.length_summary import find_crossovers, summarise_system
from fwpkm.bench.lengths import draw_lengths, measure_lengths
from fwpkm.bench.shapes import SHAPES
from fwpkm.cli.main import main
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.step_graph import StepGraph

TINY = SHAPES["tiny"]
CPU = {"device": "cpu", "dtype": "float32"}
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_lengths_are_measured_and_drawn():
    rows = list(measure_lengths([32, 64], "tiny", **CPU, decoded=2))
    plain = [row for row in rows if row["what"] in ("prefill", "decode")]
    assert [(row["system"], row["what"], row["tokens"]) for row in plain[:4]] == [
        ("fwpkm", "prefill", 32), ("fwpkm", "decode", 32), ("fwpkm", "prefill", 64), ("fwpkm", "decode", 64),
    ]  # fmt: skip
    for what in ("prefill", "decode"):
        drawing = draw_lengths(rows, what)
        ET.fromstring(drawing)
        assert all(name in drawing for name in ("fwpkm", "gdn", "attention"))


def test_steps_with_a_write_are_told_apart_from_those_that_only_read():
    rows = {row["what"]: row for row in measure_lengths([32], "tiny", **CPU, systems=["fwpkm"])}
    assert list(rows) == ["prefill", "decode", "decode read", "decode write"]
    chunk = TINY.config.chunk_size
    assert [rows[what]["runs"] for what in rows] == [5, 15, 15 * (chunk - 1), 15]
    assert {row["backend"] for row in rows.values()} == {"numba"}


@torch.no_grad()
def test_a_round_of_graphs_tells_the_steps_with_a_write():
    layer, chunk = FwPKM(TINY.config), TINY.config.chunk_size
    context = Context(
        shape=TINY, length=32, device=torch.device("cpu"), dtype=torch.float32, decoded=2 * chunk
    )
    graph = StepGraph(layer, layer(context.hidden(32))[1])
    decoding._decode_graph_round(graph, context)
    seen, spent = graph.state.tokens_seen[0], decoding._decode_graph_round(graph, context)
    writes = [t for t, (_, wrote) in enumerate(spent) if wrote]
    border = TINY.config.lookahead - 1  # a chunk is written once the first tokens of the next are known
    assert [(seen + t - border) % chunk for t in writes] == [0, 0]


def test_no_token_is_decoded_twice(monkeypatch):
    seen = []
    forward = FwPKM.forward
    monkeypatch.setattr(
        FwPKM, "forward", lambda self, x, state: (seen.append(x.clone()), forward(self, x, state))[1]
    )
    list(measure_lengths([16], "tiny", **CPU, decoded=8, systems=["fwpkm"]))
    single = torch.cat([x for x in seen if x.shape == (1, 1, TINY.config.dim)])
    assert len(single) > 40
    assert len(single.unique(dim=0)) == len(single)


def test_a_state_is_counted_before_it_is_decoded_from_and_cannot_outgrow_its_table():
    layer = FwPKM(TINY.config)
    x = torch.randn(1, 4096, TINY.config.dim)
    with torch.no_grad():
        _, short = layer(x[:, :32])
        _, long = layer(x)
    bound = lengths._bytes_if_all_is_written(short)
    assert short.num_bytes < long.num_bytes <= bound
    assert bound - lengths._bytes_if_all_is_written(long) == short.waiting.num_bytes - long.waiting.num_bytes
    rows = {
        row["system"]: row
        for row in measure_lengths([32], "tiny", **CPU, decoded=20)
        if row["what"] == "prefill"
    }
    assert rows["fwpkm"]["bound_bytes"] == bound
    assert rows["gdn"]["bound_bytes"] == rows["gdn"]["state_bytes"]
    assert rows["attention"]["state_bytes"] == 2 * 32 * TINY.config.dim * 4


def tiny(length: int) -> Context:
    return Context(shape=TINY, length=length, device=torch.device("cpu"), dtype=torch.float32, decoded=2)


def measure_with(monkeypatch, system, **changes):
    """Measure attention, some of whose parts are replaced, at three lengths."""
    reader = replace(lengths.SYSTEMS_BY_LENGTH[system](tiny(16)), **changes)
    monkeypatch.setitem(lengths.SYSTEMS_BY_LENGTH, system, lambda _: reader)
    rows = measure_lengths([64, 16, 32], "tiny", **CPU, decoded=1, systems=[system])
    return [(row["what"], row["tokens"], row.get("failed")) for row in rows]


def test_lengths_are_prefilled_in_turns_and_at_last_to_be_decoded_from(monkeypatch):
    seen, read = [], lengths.SYSTEMS_BY_LENGTH["attention"](tiny(16)).read
    measure_with(monkeypatch, "attention", read=lambda x, _: (seen.append(x.shape[1]), read(x, _))[1])
    assert seen == 8 * [16, 32, 64]  # once each, a round unmeasured, five rounds, and once more


def test_pieces_of_short_contexts_are_read_between_those_of_long_ones_and_times_are_means(monkeypatch):
    read, clock = [], iter(range(1000))
    monkeypatch.setattr(prefilling, "seconds_of", lambda fn, device: (fn(), float(next(clock)))[1])
    reader = prefilling.Reader(
        read=lambda x, state: (read.append((x.shape[1], int(x[0, 0, 0]), state)), len(read))[1],
        piece=64, begin=print, backend="torch",
    )  # fmt: skip
    hidden = torch.arange(1024.0)[None, :, None]
    short, long = prefilling.prefill_side_by_side(reader, hidden, [tiny(16), tiny(1024)])
    fours = [[(64, 64 * (4 * turn + i)) for i in range(4)] for turn in range(4)]
    again = 4 * [(16, 0)]
    assert [x[:2] for x in read] == 6 * (fours[0] + again + fours[1] + fours[2] + again + fours[3])
    assert [x[2] for x in read[:9]] == [None, 1, 2, 3, None, None, None, None, 4]  # each goes on from its own
    assert (short.runs, long.runs) == (5, 5)
    assert short.median == ((1 + 4) + 2 * 6 * 3) / 8  # of rounds 1 to 5: the first is not measured
    assert long.median == (0 + 2 + 3 + 5) + 4 * 6 * 3


def test_a_context_whose_state_does_not_fit_beside_the_others_is_left_out():
    class State:
        alive = 0

        def __init__(self):
            if State.alive >= 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            State.alive += 1

        def __del__(self):
            State.alive -= hasattr(self, "whole")

    def read(x, state):
        state = state or State()
        state.whole = True
        return state

    reader = prefilling.Reader(read=read, piece=4, begin=print, backend="torch")
    contexts = [tiny(length) for length in (256, 512, 1024)]
    hidden = torch.zeros(1, 1024, 1)
    for context in contexts:
        reader.prefill(hidden[:, : context.length])
    assert len(prefilling.prefill_what_fits(reader, hidden, contexts)) == 2


def test_lengths_are_decoded_behind_in_turns(monkeypatch):
    seen, begin = [], lengths.SYSTEMS_BY_LENGTH["attention"](tiny(16)).begin

    def noted(states, context):
        begun = begin(states, context)
        play = begun.rounds["decode"]
        return replace(begun, rounds={"decode": lambda: (seen.append(context.length), play())[1]})

    measure_with(monkeypatch, "attention", begin=noted)
    assert seen == 16 * [16, 32, 64]  # once unmeasured, and fifteen rounds


def test_too_little_memory_ends_a_system_and_any_other_fault_the_run(monkeypatch):
    system = lengths.SYSTEMS_BY_LENGTH["attention"](tiny(16))

    def read(x, state):
        if x.shape[1] > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return system.read(x, state)

    def begin(states, context):
        if context.length > 16:
            raise MemoryError
        return system.begin(states, context)

    wanted = [("prefill", 16, None), ("decode", 16, None), ("prefill", 32, "out of memory")]
    assert measure_with(monkeypatch, "attention", read=read) == wanted
    assert measure_with(monkeypatch, "attention", read=system.read, begin=begin) == [
        *wanted[:2],
        ("prefill", 32, "out of memory"),
    ]

    def too_large(context: Context):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(lengths.SYSTEMS_BY_LENGTH, "attention", too_large)
    rows = measure_lengths([16, 32], "tiny", **CPU, systems=["attention"])
    assert [(row["tokens"], row["failed"]) for row in rows] == [(16, "out of memory")]

    def break_down(context: Context):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setitem(lengths.SYSTEMS_BY_LENGTH, "attention", break_down)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(measure_lengths([16], "tiny", **CPU, systems=["attention"]))


def row(system, what, tokens, median_s, **more):
    return {"system": system, "what": what, "tokens": tokens, "median_s": median_s, **more}


def test_summaries_name_the_lengths_that_they_are_of():
    own = [
        row("fwpkm", "prefill", 512, 0.9, state_bytes=10),
        row("fwpkm", "prefill", 4096, 4.0, state_bytes=100, bound_bytes=500),
        row("fwpkm", "prefill", 131072, 160.0, state_bytes=300, bound_bytes=500),
        row("fwpkm", "prefill", 1048576, 1100.0, state_bytes=400, bound_bytes=500),
        row("fwpkm", "decode", 4096, 2.0),
        row("fwpkm", "decode", 131072, 2.1),
        row("fwpkm", "decode", 1048576, 9.0),
        row("fwpkm", "decode write", 4096, 5.0),
        row("fwpkm", "decode write", 131072, 10.0),
    ]
    rival = [
        row("attention", "prefill", 512, 0.1),
        row("attention", "prefill", 4096, 5.0),
        row("attention", "prefill", 131072, 5000.0),
        row("attention", "decode", 4096, 1.0),
        {"system": "attention", "what": "prefill", "tokens": 1048576, "failed": "out of memory"},
    ]
    found = {x["what"]: x for x in (*summarise_system(own), *find_crossovers([*own, *rival]))}
    flat = found["prefill flatness"]
    assert (flat["from_tokens"], flat["tokens"]) == (4096, 1048576)
    assert flat["ratio"] == pytest.approx((160 / 131072) / (4 / 4096))
    assert (found["decode ratio"]["from_tokens"], found["decode ratio"]["tokens"]) == (4096, 131072)
    assert found["decode ratio"]["ratio"] == pytest.approx(1.05)
    assert found["decode write ratio"]["ratio"] == 2.0
    state = found["state ratio"]
    assert (state["tokens"], state["ratio"], state["state_bytes"], state["bound_bytes"]) == (
        1048576,
        4.0,
        400,
        500,
    )
    assert found["prefill crossover"]["tokens"] == 4096
    assert found["decode crossover"]["tokens"] is None
    assert found["decode crossover"]["from_tokens"] == 4096


def test_one_lead_among_defeats_is_no_crossover():
    times = {1: (1.0, 2.0), 2: (3.0, 2.0), 4: (1.0, 2.0), 8: (1.0, 1.0)}
    rows = [row("fwpkm", "prefill", n, mine) for n, (mine, _) in times.items()]
    rows += [row("attention", "prefill", n, theirs) for n, (_, theirs) in times.items()]
    found = [x for x in find_crossovers(rows) if x["what"] == "prefill crossover"]
    assert [x["tokens"] for x in found] == [4]


def test_rows_of_older_files_are_drawn():
    rows = list(csv.DictReader((RESULTS / "lengths.csv").read_text().splitlines()))
    for what in ("prefill", "decode"):
        drawing = draw_lengths(rows, what)
        ET.fromstring(drawing)
        assert "fwpkm" in drawing


def test_the_command_draws_both_plots(tmp_path):
    command = ["bench", "lengths", "--shape", "tiny", "--lengths", "32", "--device", "cpu"]
    assert main([*command, "--systems", "attention", "--plots", str(tmp_path)]) == 0
    assert (tmp_path / "prefill.svg").read_text().startswith("<svg")
    assert (tmp_path / "decode.svg").exists()
