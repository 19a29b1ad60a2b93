"""`fwpkm attach`: an adapter for a model in a folder, which changes nothing until it is trained."""

import re
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5.24")
import fwpkm  # noqa: E402
from fwpkm.cli.main import main  # noqa: E402
from fwpkm.memory.files import read_file  # noqa: E402
from fwpkm.models.attach import attention_window, load_base, memories  # noqa: E402
from fwpkm.testing.base_models import make_base  # noqa: E402
from fwpkm.testing.hf_models import make_tokens  # noqa: E402

transformers.utils.logging.disable_progress_bar()
SMALL = ["--set", "num_subkeys=8", "--set", "key_dim=8", "--set", "value_dim=8", "--set", "topk=2"]


@pytest.fixture
def folder(tmp_path):
    make_base(dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    return tmp_path


def command(folder, *more):
    return main(["attach", str(folder / "base"), "--out", str(folder / "adapter"), *more])


def test_an_adapter_is_made_and_attached(folder, capsys):
    assert command(folder, "--layers", "0", "2", *SMALL) == 0
    said = capsys.readouterr().out
    assert "2 memories before layers 0, 2 of LlamaForCausalLM, each with 64 slots of 8 numbers" in said
    base, x = load_base(folder / "base"), make_tokens()
    assert base.dtype == torch.bfloat16
    before = base(x).logits
    fwpkm.load_adapter(base, folder / "adapter")
    assert torch.equal(base(x).logits, before)
    assert f"{sum(p.numel() for m in memories(base).values() for p in m.parameters()) / 1e6:.2f}M" in said


def test_an_adapter_is_described_and_verified_as_a_memory_file_is(folder, capsys):
    command(folder, "--layers", "0", "2", *SMALL)
    capsys.readouterr()
    assert main(["memory", "info", str(folder / "adapter")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Adapter, ")
    assert "layers: [0, 2]" in said
    assert "base: llama" in said
    assert main(["memory", "verify", str(folder / "adapter")]) == 0


def test_a_window_goes_with_the_adapter(folder, capsys):
    assert command(folder, "--layers", "1", "--window", "4", "--sinks", "2", *SMALL) == 0
    base = fwpkm.load_adapter(load_base(folder / "base"), folder / "adapter")
    assert (attention_window(base).window, attention_window(base).sinks) == (4, 2)
    (folder / "adapter").unlink()
    assert command(folder, "--layers", "1", "--window", "0", *SMALL) == 2
    assert "window must be at least 1" in capsys.readouterr().err


def test_the_seed_decides(folder):
    found = []
    for seed in ("1", "1", "2"):
        assert command(folder, "--layers", "1", "--seed", seed, *SMALL) == 0
        found.append(read_file(folder / "adapter").tensors["1.q_proj.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--layers", "5", "--set", "top=1"],
            r"numbers from 0 to 2, got 5; .*unknown field 'top'; did you mean 'topk'",
        ),
        (["--layers", "1", "--set", "topk"], "must be NAME=VALUE"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(folder, capsys, more, message):
    assert command(folder, *more) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (folder / "adapter").exists()


@pytest.mark.parametrize(
    "name", ["{here}/base", "./base", "../base", "~/base", "models/base/newest", Path("/base")]
)
def test_a_folder_that_is_not_there_is_named(name, tmp_path):
    name = name.format(here=tmp_path) if isinstance(name, str) else name
    with pytest.raises(FileNotFoundError, match=f"load_base: no such folder: {name}"):
        load_base(name)
