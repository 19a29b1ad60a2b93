"""`FwPKMForCausalLM` to and from files: nothing lost, nothing guessed, nothing unsafe."""

import copy
import pickle

import pytest
import torch

from fwpkm.models.config import DecoderConfig
from fwpkm.testing.systems import SYSTEMS

transformers = pytest.importorskip("transformers", minversion="5.24")
from fwpkm.models.hf import FwPKMForCausalLM, FwPKMModel  # noqa: E402
from fwpkm.testing.hf_models import make_hf_model as make_model  # noqa: E402
from fwpkm.testing.hf_models import make_tokens  # noqa: E402

transformers.utils.logging.disable_progress_bar()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("shard", ["1GB", "10KB"])
def test_saved_and_loaded_is_the_same(system, shard, tmp_path):
    model, x = make_model(system, torch.float32), make_tokens()
    with torch.no_grad():  # what was drawn must not hide what was not loaded
        for p in model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "10KB")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is FwPKMForCausalLM
    assert not loaded.training
    theirs = {**dict(loaded.named_parameters()), **dict(loaded.named_buffers())}
    for name, x_own in [*model.named_parameters(), *model.named_buffers()]:
        torch.testing.assert_close(theirs[name], x_own, msg=name, rtol=0, atol=0)
    torch.testing.assert_close(loaded(x).logits, model(x).logits)  # rounding depends on the alignment


def test_random_tables_are_drawn_and_not_saved(tmp_path):
    model = make_model(dtype=torch.float32)
    model.save_pretrained(tmp_path)
    assert not any("initial_values" in name for name in model.state_dict())
    loaded = FwPKMForCausalLM.from_pretrained(tmp_path)
    for block in (0, 2):
        table = loaded.decoder.blocks[block].memory.initial_values
        assert torch.equal(table, model.decoder.blocks[block].memory.initial_values)


def test_saved_keys_win_over_drawn_ones(tmp_path):
    model = make_model(dtype=torch.float32)
    model.decoder.blocks[0].memory.initial_keys.add_(1.0)
    model.save_pretrained(tmp_path)
    keys = FwPKMForCausalLM.from_pretrained(tmp_path).decoder.blocks[0].memory.initial_keys
    assert torch.equal(keys, model.decoder.blocks[0].memory.initial_keys)


@pytest.mark.parametrize("system", SYSTEMS)
def test_half_precision_keeps_memories_in_single(system, tmp_path):
    model, x = make_model(system, torch.float32), make_tokens()
    model.save_pretrained(tmp_path)
    half = FwPKMForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == half(x).logits.dtype == torch.bfloat16
    assert half.decoder.embed.weight.dtype == torch.bfloat16
    for block in half.decoder.blocks:
        if block.memory is not None:
            exact = [x for name, x in block.memory.named_buffers() if "initial" in name or "temp" in name]
            exact += [x for name, x in block.memory.named_parameters() if "initial" in name or "temp" in name]
            assert {x.dtype for x in exact} == {torch.float32}
    expected = copy.deepcopy(model).to(torch.bfloat16)(x).logits
    torch.testing.assert_close(half(x).logits, expected)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    model = make_model(dtype=torch.float32)
    tensors = model.state_dict()
    del tensors["decoder.norm.weight"]
    tensors["decoder.nrom.weight"] = torch.zeros(16)
    model.save_pretrained(tmp_path, state_dict=tensors)
    with pytest.raises(ValueError, match=r"missing: decoder\.norm\.weight; unknown: decoder\.nrom\.weight"):
        FwPKMForCausalLM.from_pretrained(tmp_path)
    tensors = model.state_dict()
    tensors["decoder.norm.weight"] = torch.zeros(17)
    model.save_pretrained(tmp_path, state_dict=tensors)
    with pytest.raises(ValueError, match=r"of another shape: decoder\.norm\.weight"):
        FwPKMForCausalLM.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    with pytest.raises(ValueError, match=r"norm\.weight \(\(17,\) in the file, \(16,\) by the config\)"):
        FwPKMForCausalLM.from_pretrained(tmp_path)


def test_loading_info_on_request(tmp_path):
    make_model(dtype=torch.float32).save_pretrained(tmp_path)
    model, info = FwPKMForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(model, FwPKMForCausalLM)
    assert not info["missing_keys"]


def test_config_of_a_loaded_model_is_a_decoder_config(tmp_path):
    make_model(dtype=torch.float32).save_pretrained(tmp_path)
    assert isinstance(FwPKMForCausalLM.from_pretrained(tmp_path).decoder.config, DecoderConfig)


@pytest.mark.parametrize(
    "changes",
    [
        {"initial_values": "learned", "initial_keys": "random"},
        {"initial_values": "random", "initial_keys": "learned"},
        {"initial_values": "learned", "learn_temperature": True},
    ],
)
def test_trained_starts_of_memories_come_back(changes, tmp_path):
    fwpkm = {**make_model().config.model["fwpkm"], **changes}
    model, x = make_model(dtype=torch.float32, fwpkm=fwpkm), make_tokens()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.save_pretrained(tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        memory = FwPKMForCausalLM.from_pretrained(tmp_path, dtype=dtype).decoder.blocks[0].memory
        for name in ("initial_keys", "initial_values", "log_temperature"):
            ours = getattr(model.decoder.blocks[0].memory, name)
            torch.testing.assert_close(getattr(memory, name), ours, rtol=0, atol=0, msg=name)
    torch.testing.assert_close(FwPKMForCausalLM.from_pretrained(tmp_path)(x).logits, model(x).logits)


@pytest.mark.parametrize("system", ["delta_fwmlp", "mixed"])
def test_saved_and_loaded_models_write_the_same_text(system, tmp_path):
    model, x = make_model(system, torch.float32), make_tokens()
    model.save_pretrained(tmp_path)
    loaded = FwPKMForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.generate(x, max_new_tokens=12), model.generate(x, max_new_tokens=12))


def test_base_model_and_language_model_read_the_same_files(tmp_path):
    model, x = make_model("mixed", torch.float32), make_tokens()
    model.save_pretrained(tmp_path / "lm")
    base = transformers.AutoModel.from_pretrained(tmp_path / "lm")
    assert type(base) is FwPKMModel
    torch.testing.assert_close(base(x).last_hidden_state, model.decoder(x).hidden)
    base.save_pretrained(tmp_path / "base")
    again = FwPKMForCausalLM.from_pretrained(tmp_path / "base")
    torch.testing.assert_close(again(x).logits, model(x).logits)


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, "auto"])
def test_device_map_places_the_whole_model(device_map, tmp_path):
    pytest.importorskip("accelerate")
    model, x = make_model(dtype=torch.float32), make_tokens()
    model.save_pretrained(tmp_path)
    loaded = FwPKMForCausalLM.from_pretrained(tmp_path, device_map=device_map)
    y = loaded(x.to(loaded.device)).logits.cpu()
    torch.testing.assert_close(y, model(x).logits)


def test_safe_pickles_are_read(tmp_path):
    model, x = make_model(dtype=torch.float32), make_tokens()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    torch.testing.assert_close(FwPKMForCausalLM.from_pretrained(tmp_path)(x).logits, model(x).logits)


class _Payload:
    """Runs code where it is unpickled without care."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def test_unsafe_pickles_are_refused_and_not_run(tmp_path):
    model, trace = make_model(dtype=torch.float32), tmp_path / "ran"
    model.config.save_pretrained(tmp_path)
    torch.save({**model.state_dict(), "extra": _Payload(trace)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        FwPKMForCausalLM.from_pretrained(tmp_path)
    assert not trace.exists()
