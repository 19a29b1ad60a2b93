"""`fwpkm convert`: the authors' checkpoints to ours and back, with everything that does not fit refused by name."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fwpkm.cli.main import main
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import load_model, save_model
from fwpkm.models.release import from_release
from fwpkm.models.release_config import decoder_config
from fwpkm.models.release_files import export_release, import_release
from fwpkm.testing.golden import load_case
from fwpkm.testing.systems import make_system

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(params=["model_attention", "model_gdn", "model_plain_gdn"])
def released(request, tmp_path):
    return write_release(tmp_path / "released", request.param)


def write_release(folder, name="model_attention", **changes):
    case, tensors = load_case(GOLDEN / f"{name}.json")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**case["config"], "eos_token_id": 3, **changes}))
    weights = {n.removeprefix("state."): x for n, x in tensors.items() if n.startswith("state.")}
    save_file(weights, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def refusal(capsys, *arguments):
    assert main(["convert", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_there_and_back_gives_the_same_bits_the_same_arithmetic_and_no_notes(released, tmp_path):
    assert main(["convert", str(released), str(tmp_path / "ours")]) == 0
    assert export_release(tmp_path / "ours", tmp_path / "back") == []
    before, after = (load_file(folder / "model.safetensors") for folder in (released, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (released, tmp_path / "back")]
    assert decoder_config(configs[0]) == decoder_config(configs[1])
    assert [config["eos_token_id"] for config in configs] == [3, 3]
    assert (tmp_path / "back" / "tokenizer.json").is_file()


def test_a_converted_model_answers_as_the_release_does_without_its_attention_mask(released, tmp_path):
    import_release(released, tmp_path / "ours")
    config = json.loads((released / "config.json").read_text())
    theirs = from_release(config, load_file(released / "model.safetensors"), attention_kernel="flash").eval()
    ids = torch.randint(97, (2, 40))
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "ours")(ids).logits, theirs(ids).logits)


def test_transformers_reads_what_convert_writes(tmp_path):
    hf = pytest.importorskip("fwpkm.models.hf")
    import_release(write_release(tmp_path / "released"), tmp_path / "ours")
    model = hf.FwPKMForCausalLM.from_pretrained(tmp_path / "ours")
    ids = torch.randint(97, (1, 40))
    with torch.no_grad():
        assert torch.equal(model(ids).logits, load_model(tmp_path / "ours")(ids).logits)
    assert model.config.eos_token_id == 3
    model.save_pretrained(tmp_path / "saved")
    assert export_release(tmp_path / "saved", tmp_path / "back") == []


def test_what_a_release_model_loses_is_said(tmp_path, capsys):
    assert main(["convert", str(write_release(tmp_path / "a")), str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    for part in ("from batch to batch", "layers [1, 3]", "initial_values", "fwpkm_fp32_fw"):
        assert part in said
    assert main(["convert", str(write_release(tmp_path / "c", "model_plain_gdn")), str(tmp_path / "d")]) == 0
    assert "fast weights" not in capsys.readouterr().out, "it has none"


def test_what_our_model_loses_in_the_release_is_said(tmp_path, capsys):
    import_release(write_release(tmp_path / "released"), tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    mapping = model.config.to_dict()
    mapping["fwpkm"] |= {"border": "moved", "table": "stream", "key_lr": 0.5}
    other = Decoder(type(model.config).from_dict(mapping))
    other.load_state_dict(model.state_dict())
    save_model(tmp_path / "streams", other)
    assert main(["convert", str(tmp_path / "streams"), str(tmp_path / "back"), "--to", "release"]) == 0
    said = capsys.readouterr().out
    assert "fwpkm.border: 'moved' here, 'dropped' in the release" in said
    assert "fwpkm.table: 'stream' here, 'batch' in the release" in said
    assert "fwpkm.key_lr: 0.5 here, 1.0 in the release" in said
    assert said.count(" in the release\n") == 3, said


@pytest.mark.parametrize(
    ("system", "parts"),
    [
        ("lact", ["not lact"]),
        ("mixed", ["short convolution"]),
        ("sliding_fwpkm", ["fw_out_gate.weight must be (8, 16)", "layers.2.fw_out_gate.bias must be (8,)"]),
    ],
)
def test_models_that_the_release_has_nothing_like_are_refused(system, parts, tmp_path, capsys):
    save_model(tmp_path / "ours", Decoder(make_system(system)))
    said = refusal(capsys, tmp_path / "ours", tmp_path / "back", "--to", "release")
    assert all(part in said for part in parts), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours"], "nothing half-written"


def test_every_misfit_of_names_and_shapes_is_listed_and_nothing_is_written(tmp_path, capsys):
    folder = write_release(tmp_path / "released")
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    weights["model.layers.0.self_attn.q_prj.weight"] = weights.pop("model.layers.0.self_attn.q_proj.weight")
    weights["model.layers.1.fwpkm.keys"] = weights["model.layers.1.fwpkm.keys"][1:].clone()
    weights["model.layers.1.input_layernorm.weight"] = torch.zeros(64, dtype=torch.int64)
    weights["lm_head.weight"] = torch.zeros(97, 64)
    save_file(weights, folder / "model.safetensors")
    said = refusal(capsys, folder, tmp_path / "ours")
    for part in (
        "model.norm.weight is missing",
        "unknown weight 'model.layers.0.self_attn.q_prj.weight'; did you mean 'model.layers.0.self_attn.q_proj",
        "model.layers.1.fwpkm.keys must be (32, 16) of floats, got (31, 16)",
        "model.layers.1.input_layernorm.weight must be (64,) of floats, got (64,) of torch.int64",
        "lm_head.weight must equal model.embed_tokens.weight",
    ):
        assert part in said, said
    assert not (tmp_path / "ours").exists()


def test_every_misfit_of_the_config_is_listed(tmp_path, capsys):
    folder = write_release(
        tmp_path / "released", fwpkm_heds=2, hidden_size="64", fwpkm_qk_score_type=["dot"], pkm_layers=3
    )
    said = refusal(capsys, folder, tmp_path / "ours")
    for part in (
        "unknown field 'fwpkm_heds'; did you mean 'fwpkm_heads'?",
        "hidden_size must be of type int, got '64'",
        "fwpkm_qk_score_type must be 'idw' or 'dot_product', got ['dot']",
        "pkm_layers must be of type list, got 3",
    ):
        assert part in said, said


class Unsafe:
    """Unpickled, it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x, 2))])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(write, tmp_path, capsys):
    folder = write_release(tmp_path / "released")
    (folder / "model.safetensors").unlink()
    write({"model.norm.weight": torch.zeros(64), "x": Unsafe(tmp_path / "hacked")}, folder / "model.bin")
    said = refusal(capsys, folder, tmp_path / "ours")
    assert "would run code" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["released"]


