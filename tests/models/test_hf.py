"""`FwPKMForCausalLM` by itself: its config, its outputs, its files, its embeddings."""

import copy
import importlib
import json
import sys

import pytest
import torch

from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import SYSTEMS, make_system

transformers = pytest.importorskip("transformers")
from fwpkm.models.hf import FwPKMCache, FwPKMForCausalLM, FwPKMHFConfig  # noqa: E402

transformers.utils.logging.disable_progress_bar()


def make_model(system="sliding_fwpkm", dtype=torch.float64, **changes):
    torch.set_default_dtype(dtype)
    model = FwPKMForCausalLM(FwPKMHFConfig(make_system(system, **changes), pad_token_id=0, eos_token_id=1))
    torch.set_default_dtype(torch.float32)
    return model.eval()


def make_tokens(B=2, T=13, vocab=40):
    return torch.randint(2, vocab, (B, T))


@pytest.mark.parametrize("system", SYSTEMS)
def test_config_survives_json_and_the_auto_class(system, tmp_path):
    decoder_config = make_system(system)
    config = FwPKMHFConfig(decoder_config, eos_token_id=5, use_cache=False)
    config.save_pretrained(tmp_path)
    loaded = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is FwPKMHFConfig
    assert loaded.decoder_config == decoder_config
    assert (loaded.eos_token_id, loaded.use_cache, loaded.pad_token_id) == (5, False, None)
    assert json.loads((tmp_path / "config.json").read_text())["model"] == decoder_config.to_dict()


def test_config_answers_to_transformers_names_and_writes_through():
    config = FwPKMHFConfig(make_system("full"))
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (40, 16, 3)
    assert config.tie_word_embeddings
    config.vocab_size = 44
    assert config.decoder_config == make_system("full", vocab_size=44)
    with pytest.raises(ValueError, match="vocab_size"):
        config.vocab_size = 0


def test_config_refuses_what_the_decoder_refuses():
    mapping = make_system("full").to_dict()
    with pytest.raises(ValueError, match="did you mean 'num_layers'"):
        FwPKMHFConfig({**mapping, "num_layer": 3})
    with pytest.raises(ValueError, match="model is missing"):
        FwPKMHFConfig()


def test_missing_extra_is_named_and_the_rest_works_without(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "fwpkm.models.hf")
    assert importlib.reload(importlib.import_module("fwpkm.models"))
    with pytest.raises(ImportError, match=r"pip install 'fwpkm\[hf\]'"):
        importlib.import_module("fwpkm.models.hf")


@pytest.mark.parametrize("system", SYSTEMS)
def test_outputs_are_the_decoders(system):
    model, x = make_model(system), make_tokens()
    output = model(x, output_hidden_states=True)
    expected = model.decoder(x)
    torch.testing.assert_close(output.logits, expected.logits)
    assert len(output.hidden_states) == model.config.num_hidden_layers + 1
    torch.testing.assert_close(output.hidden_states[0], model.decoder.embed(x))
    torch.testing.assert_close(output.hidden_states[-1], expected.hidden)
    for block, h, after in zip(
        model.decoder.blocks[:-1], output.hidden_states, output.hidden_states[1:], strict=False
    ):
        torch.testing.assert_close(block(h)[0], after)
    assert model(x).hidden_states is None


def test_fresh_model_is_the_one_that_the_decoder_draws():
    torch.manual_seed(3)
    model = FwPKMForCausalLM(FwPKMHFConfig(make_system("mixed")))
    torch.manual_seed(3)
    decoder = Decoder(make_system("mixed"))
    for (name, x), (_, y) in zip(
        model.decoder.state_dict().items(), decoder.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(x, y, msg=name, rtol=0, atol=0)


def test_from_decoder_shares_the_weights():
    decoder = Decoder(make_system("full"))
    model = FwPKMForCausalLM.from_decoder(decoder, eos_token_id=1)
    assert model.decoder is decoder
    assert model.generation_config.eos_token_id == 1
    with pytest.raises(ValueError, match="from_decoder"):
        FwPKMForCausalLM(FwPKMHFConfig(make_system("mixed")), decoder)


def test_logits_to_keep_by_number_and_by_place():
    model, x = make_model(), make_tokens()
    logits = model(x).logits
    torch.testing.assert_close(model(x, logits_to_keep=3).logits, logits[:, -3:])
    torch.testing.assert_close(model(x, logits_to_keep=torch.tensor([1, 7])).logits, logits[:, [1, 7]])


def test_embeddings_are_as_good_as_tokens():
    model, x = make_model("mixed"), make_tokens()
    embeds = model.get_input_embeddings()(x)
    torch.testing.assert_close(model(inputs_embeds=embeds).logits, model(x).logits)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(x, inputs_embeds=embeds)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()


def test_tuple_on_request():
    model, x = make_model(), make_tokens()
    loss, logits, cache = model(x, labels=x, return_dict=False)
    torch.testing.assert_close(logits, model(x).logits)
    assert loss.ndim == 0
    assert isinstance(cache, FwPKMCache)


def test_cache_is_returned_where_it_is_of_use():
    model, x = make_model(), make_tokens()
    assert isinstance(model(x).past_key_values, FwPKMCache)
    assert model(x, use_cache=False).past_key_values is None
    assert model.train()(x).past_key_values is None


# Files


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


# Embeddings


def test_tied_embeddings_are_one_tensor():
    tied, untied = make_model("full"), make_model("mixed")
    assert not any("lm_head" in name for name in tied.state_dict())
    assert tied.get_output_embeddings() is None
    assert untied.get_output_embeddings() is untied.decoder.lm_head
    with pytest.raises(ValueError, match="products with the embedding"):
        tied.set_output_embeddings(torch.nn.Linear(16, 40, bias=False))


@pytest.mark.parametrize("system", ["sliding_fwpkm", "mixed"])
@pytest.mark.parametrize("vocab", [30, 47])
def test_resized_embeddings_keep_old_tokens(system, vocab, tmp_path):
    model, x = make_model(system, torch.float32), make_tokens(vocab=30)
    before = model(x).logits
    model.resize_token_embeddings(vocab, mean_resizing=False)
    kept = min(vocab, 40)
    after = model(x, labels=x)
    assert after.logits.shape[-1] == model.config.vocab_size == model.decoder.config.vocab_size == vocab
    torch.testing.assert_close(after.logits[..., :kept], before[..., :kept])
    model.save_pretrained(tmp_path)
    loaded = FwPKMForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(x).logits, after.logits)


def test_resized_embeddings_start_near_the_old_ones():
    model = make_model("mixed", torch.float32)
    model.resize_token_embeddings(45)
    assert model.decoder.embed.weight[40:].isfinite().all()
    assert model.decoder.lm_head.weight.shape == (45, 16)


def test_config_of_a_loaded_model_is_a_decoder_config(tmp_path):
    make_model(dtype=torch.float32).save_pretrained(tmp_path)
    assert isinstance(FwPKMForCausalLM.from_pretrained(tmp_path).decoder.config, DecoderConfig)
