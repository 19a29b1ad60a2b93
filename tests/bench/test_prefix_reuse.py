"""The benchmark of reused prefixes compares equal answers, or nothing."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from fwpkm.models.decoder import Decoder
from fwpkm.nested import to_mapping
from fwpkm.testing.systems import SYSTEMS, make_system
from fwpkm.toml import dump_toml

SCRIPT = Path(__file__).parents[2] / "benchmarks/prefix_reuse.py"


@pytest.fixture(scope="module")
def reuse():
    spec = importlib.util.spec_from_file_location("prefix_reuse", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_answers_alike_from_its_memory_and_its_file(reuse, name):
    model = Decoder(make_system(name)).eval()
    found = reuse.measure_reuse(model, document_tokens=23, question_tokens=4, piece=9, runs=2, runs_again=1)
    assert found.again.runs == 1
    assert found.held.runs == found.loaded.runs == 2
    assert found.file_bytes > 0
    numbers = json.loads(json.dumps(found.to_dict()))
    assert numbers["speedup"] == pytest.approx(numbers["again"]["median"] / numbers["held"]["median"])
    assert numbers["document_tokens"] == 23


def test_answers_that_differ_are_not_compared(reuse):
    scores = torch.zeros(1, 3)
    reuse.check_alike({"again": scores, "held": scores.clone()})
    with pytest.raises(RuntimeError, match=r"as 'again' does, got others from \['loaded'\]"):
        reuse.check_alike({"again": scores, "held": scores.clone(), "loaded": scores + 1e-6})


def without_none(mapping):
    return {
        name: without_none(value) if isinstance(value, dict) else value
        for name, value in mapping.items()
        if value is not None
    }


def test_the_script_prints_one_line_a_length(reuse, tmp_path, capsys):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(dump_toml({"model": without_none(to_mapping(make_system("sliding_fwpkm")))}))
    command = [str(recipe), "--tokens", "9", "17", "--question-tokens", "3", "--runs", "1"]
    assert reuse.main(command) == 0
    assert "17 tokens: read again" in capsys.readouterr().out
    assert reuse.main([*command, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["document_tokens"] for line in lines] == [9, 17]


def test_rows_of_a_trained_model_are_kept_with_command_and_commit(reuse, tmp_path):
    out = tmp_path / "rows.json"
    command = ["small", "--tokens", "40", "--question-tokens", "3", "--runs", "1", "--clock", "cpu"]
    assert reuse.main([*command, "--out", str(out)]) == 0
    kept = json.loads(out.read_text())
    assert (kept["model"], kept["clock"]) == ("small", "cpu")
    assert kept["machine"]["commit"]
    assert [row["document_tokens"] for row in kept["rows"]] == [40]
    assert kept["rows"][0]["again"]["median"] > 0


def test_settings_of_a_trained_model_are_refused(reuse):
    with pytest.raises(ValueError, match="--set changes recipes, and small is a trained model"):
        reuse.main(["small", "--set", "model.dim=8"])
