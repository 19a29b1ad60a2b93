"""Nothing is timed that gives a wrong answer: every subcommand, on the very thing that it times."""

from dataclasses import replace

import pytest
import torch

import fwpkm.memory.overlay as overlay
import fwpkm.memory.recurrence as recurrence
import fwpkm.memory.recurrent as recurrent
from fwpkm.bench import core_rows
from fwpkm.bench.ceilings import Ceilings
from fwpkm.bench.compare import compare_systems
from fwpkm.bench.judged import Unclear, by_definition, in_float64, noting, small_layer
from fwpkm.bench.layer import bench_layer
from fwpkm.bench.lengths import measure_lengths
from fwpkm.bench.model import bench_model
from fwpkm.bench.parity import LAYER_CHECKS, ParityError, check_parity
from fwpkm.bench.parity_rule import check_delta_rule
from fwpkm.bench.shapes import SHAPES
from fwpkm.bench.twins import compare_twins
from fwpkm.cli.main import main
from fwpkm.memory.overlay import Overlay, OverlayEditor
from fwpkm.ops.delta_rule import dispatch

TINY = SHAPES["tiny"].config
CPU = torch.device("cpu")


def spoil_training(patch):
    scan = recurrence.memory_scan

    def wrong(*given, **named):
        answer, table = scan(*given, **named)
        return 1.01 * answer, table

    patch.setattr(recurrence, "memory_scan", wrong)


def spoil_gradients(patch):
    scan = recurrence.memory_scan

    def wrong(table, rows, w, *rest, **named):
        return scan(table, rows, 0.9 * w + 0.1 * w.detach(), *rest, **named)

    patch.setattr(recurrence, "memory_scan", wrong)


def spoil_streaming(patch):
    write = OverlayEditor.write_chunks
    patch.setattr(OverlayEditor, "write_chunks", lambda *given, **how: torch.zeros_like(write(*given, **how)))


def spoil_decode(patch):
    answer = recurrent.answer_tokens
    patch.setattr(recurrent, "answer_tokens", lambda *given: torch.zeros_like(answer(*given)))


def spoil_narrow_tables(patch):
    fresh = Overlay.fresh.__func__

    def wrong(cls, base, *given, row_dtype=None, **named):
        base = 1.1 * base if row_dtype == torch.bfloat16 else base
        return fresh(cls, base, *given, row_dtype=row_dtype, **named)

    patch.setattr(overlay.Overlay, "fresh", classmethod(wrong))


def spoil_delta_rule(patch):
    rule = dispatch.gated_delta_rule_torch

    def wrong(*given):
        out, state = rule(*given)
        return 1.1 * out, state

    patch.setattr(dispatch, "gated_delta_rule_torch", wrong)


@pytest.mark.parametrize("check", ["core", *LAYER_CHECKS])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_what_is_right_passes_in_float32(check, backend):
    config = replace(TINY, topk=12, num_heads=2, lookahead=2)
    assert 0 < check_parity([check], device="cpu", config=config, backend=backend) < 1e-4


@pytest.mark.parametrize("check", LAYER_CHECKS)
def test_what_is_right_passes_in_half_precision(check):
    plain = {"device": "cpu", "dtype": torch.bfloat16, "config": TINY}
    assert 1e-4 < check_parity([check], **plain) < 8e-2
    assert 1e-4 < check_parity([check], **plain, autocast=True) < 8e-2
    narrow = replace(TINY, table_dtype="bfloat16")
    assert 1e-6 < check_parity([check], device="cpu", config=narrow) < 2e-2


def test_float64_is_held_to_more_than_float32():
    assert check_parity(["core", *LAYER_CHECKS], device="cpu", dtype=torch.float64, config=TINY) < 1e-12


@pytest.mark.parametrize(
    ("check", "spoil"),
    [
        ("training", spoil_training),
        ("training", spoil_gradients),
        ("core", spoil_training),
        ("core", spoil_gradients),
        ("streaming", spoil_streaming),
        ("decode", spoil_decode),
        ("decode", spoil_streaming),
    ],
)
def test_what_is_wrong_does_not_pass(monkeypatch, check, spoil):
    spoil(monkeypatch)
    with pytest.raises(ParityError, match=f"{check} on cpu .*no times reported"):
        check_parity([check], device="cpu", config=TINY)


def test_a_backend_is_judged_by_itself(monkeypatch):
    """The other's faults are not its own."""
    import fwpkm.ops.memory_scan.operation as operation

    scan = operation.scan_torch
    monkeypatch.setattr(operation, "scan_torch", lambda *given: 1.01 * scan(*given))
    check_parity(["core"], device="cpu", config=TINY, backend="numba")
    with pytest.raises(ParityError, match="core on cpu"):
        check_parity(["core"], device="cpu", config=TINY, backend="torch")


