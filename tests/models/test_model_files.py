"""A trained model as a folder: the same numbers after loading, and every fault named with its place."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fwpkm.models.decoder import Decoder
from fwpkm.models.files import load_model, save_model
from fwpkm.testing.systems import SYSTEMS, make_system


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", Decoder(make_system("sliding_fwpkm")))
    return tmp_path / "model"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_loaded_model_gives_the_same_logits(tmp_path: Path, system: str) -> None:
    model = Decoder(make_system(system, initializer_range=0.1)).eval()
    save_model(tmp_path, model)
    loaded = load_model(tmp_path)
    assert (loaded.config, loaded.training) == (model.config, False)
    ids = torch.randint(40, (2, 11))
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_transformers_loads_it_too(saved: Path) -> None:
    hf = pytest.importorskip("fwpkm.models.hf")
    ids = torch.randint(40, (2, 11))
    expected = load_model(saved)(ids).logits
    torch.testing.assert_close(hf.FwPKMForCausalLM.from_pretrained(saved).eval()(ids).logits, expected)


def test_a_model_that_finds_no_room_leaves_the_one_before(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=f"No space left on device: '{saved / 'model.safetensors'}'"):
        save_model(saved, Decoder(make_system("sliding_fwpkm")))
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_missing_files_are_named(saved: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json in"):
        load_model(saved / "nowhere")
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors in"):
        load_model(saved)


def test_a_cut_file_is_named(saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load_model(saved)


def test_weights_that_do_not_fit_are_all_named(saved: Path) -> None:
    file = saved / "model.safetensors"
    weights = load_file(file)
    weights["decoder.more"] = weights.pop("decoder.norm.weight")
    weights["decoder.embed.weight"] = torch.zeros(3, 4)
    save_file(weights, file)
    with pytest.raises(
        ValueError, match=r"embed\.weight must be \(40, 16\), got \(3, 4\); more is unknown; norm"
    ):
        load_model(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON file"),
        ('{"model_type": "llama"}', "of another kind"),
        (json.dumps({"model_type": "fwpkm", "model": {"dims": 3}}), "did you mean 'dim'"),
    ],
)
def test_a_config_of_another_kind_is_refused(saved: Path, text: str, message: str) -> None:
    (saved / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_model(saved)