def test_a_pickle_of_tensors_is_read(tmp_path):
    folder = write_release(tmp_path / "released")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    import_release(folder, tmp_path / "ours")
    export_release(tmp_path / "ours", tmp_path / "back")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert all(torch.equal(weights[name], after[name]) for name in weights)


def test_sharded_weights_are_read_and_shards_elsewhere_refused(tmp_path, capsys):
    folder = write_release(tmp_path / "released")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(weights), folder / "model.safetensors.index.json"
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: weights[name] for name in part}, folder / file)
    assert "name one of a.safetensors, b.safetensors" in refusal(capsys, folder, tmp_path / "ours")
    listed = {name: file for file, part in shards.items() for name in part}
    index.write_text(json.dumps({"weight_map": listed}))
    import_release(folder, tmp_path / "ours")
    assert torch.equal(load_model(tmp_path / "ours").embed.weight, weights["model.embed_tokens.weight"])
    index.write_text(json.dumps({"weight_map": {**listed, "x": "../b.safetensors"}}))
    assert "files must lie beside it, got ../b.safetensors" in refusal(capsys, folder, tmp_path / "more")
    index.write_text(json.dumps({"weight_map": {**listed, "x": "c.safetensors"}}))
    assert "not there: c.safetensors" in refusal(capsys, folder, tmp_path / "more")


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("config.json", "{", "is no JSON file"),
        ("config.json", "[]", "must hold one JSON object, got a list"),
        ("model.safetensors", "nonsense that is long enough", "damaged or no safetensors file"),
        ("model.safetensors", None, "holds no weights"),
        ("config.json", None, "no config.json in"),
    ],
)
def test_missing_and_damaged_files_are_named(file, content, part, tmp_path, capsys):
    folder = write_release(tmp_path / "released")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    assert part in refusal(capsys, folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_folders_that_exist_and_formats_that_do_not_fit_are_refused(tmp_path, capsys):
    folder = write_release(tmp_path / "released")
    assert "exists; name a new folder" in refusal(capsys, folder, folder)
    assert "not in our format" in refusal(capsys, folder, tmp_path / "x", "--to", "release")
    import_release(folder / "model.safetensors", tmp_path / "ours")
    assert "in our format already" in refusal(capsys, tmp_path / "ours", tmp_path / "x")
    assert "no such folder or file" in refusal(capsys, tmp_path / "nowhere", tmp_path / "x")


def test_a_write_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    folder = write_release(tmp_path / "released")

    def break_off(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("fwpkm.models.release_files.shutil.copyfile", break_off)
    with pytest.raises(OSError, match="no space"):
        import_release(folder, tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["released"]
