"""Systems and context lengths compared: every row is a measurement, and none is made after a failed check."""

import csv
import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from fwpkm.bench import compare, lengths
from fwpkm.bench.compare import append_rows, compare_systems
from fwpkm.bench.lengths import draw_lengths, measure_lengths
from fwpkm.bench.shapes import SHAPES
from fwpkm.bench.systems import SYSTEMS, make_system
from fwpkm.bench.twins import compare_twins
from fwpkm.cli.main import main

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
    rows = {row["system"]: row for row in compare_systems(["fwpkm", "attention"], "tiny", **HOW)}
    assert list(rows) == ["fwpkm", "attention", "core", "core hot"]
    for row in rows.values():
        assert 0 < row["p20_s"] <= row["median_s"] <= row["p80_s"]
        assert row["tokens_s"] == pytest.approx(80 / row["median_s"])
    assert 0 < rows["core"]["share_of_bytes"] < 1
    assert "share_of_bytes" not in rows["attention"]
    assert rows["core"]["times_spread"] == 1.0


def test_a_system_that_cannot_run_says_why_and_the_others_are_measured(monkeypatch):
    monkeypatch.setattr("fwpkm.bench.systems.importlib.util.find_spec", lambda name: None)
    rows = {row["system"]: row for row in compare_systems(["peer", "attention"], "tiny", **HOW)}
    assert "pip install fast-weight-product-key-memory" in rows["peer"]["failed"]
    assert rows["attention"]["median_s"] > 0


@pytest.mark.parametrize("measure", ["compare", "lengths"])
def test_nothing_is_timed_after_a_failed_check(monkeypatch, measure):
    def fail(**_):
        raise RuntimeError("bench: fast and dense form differ")

    monkeypatch.setattr(compare, "check_parity", fail)
    monkeypatch.setattr(lengths, "check_parity", fail)
    rows = compare_systems(["attention"], "tiny", **HOW)
    if measure == "lengths":
        rows = measure_lengths([32], "tiny", device="cpu", dtype="float32")
    with pytest.raises(RuntimeError, match="differ"):
        next(iter(rows))


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


def test_lengths_are_measured_and_drawn():
    rows = list(measure_lengths([32, 64], "tiny", device="cpu", dtype="float32", decoded=2))
    assert [(row["system"], row["what"], row["tokens"]) for row in rows[:4]] == [
        ("fwpkm", "prefill", 32), ("fwpkm", "decode", 32), ("fwpkm", "prefill", 64), ("fwpkm", "decode", 64),
    ]  # fmt: skip
    for what in ("prefill", "decode"):
        drawing = draw_lengths(rows, what)
        ET.fromstring(drawing)
        assert all(name in drawing for name in ("fwpkm", "gdn", "attention"))


def test_rows_are_appended_and_new_columns_leave_old_rows_as_they_were(tmp_path):
    path = tmp_path / "results" / "rows.csv"
    append_rows(path, [{"what": "train", "median_s": 0.5}])
    append_rows(path, [{"what": "train", "peak_bytes": 7}])
    first, second = csv.DictReader(path.read_text().splitlines())
    assert (first["median_s"], first["peak_bytes"], second["peak_bytes"]) == ("0.5", "", "7")
    assert first["commit"]
    assert first["device"]


def test_the_commands_print_append_and_draw(capsys, tmp_path):
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
    assert main([*command, "--append", str(tmp_path / "rows.csv"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["system"] for row in printed["rows"]] == ["attention", "core", "core hot"]
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 4
    assert (
        main(
            [
                "bench",
                "lengths",
                "--shape",
                "tiny",
                "--lengths",
                "32",
                "--device",
                "cpu",
                "--plots",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert (tmp_path / "prefill.svg").read_text().startswith("<svg")
    assert (tmp_path / "decode.svg").exists()


def test_a_model_is_measured_next_to_its_twin():
    rows = list(compare_twins("small/gdn", "small/swa", device="cpu", streams=1, tokens=32, runs=1))
    twin, own, ratio = rows
    assert [row["recipe"] for row in rows] == ["small/swa", "small/gdn", "small/gdn"]
    assert ratio["median"] == pytest.approx(own["median_s"] / twin["median_s"])


def test_twins_are_measured_from_the_command_line(tmp_path, capsys):
    command = ["bench", "twins", "small/gdn", "small/gdn", "--streams", "1", "--tokens", "32", "--runs", "1"]
    assert main([*command, "--device", "cpu", "--append", str(tmp_path / "rows.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [(row["recipe"], row["tokens"]) for row in rows] == [("small/gdn", "32")] * 3
    assert capsys.readouterr().out.count("recipe=small/gdn") == 3


def test_the_session_script_names_its_steps(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "gpu_session.sh"
    done = subprocess.run(["bash", str(script), "nonsense", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "STEP must be tests, suite, paper, lengths or model, got 'nonsense'" in done.stderr
