"""`FwPKMForCausalLM` by itself: its config, its outputs, its files, its embeddings."""

import copy
import importlib
import json
import pickle
import sys

import pytest
import torch

from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import SYSTEMS, make_system

transformers = pytest.importorskip("transformers", minversion="5.24")
from fwpkm.models.hf import FwPKMCache, FwPKMForCausalLM, FwPKMHFConfig, FwPKMModel  # noqa: E402
from fwpkm.models.transformers_version import require_transformers  # noqa: E402
from fwpkm.testing.hf_models import make_hf_model as make_model  # noqa: E402
from fwpkm.testing.hf_models import make_tokens  # noqa: E402

transformers.utils.logging.disable_progress_bar()


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


def test_configs_are_equal_exactly_if_their_decoders_are():
    one = FwPKMHFConfig(make_system("full"), eos_token_id=5)
    assert one == FwPKMHFConfig(make_system("full"), eos_token_id=5)
    assert one != FwPKMHFConfig(make_system("full", num_layers=2), eos_token_id=5)
    assert one != FwPKMHFConfig(make_system("full"), eos_token_id=6)
    assert one == copy.deepcopy(one) == pickle.loads(pickle.dumps(one))


def test_config_takes_transformers_names_beside_the_model():
    config = FwPKMHFConfig(make_system("full"), vocab_size=50, tie_word_embeddings=False)
    assert config.decoder_config == make_system("full", vocab_size=50, tie_embeddings=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixers": ["sliding_atention"]}, "did you mean 'sliding_attention'"),
        ({"fwpkm_layers": [0, 3]}, "fwpkm_layers must be layers from 0 to 2, got 3"),
        ({"fwpkm_layer": [0]}, "did you mean 'fwpkm_layers'"),
    ],
)
def test_config_files_with_nonsense_are_refused_by_name(changes, message, tmp_path):
    FwPKMHFConfig(make_system("sliding_fwpkm")).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    stored["model"].update(changes)
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=message):
        transformers.AutoConfig.from_pretrained(tmp_path)


def test_missing_extra_is_named_and_the_rest_works_without(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "fwpkm.models.hf")
    assert importlib.reload(importlib.import_module("fwpkm.models"))
    with pytest.raises(ImportError, match=r"pip install -U 'fwpkm\[hf\]'"):
        importlib.import_module("fwpkm.models.hf")


@pytest.mark.parametrize("package", ["fwpkm.models.hf", "fwpkm.models.attach"])
@pytest.mark.parametrize("version", ["4.57.1", "5.23.0", "5.9.0.dev0"])
def test_an_older_transformers_is_refused_by_name(monkeypatch, package, version):
    monkeypatch.setattr(transformers, "__version__", version)
    monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(
        ImportError, match=rf"{package} needs transformers 5.24 .* found {version}: pip install -U"
    ):
        importlib.import_module(package)


@pytest.mark.parametrize("version", ["5.24.0", "5.100.0rc1"])
def test_newer_versions_of_transformers_are_taken(monkeypatch, version):
    monkeypatch.setattr(transformers, "__version__", version)
    require_transformers("a test")


@pytest.mark.parametrize(
    "make", [lambda: make_model("mixed"), lambda: FwPKMModel(FwPKMHFConfig(make_system("mixed")))]
)
def test_a_cache_goes_by_its_older_name_too_with_a_warning(make):
    model, x = make().eval(), make_tokens()
    cache = model(x[:, :7]).cache
    kept = copy.copy(cache)
    expected = model(x[:, 7:], cache=cache)[0]
    with pytest.warns(FutureWarning, match="Use `cache` instead"):
        found = model(x[:, 7:], past_key_values=kept)[0]
    assert torch.equal(found, expected)


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


def test_base_model_gives_the_hidden_states_behind_the_logits():
    model, x = make_model("mixed"), make_tokens()
    base = FwPKMModel.from_decoder(model.decoder).eval()
    output = base(x, output_hidden_states=True)
    torch.testing.assert_close(output.last_hidden_state @ model.decoder.head_weight.T, model(x).logits)
    assert output.hidden_states[-1] is output.last_hidden_state
    again = base(make_tokens(T=1), cache=output.cache)
    assert again.cache.get_seq_length() == 14
    assert base(x, return_dict=False)[0].shape == (2, 13, 16)


def test_what_the_call_leaves_open_the_config_decides():
    model, x = make_model(), make_tokens()
    model.config.output_hidden_states, model.config.use_cache = True, False
    output = model(x)
    assert len(output.hidden_states) == 4
    assert output.cache is None
    model.config.return_dict = False
    assert isinstance(model(x), tuple)


@pytest.mark.parametrize("system", SYSTEMS)
def test_copies_and_pickles_of_a_model_are_the_model(system):
    model, x = make_model(system), make_tokens()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(x).logits, model(x).logits, rtol=0, atol=0)
        with torch.no_grad():
            next(other.parameters()).add_(1.0)
        assert not torch.equal(other(x).logits, model(x).logits)


def test_tuple_on_request():
    model, x = make_model(), make_tokens()
    loss, logits, cache = model(x, labels=x, return_dict=False)
    torch.testing.assert_close(logits, model(x).logits)
    assert loss.ndim == 0
    assert isinstance(cache, FwPKMCache)


def test_cache_is_returned_where_it_is_of_use():
    model, x = make_model(), make_tokens()
    assert isinstance(model(x).cache, FwPKMCache)
    assert model(x, use_cache=False).cache is None
    assert model.train()(x).cache is None


@pytest.mark.parametrize("shape", [(2, 12), (1, 13), (2, 14)])
def test_masks_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"attention_mask must be .*2, 13.*got"):
        make_model()(make_tokens(), attention_mask=torch.ones(shape))


def test_unknown_arguments_are_refused_with_the_nearest_one():
    with pytest.raises(TypeError, match="unknown argument 'atention_mask'; did you mean 'attention_mask'"):
        make_model()(make_tokens(), atention_mask=None)


def test_foreign_caches_and_streams_are_refused():
    model, x = make_model(), make_tokens()
    with pytest.raises(TypeError, match=r"must be a FwPKMCache.*got DynamicCache"):
        model(x, cache=transformers.DynamicCache())
    with pytest.raises(ValueError, match="got 3 and 2"):
        model(make_tokens(3, 1), cache=model(x).cache)


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