def test_a_draw_whose_slots_rounding_could_choose_is_not_judged_by():
    layer = small_layer(replace(TINY, topk=3), CPU, torch.float32, 0)
    first, second = layer.initial_keys.chunk(2, dim=2)
    second.copy_(first * (1 + 1e-6))  # each slot has three that are almost like it
    with noting(layer) as notes:
        layer(x := torch.randn(2, 43, TINY.dim))
    with pytest.raises(Unclear):
        by_definition(in_float64(layer), x.double(), notes)


SIZES = {"streams": 1, "tokens": 16, "runs": 1}
SUBCOMMANDS = {
    "layer core": (spoil_training, lambda: bench_layer(tokens=8, longest=8, runs=1, dense_runs=1)),
    "layer streaming": (spoil_streaming, lambda: bench_layer(tokens=8, longest=8, runs=1, dense_runs=1)),
    "compare": (
        spoil_training,
        lambda: compare_systems(["attention", "fwpkm"], "tiny", device="cpu", dtype="bfloat16", runs=1),
    ),
    "lengths prefill": (
        spoil_streaming,
        lambda: measure_lengths([32], "tiny", device="cpu", dtype="float32", systems=["attention", "fwpkm"]),
    ),
    "lengths decode": (
        spoil_decode,
        lambda: measure_lengths([32], "tiny", device="cpu", dtype="float32", systems=["fwpkm"]),
    ),
    "lengths bfloat16 tables": (
        spoil_narrow_tables,
        lambda: measure_lengths([32], "tiny", device="cpu", dtype="float32", systems=["fwpkm-bfloat16"]),
    ),
    "twins": (
        spoil_training,
        lambda: compare_twins("small/swa_fwpkm", "small/swa", device="cpu", **SIZES),
    ),
    "twins gdn": (
        spoil_delta_rule,
        lambda: compare_twins("small/gdn_fwpkm", "small/gdn", device="cpu", **SIZES),
    ),
    "model train": (
        spoil_gradients,
        lambda: bench_model(
            recipe="small/swa_fwpkm", settings=(), tokens=8, longest=8, piece=8, whats=["train"]
        ),
    ),
    "model prefill": (
        spoil_streaming,
        lambda: bench_model(
            recipe="small/swa_fwpkm", settings=(), tokens=8, longest=8, piece=8, whats=["prefill"]
        ),
    ),
}


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_no_subcommand_gives_a_row_of_what_is_wrong(monkeypatch, name):
    spoil, measure = SUBCOMMANDS[name]
    spoil(monkeypatch)
    with pytest.raises(ParityError, match="no times reported"):
        next(iter(measure()))


@pytest.mark.parametrize(
    "measure",
    [
        lambda: compare_systems(["gdn", "attention"], "tiny", device="cpu", dtype="float32", runs=1),
        lambda: measure_lengths([32], "tiny", device="cpu", dtype="float32", systems=["gdn", "attention"]),
    ],
)
def test_a_rival_that_is_wrong_is_not_timed_and_the_others_are(measure, monkeypatch):
    spoil_delta_rule(monkeypatch)
    rows = {row["system"]: row for row in measure() if row["what"] in ("train", "prefill")}
    assert "the gated delta rule" in rows["gdn"]["failed"]
    assert "median_s" not in rows["gdn"]
    assert rows["attention"]["median_s"] > 0


def test_faults_of_what_is_not_timed_refuse_nothing(monkeypatch):
    spoil_narrow_tables(monkeypatch)
    spoil_delta_rule(monkeypatch)
    how = {"device": "cpu", "dtype": "float32", "decoded": 1, "systems": ["attention"]}
    assert next(measure_lengths([32], "tiny", **how))["median_s"] > 0


def test_the_command_ends_with_an_error_and_without_a_row(monkeypatch, capsys):
    spoil_decode(monkeypatch)
    command = ["bench", "lengths", "--shape", "tiny", "--lengths", "32", "--device", "cpu"]
    assert main(command) == 2
    printed = capsys.readouterr()
    assert "decode on cpu" in printed.err
    assert "median_s" not in printed.out


def test_the_delta_rule_passes_in_both_precisions():
    assert check_delta_rule(device="cpu", dtype=torch.float32) < 1e-5
    assert check_delta_rule(device="cpu", dtype=torch.bfloat16) < 2e-2


@pytest.mark.parametrize("message", ["expected m1 and m2 to have the same dtype", "illegal memory access"])
def test_a_core_that_fails_in_either_precision_is_an_error_and_no_row(monkeypatch, message):
    def step(*_, **__):
        raise RuntimeError(message)

    monkeypatch.setattr(core_rows, "train_step", step)
    ceilings = Ceilings(flops=1.0, bytes=1.0)
    with pytest.raises(RuntimeError, match=message):
        list(core_rows.core_rows(SHAPES["tiny"], CPU, torch.bfloat16, 1, ceilings, {}, dense=False))
