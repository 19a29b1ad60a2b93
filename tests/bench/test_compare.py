"""Systems and context lengths compared: every row is a measurement, and none is made after a failed check."""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fwpkm.bench import compare, twins
from fwpkm.bench.ceilings import core_work
from fwpkm.bench.compare import compare_systems
from fwpkm.bench.core_step import PAPER
from fwpkm.bench.parity import ParityError
from fwpkm.bench.rows import append_rows
from fwpkm.bench.scan import ScanBytes
from fwpkm.bench.shapes import SHAPES
from fwpkm.bench.systems import SYSTEMS, make_system
from fwpkm.bench.twins import compare_twins
from fwpkm.cli.bench import add_arguments
from fwpkm.cli.main import main
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.recipe import read_recipe

HOW = {"device": "cpu", "dtype": "float32", "runs": 2}


def test_every_system_gives_hidden_states_of_its_shape_and_differs_from_the_others(monkeypatch):
    shape, outputs = SHAPES["tiny"], {}
    x = torch.randn(shape.streams, shape.tokens, shape.config.dim, requires_grad=True)
    for name in [name for name in SYSTEMS if name != "peer"]:
        system = make_system(name, shape, torch.device("cpu"), torch.float32)
        outputs[name] = system.run(x)
        assert outputs[name].shape == x.shape
        system.train_step(x)
    torch.testing.assert_close(outputs["fwpkm"], outputs["fwpkm torch"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(outputs["fwpkm"], outputs["dense"], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(outputs["fwpkm"], outputs["attention"])
    assert not torch.allclose(outputs["gdn"], outputs["attention"])


def test_rows_hold_times_with_their_spread_and_the_memorys_share_of_the_machine():
    rows = {
        row["system"]: row for row in compare_systems(["fwpkm", "fwpkm torch", "attention"], "tiny", **HOW)
    }
    scan = [f"scan {part}{kind}" for kind in ("", " hot") for part in ("forward", "backward")]
    assert list(rows) == ["core", "core hot", *scan, "fwpkm", "fwpkm torch", "attention"]
    for name, row in rows.items():
        assert 0 < row["p20_s"] <= row["median_s"] <= row["p80_s"]
        if name not in scan:
            assert row["tokens_s"] == pytest.approx(80 / row["median_s"])
    assert 0 < rows["core"]["share_of_bytes"] < 1
    assert 0 < rows["scan backward"]["share_of_bytes"] < 1
    assert "share_of_bytes" not in rows["attention"]
    assert rows["core"]["times_spread"] == 1.0
    assert rows["attention"]["times_fwpkm"] > 0
    assert rows["attention"]["fwpkm_s"] > 0
    backends = [rows[name]["backend"] for name in ("core", "fwpkm", "fwpkm torch", "attention")]
    assert backends == ["numba", "numba", "torch", "torch"]
    # Other measurements of this process would have hidden what each needs.
    assert all(row.get("peak_bytes") is None for row in rows.values())


def test_the_dense_form_is_set_against_the_core_and_against_the_layer(monkeypatch):
    peaks = iter([100, 100, 800, 50, 2000])
    monkeypatch.setattr("fwpkm.bench.core_rows.peak_device_bytes", lambda *_: next(peaks))
    monkeypatch.setattr(compare, "peak_device_bytes", lambda *_: next(peaks))
    rows = {row["system"]: row for row in compare_systems(["fwpkm", "dense"], "tiny", **HOW)}
    assert rows["core dense"]["times_core"] == rows["core dense"]["median_s"] / rows["core"]["median_s"]
    assert rows["core dense"]["peak_times_core"] == 8.0
    assert rows["dense"]["peak_times_fwpkm"] == 40.0


def test_on_a_cpu_the_layer_is_measured_again_after_each_step_of_another(monkeypatch):
    spent = iter([6.0, 2.0, 9.0, 2.0, 8.0, 1.0, 1.0, 4.0, 0.5, 1.5, 9.0, 3.0, 0.1, 5.9])
    monkeypatch.setattr(compare, "seconds_of", lambda step, device: next(spent))
    row = list(compare_systems(["fwpkm", "attention"], "tiny", **{**HOW, "runs": 3}))[-1]
    assert row["times_fwpkm"] == 3.0  # of 6 / 2, 8 / 1 (five steps, until they took as long) and 9 / 3
    assert row["fwpkm_s"] == 2.0
    assert row["median_s"] == 8.0


def test_rows_in_bfloat16_say_what_was_in_which_precision():
    rows = list(compare_systems(["fwpkm", "gdn"], "tiny", **{**HOW, "dtype": "bfloat16"}))
    kinds = [(row["system"], row["dtype"]) for row in rows if not row["system"].startswith("scan")]
    assert kinds[:3] == [("core", "float32"), ("core hot", "float32"), ("core", "bfloat16")]
    assert kinds[-2:] == [("fwpkm", "bfloat16"), ("gdn", "bfloat16")]
    assert all("median_s" in row or "queries and values" in row["failed"] for row in rows)


def test_a_system_that_is_not_installed_says_so_and_the_others_are_measured(monkeypatch):
    monkeypatch.setattr("fwpkm.bench.systems.importlib.util.find_spec", lambda name: None)
    rows = {row["system"]: row for row in compare_systems(["peer", "attention"], "tiny", **HOW)}
    assert "pip install fast-weight-product-key-memory" in rows["peer"]["failed"]
    assert rows["attention"]["median_s"] > 0


def fail_with(error):
    def fail(*_, **__):
        raise error

    return fail


def test_too_little_memory_gives_a_row_and_any_other_fault_an_error(monkeypatch):
    monkeypatch.setattr(compare, "timed", fail_with(torch.OutOfMemoryError("CUDA out of memory")))
    assert list(compare_systems(["attention"], "tiny", **HOW))[-1]["failed"] == "out of memory"
    monkeypatch.setattr(compare, "timed", fail_with(RuntimeError("CUDA error: an illegal memory access")))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(compare_systems(["attention"], "tiny", **HOW))


def test_bytes_of_a_scan_are_those_of_the_document_if_no_two_pairs_share_a_row():
    config, tokens = PAPER, 2048
    reads, writes = [513, 512, 512, 512, 2], [512, 512, 512, 0, 0]  # near those of four chunks
    rows = torch.randperm(config.num_slots)[: 8 * sum(reads)].view(-1, 8)
    found = ScanBytes.count(rows, reads, writes, 2048)
    pairs, written = 8 * sum(reads), 8 * sum(writes)
    assert found.forward == 2048 * (3 * pairs + 2 * written)
    assert found.backward == 2048 * (4 * pairs + 4 * written)
    both = core_work(config.core, FwPKM(config), tokens).bytes
    assert found.forward + found.backward == pytest.approx(both, rel=0.01)


def test_rows_that_many_pairs_share_are_moved_once():
    rows = torch.zeros(6, 2, dtype=torch.int64)
    found = ScanBytes.count(rows, [4, 2], [3, 0], 10)
    assert found == ScanBytes(forward=10 * (2 + 2 + 2), backward=10 * (4 + 3 * 2 + 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["fwpkn"]}, "unknown system 'fwpkn'; did you mean 'fwpkm'"),
        ({"shape_name": "papr"}, "unknown shape 'papr'; did you mean 'paper'"),
        ({"dtype": "float33"}, "unknown dtype 'float33'; did you mean 'float32'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(change, message):
    with pytest.raises(ValueError, match=message):
        next(compare_systems(**{"names": ["fwpkm"], "shape_name": "tiny", **HOW, **change}))


MACHINE = {"device": "some GPU", "backend": "triton", "commit": "abc"}


def test_rows_are_appended_and_new_columns_leave_old_rows_as_they_were(tmp_path):
    path = tmp_path / "results" / "rows.csv"
    append_rows(path, [{"what": "train", "median_s": 0.5}], MACHINE)
    append_rows(path, [{"what": "train", "peak_bytes": 7, "backend": "torch"}], MACHINE)
    append_rows(path, [{"what": "train"}], MACHINE)
    first, second, third = csv.DictReader(path.read_text().splitlines())
    assert (first["median_s"], first["peak_bytes"], second["peak_bytes"]) == ("0.5", "", "7")
    assert [row["device"] for row in (first, second, third)] == ["some GPU"] * 3
    assert [row["backend"] for row in (first, second, third)] == ["triton", "torch", "triton"]


def test_a_file_that_cannot_be_written_anew_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    append_rows(path, [{"what": "train"}], MACHINE)
    before = path.read_text()
    monkeypatch.setattr("fwpkm.files.os.replace", fail_with(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        append_rows(path, [{"what": "train", "new": 1}], MACHINE)
    assert path.read_text() == before


def test_the_command_prints_and_appends(capsys, tmp_path):
    command = [
        "bench",
        "compare",
        "--shape",
        "tiny",
        "--systems",
        "attention",
        "--runs",
        "2",
        "--device",
        "cpu",
    ]
    assert main([*command, "--json", "--allow-dirty", "--append", str(tmp_path / "rows.csv")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["system"] for row in printed["rows"]][:2] == ["core", "core hot"]
    assert printed["rows"][-1]["system"] == "attention"
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert len(rows) == len(printed["rows"])
    assert rows[-1]["backend"] == "torch"


def test_rows_of_a_tree_that_is_no_commit_are_refused_before_anything_is_measured(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr("fwpkm.machine._commit", lambda: "abc+")
    command = ["bench", "compare", "--shape", "tiny", "--systems", "attention", "--device", "cpu"]
    assert main([*command, "--append", str(tmp_path / "rows.csv")]) == 2
    printed = capsys.readouterr()
    assert "got commit=abc+" in printed.err
    assert "median_s" not in printed.out
    assert not (tmp_path / "rows.csv").exists()


def test_a_model_is_measured_next_to_its_twin():
    sizes = {"streams": 2, "tokens": 32, "runs": 2, "warmup": 1, "settings": ["model.num_layers=2"]}
    rows = list(compare_twins("small/gdn", "small/swa", device="cpu", parts=2, **sizes))
    twin, own, ratio = rows
    assert [row["recipe"] for row in rows] == ["small/swa", "small/gdn", "small/gdn"]
    assert [row["gdn_backend"] for row in rows] == ["", "torch", "torch"]
    assert ratio["p20"] <= ratio["median"] <= ratio["p80"]
    assert own["median_s"] > 0 < twin["median_s"]
    assert {row["parts"] for row in rows} == {2}


def test_compiled_blocks_that_give_something_else_are_not_timed(monkeypatch):
    """The compiler itself cannot read what this process's type checks wrap; what it made is put in its place."""

    def spoil(model):
        model.norm.weight.data += 0.1

    monkeypatch.setattr(twins.Decoder, "compile_blocks", spoil)
    sizes = {"streams": 2, "tokens": 32, "runs": 1, "warmup": 0, "settings": ["model.num_layers=1"]}
    with pytest.raises(ParityError, match="compiled blocks: loss"):
        list(compare_twins("small/swa", "small/swa", device="cpu", compiled=True, **sizes))
    monkeypatch.setattr(twins.Decoder, "compile_blocks", lambda model: None)
    rows = list(compare_twins("small/swa", "small/swa", device="cpu", compiled=True, **sizes))
    assert {row["compiled"] for row in rows} == {True}


def test_a_step_in_parts_takes_the_gradient_of_the_whole(monkeypatch):
    seen = []

    class Kept(twins.Optimizer):
        def step(self):
            seen.append(torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None]))

        def clip(self):
            pass

    monkeypatch.setattr(twins.Optimizer, "step", Kept.step)
    monkeypatch.setattr(twins.Optimizer, "clip", Kept.clip)
    made = []
    init = twins.Optimizer.__init__

    def keep(self, model, config):
        init(self, model, config)
        self.model = model
        made.append(self)

    monkeypatch.setattr(twins.Optimizer, "__init__", keep)
    config = twins.read_recipe("small/swa", ["model.num_layers=1"]).model
    for parts in (1, 2, 4):
        twins._TrainingStep(config, torch.device("cpu"), streams=4, tokens=16, parts=parts)()
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(seen[2], seen[0], rtol=1e-3, atol=1e-6)


def test_twins_that_need_too_much_memory_give_a_row_that_says_which(monkeypatch):
    sizes = {"streams": 1, "tokens": 16, "runs": 1, "warmup": 0, "settings": ["model.num_layers=1"]}
    how = {"device": "cpu", **sizes}
    monkeypatch.setattr(twins, "peak_device_bytes", fail_with(torch.OutOfMemoryError("CUDA out of memory")))
    (row,) = compare_twins("small/swa", "small/swa", **how)
    assert (row["recipe"], row["failed"]) == ("small/swa", "out of memory")
    monkeypatch.setattr(
        twins, "peak_device_bytes", fail_with(RuntimeError("CUDA error: unspecified launch failure"))
    )
    with pytest.raises(RuntimeError, match="launch failure"):
        list(compare_twins("small/swa", "small/swa", **how))
    with pytest.raises(ValueError, match="parts must divide streams=1, got parts=2"):
        next(compare_twins("small/swa", "small/swa", parts=2, **how))


def test_twins_are_measured_from_the_command_line(tmp_path, capsys):
    command = ["bench", "twins", "small/gdn", "small/gdn", "--streams", "1", "--tokens", "32", "--runs", "1"]
    changed = ["--set", "model.num_layers=1", "--device", "cpu"]
    assert main([*command, *changed, "--allow-dirty", "--append", str(tmp_path / "rows.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [(row["recipe"], row["tokens"]) for row in rows] == [("small/gdn", "32")] * 3
    assert [row["gdn_backend"] for row in rows] == ["torch"] * 3
    assert capsys.readouterr().out.count("recipe=small/gdn") == 3


def test_a_named_delta_rule_that_cannot_run_is_an_error(capsys):
    command = [
        "bench",
        "twins",
        "small/gdn",
        "small/gdn",
        "--streams",
        "1",
        "--tokens",
        "32",
        "--device",
        "cpu",
    ]
    assert main([*command, "--set", "model.gated_delta_net.backend=fla"]) == 2
    assert "backend='fla'" in capsys.readouterr().err


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_session.sh"


def run_session(step, folder, python):
    """Run a step of the session with something else in Python's place."""
    (folder / "python").write_text(f"#!/bin/bash\n{python}\n")
    (folder / "python").chmod(0o755)
    environment = {**os.environ, "PYTHON": str(folder / "python"), "LOG": str(folder / "log")}
    command = ["bash", str(SCRIPT), step, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_session_script_names_its_steps(tmp_path):
    done = run_session("nonsense", tmp_path, "exit 0")
    assert done.returncode == 2
    assert (
        "STEP must be tests, kernels, suite, paper, one, lengths, model or compiled, got 'nonsense'"
        in done.stderr
    )


@pytest.mark.parametrize("step", ["paper", "one", "model"])
def test_a_step_whose_first_command_fails_runs_the_others_and_fails(tmp_path, step):
    failing = 'echo "$@" >> "$LOG"; [ "$(wc -l < "$LOG")" -gt 1 ] || exit 3'
    done = run_session(step, tmp_path, failing)
    assert done.returncode == 3
    assert len((tmp_path / "log").read_text().splitlines()) == 2
    assert run_session(step, tmp_path, "exit 0").returncode == 0


@pytest.mark.parametrize("step", ["tests", "kernels", "compiled"])
def test_a_step_of_one_command_fails_with_it(tmp_path, step):
    assert run_session(step, tmp_path, "exit 3").returncode == 3
    assert run_session(step, tmp_path, "exit 0").returncode == 0


def test_errors_of_a_measurement_are_kept_with_where_they_arose(tmp_path, monkeypatch):
    monkeypatch.setenv("DEVICE", "cpu")
    ours = f'shift 2; exec {sys.executable} -m fwpkm.cli.main "$@" --allow-dirty --shape nonsense'
    assert run_session("lengths", tmp_path, ours).returncode == 2
    said = (tmp_path / "lengths.txt").read_text()
    assert "Traceback" in said
    assert "'nonsense'" in said


def test_every_command_of_the_session_is_one_that_the_tool_takes(tmp_path):
    """The dense form is measured at the shape of the goals, and no flag is misspelt."""
    for step in ("paper", "one", "lengths", "model", "compiled"):
        run_session(step, tmp_path, r'shift 2; printf "%s\037" "$@" >> "$LOG"; echo >> "$LOG"')
    commands = [line.split("\037")[:-1] for line in (tmp_path / "log").read_text().splitlines()]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = [parser.parse_args(command[1:]) for command in commands]
    assert [x.what for x in options] == ["compare"] * 4 + ["lengths", "twins", "twins", "twins"]
    assert any(x.what == "compare" and x.shape == "paper" and "dense" in x.systems for x in options)
    assert {4096, 131072, 1048576} <= set(options[4].lengths)
    assert all(x.settings == ["model.gated_delta_net.backend=auto"] for x in options[5:])
    for x in options[5:]:
        assert read_recipe(x.recipe, x.settings).model.gated_delta_net.backend == "auto"
