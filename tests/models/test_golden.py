"""The numbers of the authors' release, and the program that holds us to them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fwpkm.models import release_config
from fwpkm.testing.golden import load_case, main, run_case
from fwpkm.testing.golden_model import GRADIENT_TOLERANCE, gradient_noise, model_errors

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))


@pytest.mark.parametrize("name", CASES)
def test_every_golden_case_is_within_its_tolerance(name):
    rows = run_case(GOLDEN / f"{name}.json")
    assert rows
    assert not [row for row in rows if not row[1] <= row[2]]


def test_only_gradients_of_decays_are_held_to_their_noise_instead():
    rows = run_case(GOLDEN / "model_gdn.json", strict=True)
    above = [name for name, error, tolerance in rows if not error <= tolerance]
    assert all(name.endswith(("linear_attn.A_log", "linear_attn.dt_bias")) for name in above), above


def decay_errors(case, tensors):
    rows = model_errors(case, tensors, strict=True)
    return [error for name, error, _ in rows if name.endswith(("A_log", "dt_bias"))]


def test_without_a_memory_gradients_of_decays_have_the_noise_of_the_release(monkeypatch):
    case, tensors = load_case(GOLDEN / "model_plain_gdn.json")
    release = decay_errors(case, tensors)
    assert max(release) < GRADIENT_TOLERANCE
    translate = release_config._gated_delta_net
    monkeypatch.setattr(
        release_config, "_gated_delta_net", lambda get: translate(get) | {"arithmetic": "accurate"}
    )
    assert max(decay_errors(case, tensors)) > 5 * max(release)


def test_the_noise_of_well_conditioned_gradients_is_far_below_the_tolerance():
    case, tensors = load_case(GOLDEN / "model_plain_gdn.json")
    weights = {n.removeprefix("state."): x for n, x in tensors.items() if n.startswith("state.")}
    noise = gradient_noise(case["config"], weights, tensors["input_ids"])
    assert noise.keys() == weights.keys()
    for name, moved in noise.items():
        if not name.endswith(("A_log", "dt_bias")):
            assert 0 < moved < 1e-5 * tensors[f"grad.{name}"].norm(), name


def copy_case(folder, name, change):
    case, tensors = load_case(GOLDEN / f"{name}.json")
    change(case, tensors)
    (folder / f"{name}.json").write_text(json.dumps(case))
    save_file(tensors, folder / f"{name}.safetensors")


def nudge(result, by):
    def change(case, tensors):
        tensors[result] = tensors[result] + by * tensors[result].norm() / tensors[result].numel() ** 0.5

    return change


@pytest.mark.parametrize(
    ("name", "result", "by"),
    [
        ("layer_base", "output", 1e-5),
        ("layer_base", "grad_q", 1e-5),
        ("model_attention", "logits", 1e-4),
        ("model_attention", "loss", 1e-4),
        ("model_attention", "gates", 1e-4),
        ("model_attention", "final.model.layers.1.fwpkm.values", 1e-3),
        ("model_attention", "grad.model.layers.1.fw_q_proj.weight", 1e-3),
        ("model_gdn", "grad.model.layers.3.linear_attn.A_log", 0.3),
    ],
)
def test_other_numbers_fail(name, result, by, tmp_path, capsys):
    copy_case(tmp_path, name, nudge(result, by))
    assert main([str(tmp_path)]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert failed
    assert all(result in line for line in failed), failed


def test_other_slots_and_missing_gradients_fail(tmp_path, capsys):
    def change(case, tensors):
        tensors["slots"] = (tensors["slots"] + 1) % 256
        tensors["grad.model.layers.1.fwpkm.keys"] = torch.ones(32, 16)

    copy_case(tmp_path, "model_attention", change)
    assert main([str(tmp_path)]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 2, failed


def test_a_case_that_cannot_run_fails_alone(tmp_path, capsys):
    copy_case(tmp_path, "layer_base", lambda case, tensors: None)
    copy_case(tmp_path, "layer_stream", lambda case, tensors: case["layer"].update(lookahed=1))
    (tmp_path / "other.json").write_text("{}")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "unknown option 'lookahed'" in said
    assert "no case of a known form" in said
    assert "3 cases, 2 results above tolerance" in said


def test_a_folder_without_cases_is_refused(tmp_path):
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
