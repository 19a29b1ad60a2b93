"""The measurements of whole models: they run, say what they did, and break off loudly."""

import json
import shutil
import sys

import pytest
import torch

from fwpkm.bench.model import DECODED, bench_model, measure_decoding, measure_prefill, measure_training_step
from fwpkm.bench.parity import ParityError
from fwpkm.cli.main import main
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system


def make_model():
    torch.manual_seed(0)
    return Decoder(make_system("mixed", fwpkm={"num_subkeys": 8, "key_dim": 8, "value_dim": 12, "topk": 3}))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_measured_step_trains(checkpointing):
    model = make_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    row = measure_training_step(model, 24, checkpointing=checkpointing)
    assert row["losses"][-1] < row["losses"][0]
    assert 0 < row["p20_s"] <= row["median_s"] <= row["p80_s"]
    assert row["runs"] == 3
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert model.gradient_checkpointing == checkpointing
    assert row["peak_bytes"] is None or row["peak_bytes"] > 0


def test_checkpointing_changes_no_loss():
    rows = [measure_training_step(make_model(), 24, checkpointing=flag) for flag in (False, True)]
    assert rows[0]["losses"] == pytest.approx(rows[1]["losses"], rel=1e-4)


def test_a_stream_is_read_to_its_end_in_pieces():
    model = make_model()
    rows = list(measure_prefill(model, 75, 10))
    assert [row["tokens"] for row in rows] == [10, 20, 40, 75]
    assert [row["runs"] for row in rows] == [1, 1, 2, 4]  # pieces since the row before
    assert all(0 < row["p20_s"] <= row["median_s"] <= row["p80_s"] <= row["seconds"] for row in rows)
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    torch.manual_seed(0)
    ids = torch.randint(40, (1, 75))
    with torch.no_grad():
        assert rows[-1]["state_bytes"] <= model(ids).cache.num_bytes * 2
    assert rows[-1]["state_bytes"] > rows[0]["state_bytes"]


def test_single_tokens_are_decoded_behind_a_stream():
    model, seen = make_model(), []
    model.register_forward_hook(
        lambda _, args, output: seen.append((args[0].shape[1], args[1], output.cache))
    )
    row = measure_decoding(model, 25, 10)
    sizes = [size for size, _, _ in seen]
    assert sizes[:3] == [10, 10, 5]
    assert set(sizes[3:]) == {1}
    assert len(sizes) - 3 > DECODED == row["runs"]
    before = [None, *(cache for _, _, cache in seen[:-1])]
    assert all(given is cache for (_, given, _), cache in zip(seen, before, strict=True))
    assert row["tokens"] == 25
    assert 0 < row["p20_s"] <= row["median_s"] <= row["p80_s"]
    assert row["tokens_s"] == pytest.approx(1 / row["mean_s"])


def test_compiled_blocks_that_answer_otherwise_are_not_timed(monkeypatch):
    made = []
    monkeypatch.setattr(Decoder, "compile_blocks", lambda model: made.append(model))
    assert measure_decoding(model := make_model(), 25, 10, compiled=True)["compiled"]
    assert made == [model]
    monkeypatch.setattr(Decoder, "compile_blocks", lambda model: model.embed.weight.data.neg_())
    with pytest.raises(ParityError, match="compiled blocks: logits off by"):
        measure_decoding(make_model(), 25, 10, compiled=True)


def test_the_command_measures_in_a_process_of_its_own(capsys):
    command = [
        "bench",
        "model",
        "small/gdn",
        "--only",
        "prefill",
        "decode",
        "--longest",
        "64",
        "--piece",
        "32",
        "--device",
        "cpu",
        "--json",
    ]
    assert main([*command, "--set", "model.num_layers=1"]) == 0
    found = json.loads(capsys.readouterr().out)
    parity, *rows = found["rows"]
    assert parity["what"] == "parity"
    assert parity["relative_error"] < 1e-3
    assert [(row["what"], row["tokens"]) for row in rows] == [
        ("prefill", 32),
        ("prefill", 64),
        ("decode", 64),
    ]
    assert {row["gdn_backend"] for row in rows} == {"torch"}
    assert found["machine"]["torch"] == torch.__version__
    assert {row["recipe"] for row in found["rows"]} == {"small/gdn"}
    assert rows[1]["state_bytes"] == rows[0]["state_bytes"]  # of recurrences alone


def test_what_cannot_be_measured_is_refused_before_it_starts(capsys):
    assert main(["bench", "model", "small/gdn", "--piece", "0"]) == 2
    assert "piece must be at least 1, got piece=0" in capsys.readouterr().err
    assert main(["bench", "model", "small/gdm"]) == 2
    assert "did you mean 'small/gdn'" in capsys.readouterr().err


def test_a_measurement_that_breaks_off_says_so(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    sizes = {"tokens": 8, "longest": 8, "piece": 8}
    with pytest.raises(RuntimeError, match="measuring 'train' broke off with exit code 1"):
        list(bench_model(recipe="small/gdn", settings=(), whats=["train"], **sizes))
