"""Adapter files: the same logits afterwards, on the base that they were trained for and no other."""

import pytest
import torch

pytest.importorskip("transformers", minversion="5.24")
import fwpkm
from fwpkm.memory.files import MemoryFile, read_file, write_file
from fwpkm.models.attach import memories
from fwpkm.testing.base_models import TINY, make_attached, make_base
from fwpkm.testing.hf_models import make_tokens

KINDS = ({}, {"initial_values": "zero"}, {"initial_values": "learned", "initial_keys": "learned"})


@pytest.mark.parametrize("changes", [*KINDS, {"learn_temperature": True, "bias": False, "num_heads": 2}])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_loaded_adapters_give_the_same_logits(tmp_path, family, changes):
    model, x = make_attached(family, (0, 2), **changes), make_tokens()
    with torch.no_grad():
        for memory in memories(model).values():
            memory.initial_keys.add_(0.1)
            memory.log_temperature.add_(0.1 if "learn_temperature" in changes else 0)
            if memory.initial_values is not None:
                memory.initial_values[3] += 1
    assert fwpkm.save_adapter(model, tmp_path / "a") == (tmp_path / "a").stat().st_size
    base = make_base(family)
    assert fwpkm.load_adapter(base, tmp_path / "a") is base
    assert list(memories(base)) == [0, 2]
    assert torch.equal(base(x).logits, model(x).logits)


def test_a_file_holds_no_rows_that_the_seed_draws(tmp_path):
    sizes = {}
    for name, changes in (("small", {}), ("large", {"num_subkeys": 32})):
        model = make_attached(layers=(1,), **{"initial_values": "learned", **changes})
        with torch.no_grad():
            memories(model)[1].initial_values[[2, 5, 60]] += 1
        fwpkm.save_adapter(model, tmp_path / name)
        tensors = read_file(tmp_path / name).tensors
        assert tensors["1.changed_slots"].tolist() == [2, 5, 60]
        sizes[name] = sum(x.numel() for x in tensors.values())
    assert sizes["large"] - sizes["small"] == 2 * (32 - 8) * 4  # the sub-keys alone


def test_saving_changes_nothing(tmp_path):
    model, x = make_attached(initial_values="learned"), make_tokens()
    before, noise = model(x).logits, torch.get_rng_state()
    fwpkm.save_adapter(model, tmp_path / "a")
    assert torch.equal(model(x).logits, before)
    assert torch.equal(torch.get_rng_state(), noise)


def test_a_base_in_another_precision_is_the_same_base(tmp_path):
    model = make_attached(dtype=torch.float32)
    fwpkm.save_adapter(model, tmp_path / "a")
    half = fwpkm.load_adapter(make_base(dtype=torch.bfloat16), tmp_path / "a")
    assert memories(half)[1].q_proj.weight.dtype == torch.bfloat16
    mixed = fwpkm.load_adapter(make_base(dtype=torch.bfloat16), tmp_path / "a", dtype=torch.float32)
    assert torch.equal(memories(mixed)[1].q_proj.weight, memories(model)[1].q_proj.weight)


def test_adapters_of_a_decoder_fit_it_under_any_head(tmp_path):
    model, x = make_attached(), make_tokens()
    fwpkm.save_adapter(model, tmp_path / "a")
    bare = fwpkm.load_adapter(make_base().model, tmp_path / "a")
    assert torch.equal(model.lm_head(bare(x).last_hidden_state), model(x).logits)


def test_other_bases_are_refused_with_all_that_differs(tmp_path):
    fwpkm.save_adapter(make_attached(), tmp_path / "a")
    wider = make_base(num_hidden_layers=4, intermediate_size=64)
    message = r"trained for another base.*intermediate_size is 48 in the file and 64.*num_hidden_layers.*weights differ"
    with pytest.raises(ValueError, match=message):
        fwpkm.load_adapter(wider, tmp_path / "a")
    with pytest.raises(ValueError, match="model_type is 'llama' in the file and 'qwen2'"):
        fwpkm.load_adapter(make_base("qwen2"), tmp_path / "a", check_weights=False)
    tuned = make_base()
    with torch.no_grad():
        tuned.model.norm.weight.mul_(1.5)
    with pytest.raises(ValueError, match=r"1 of \d+ weights differ: norm\.weight.*check_weights=False"):
        fwpkm.load_adapter(tuned, tmp_path / "a")
    assert not hasattr(tuned.model.layers[1], "fwpkm")
    fwpkm.load_adapter(tuned, tmp_path / "a", check_weights=False)
    with pytest.raises(ValueError, match="has memories already"):
        fwpkm.load_adapter(tuned, tmp_path / "a", check_weights=False)


def test_files_that_are_no_adapters_are_refused(tmp_path):
    model = make_attached()
    with pytest.raises(OSError, match="no such file"):
        fwpkm.load_adapter(make_base(), tmp_path / "none")
    (tmp_path / "text").write_text("no adapter")
    with pytest.raises(ValueError, match="damaged, or not a memory file"):
        fwpkm.load_adapter(make_base(), tmp_path / "text")
    layer = memories(model)[1]
    layer(torch.randn(1, 5, 32).double())[1].save(tmp_path / "state", layer)
    with pytest.raises(ValueError, match="must hold an adapter, got a FwPKMState"):
        fwpkm.load_adapter(make_base(), tmp_path / "state")
    fwpkm.save_adapter(model, tmp_path / "a")
    content = bytearray((tmp_path / "a").read_bytes())
    content[-5] ^= 1
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        fwpkm.load_adapter(make_base(), tmp_path / "a")
    with pytest.raises(ValueError, match="has no memories"):
        fwpkm.save_adapter(make_base(), tmp_path / "b")


def forged(tmp_path, change):
    """Write an adapter whose tensors were tampered with, hashes and all."""
    fwpkm.save_adapter(make_attached(layers=(1,)), tmp_path / "a")
    file = read_file(tmp_path / "a")
    tensors = dict(file.tensors)
    change(tensors) if callable(change) else tensors.update(change)
    header = {name: x for name, x in file.header.items() if name not in ("tensors", "version")}
    write_file(tmp_path / "a", MemoryFile(header=header, tensors=tensors))
    return tmp_path / "a"


def lacks_one(tensors):
    del tensors["1.q_proj.bias"]
    tensors["other"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lacks_one, "1.q_proj.bias is missing; other is unknown"),
        ({"1.out_proj.weight": torch.zeros(3)}, r"1.out_proj.weight must be \(32, 8\), got \(3,\)"),
        ({"1.changed_slots": torch.tensor([64]), "1.changed_rows": torch.zeros(1, 8)}, "within a table"),
        ({"1.changed_slots": torch.zeros(1), "1.changed_rows": torch.zeros(1, 8)}, "within a table"),
        ({"1.changed_rows": torch.zeros(2, 8)}, "within a table"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_nothing_stays_attached(tmp_path, change, message):
    base = make_base()
    with pytest.raises(ValueError, match=message):
        fwpkm.load_adapter(base, forged(tmp_path, change))
    fwpkm.attach(base, [0], TINY)
