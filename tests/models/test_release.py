"""The authors' configs and weights in, and the same out again; what does not fit is refused by name."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fwpkm.models.decoder import Decoder
from fwpkm.models.release import from_release, release_gradients, release_tensors
from fwpkm.models.release_config import decoder_config
from fwpkm.models.release_export import lost_in_release, release_fields
from fwpkm.models.release_fields import DEFAULTS, NO_EFFECT
from fwpkm.testing.golden import load_case
from fwpkm.testing.systems import make_system

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}
MEMORY = {**SMALL, "fwpkm_layers": [1]}


def released(name="model_attention", **changes):
    case, tensors = load_case(GOLDEN / f"{name}.json")
    weights = {n.removeprefix("state."): x for n, x in tensors.items() if n.startswith("state.")}
    return {**case["config"], **changes}, weights, tensors["input_ids"]


def train_on(model, ids):
    logits = model(ids).logits
    F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    return logits


@pytest.mark.parametrize("name", ["model_attention", "model_gdn", "model_plain_gdn"])
def test_weights_come_out_as_they_went_in(name):
    config, weights, _ = released(name)
    out = release_tensors(from_release(config, weights))
    assert out.keys() == weights.keys()
    assert all(torch.equal(out[n], weights[n]) for n in weights)


def test_gradients_are_those_of_all_slow_weights_and_of_no_fast_ones():
    config, weights, ids = released()
    model = from_release(config, weights).train()
    assert release_gradients(model) == {}
    train_on(model, ids)
    gradients = release_gradients(model)
    assert gradients.keys() == {name for name in weights if ".fwpkm." not in name}
    assert all(gradients[name].shape == weights[name].shape for name in gradients)


def test_fast_weights_after_a_batch_come_out_and_are_carried_on_only_when_told():
    config, weights, ids = released()
    model = from_release(config, weights)
    with pytest.raises(ValueError, match="read a batch first"):
        model.carry()
    first = model(ids).logits
    after = {n: x.clone() for n, x in release_tensors(model).items() if ".fwpkm." in n}
    assert after
    assert all(not torch.equal(x, weights[n]) for n, x in after.items())
    assert torch.equal(model(ids).logits, first)
    model.carry()
    assert not torch.equal(model(ids).logits, first)
    assert all(torch.equal(release_tensors(model, model(ids[:, :0]).cache)[n], x) for n, x in after.items())


def test_carrying_equals_the_release_reading_one_batch_after_the_other():
    config, weights, ids = released()
    model = from_release(config, weights)
    model(ids)
    fresh = from_release(config, {**weights, **release_tensors(model)})
    model.carry()
    assert torch.equal(model(ids).logits, fresh(ids).logits)


def test_a_fast_weight_mlp_carries_on_too():
    config, _, ids = released()
    config |= {"fwpkm_variant": "mlp", "fwpkm_n_subkeys": 12, "fwpkm_optimizer_lr": 0.1}
    model = from_release(config, release_tensors(Decoder(decoder_config(config))))
    first = model(ids).logits
    model.carry()
    assert not torch.equal(model(ids).logits, first)


def test_the_attention_kernel_decides_which_pairs_of_sliding_attention_are_written():
    config, weights, ids = released(layer_types=["full_attention", "sliding_attention"] * 2)

    def after(kernel, first):
        """Return the table after reading tokens of which the first one differs."""
        model = from_release(config, weights, attention_kernel=kernel)
        changed = ids.clone()
        changed[:, 0] = first
        model(changed)
        return release_tensors(model)["model.layers.1.fwpkm.values"]

    slot = after("flash", 1) - after("flash", 2)
    assert slot.abs().max() > 0, "all pairs are written"
    written = (after("sdpa", 1) != weights["model.layers.1.fwpkm.values"]).any(-1)
    assert 0 < written.sum() < (after("flash", 1) != weights["model.layers.1.fwpkm.values"]).any(-1).sum()


def test_precision_follows_the_weights_but_memories_stay_float32():
    config, weights, ids = released()
    double = from_release(config, {n: x.double() for n, x in weights.items()})
    assert double(ids).logits.dtype == torch.float64
    half = from_release(config, {n: x.bfloat16() for n, x in weights.items()})
    assert half(ids).logits.dtype == torch.bfloat16
    assert half.blocks[1].memory.initial_values.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"fwpkm_layer": [1]}, "unknown field 'fwpkm_layer'; did you mean 'fwpkm_layers'?"),
        ({"hidden_size": 8.0}, "hidden_size must be of type int, got 8.0"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps must be of type float, got '1e-6'"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be of type bool, got 1"),
        ({"sliding_window": True}, "sliding_window must be of type int, got True"),
        ({"layer_types": ["full_attention", "ful_attention"]}, "did you mean 'full_attention'?"),
        ({"layer_types": ["full_attention"]}, "must name num_hidden_layers=2 types, got 1"),
        ({"layer_types": ["sliding_attention"] * 2}, "sliding_window must be given"),
        ({"layer_types": None, "full_attention_interval": 0}, "full_attention_interval must be at least 1"),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu', got 'gelu'"),
        ({"fwpkm_layers": [2]}, "fwpkm_layers must be layers from 0 to 1, got 2"),
        ({"pkm_layers": [-1]}, "pkm_layers must be layers from 0 to 1, got -1"),
        ({"fwpkm_query_src": "output"}, "fwpkm_query_src must be 'hidden', got 'output'"),
        ({"fwpkm_target_lookahead": 0}, "set fwpkm_target_value_lookahead"),
        ({"rope_scaling": {"rope_type": "yan", "factor": 2.0}}, "did you mean 'yarn'?"),
        ({"rope_scaling": {"rope_type": "linear", "fctor": 2.0}}, "did you mean 'factor'?"),
        (
            {
                "rope_scaling": {
                    "rope_type": "yarn",
                    "factor": 3.0,
                    "original_max_position_embeddings": 16384,
                }
            },
            "factor must be max_position_embeddings / original_max_position_embeddings = 2",
        ),
        ({**MEMORY, "fwpkm_variant": "mlp", "fwpkm_heads": 2}, "fwpkm_heads must be 1"),
        ({**MEMORY, "fwpkm_out_fuse_gate": False}, "needs fwpkm_out_fuse_gate=True"),
    ],
)
def test_a_config_that_makes_no_model_is_refused_with_the_way_out(changes, part):
    with pytest.raises(ValueError) as refused:
        decoder_config({**SMALL, **changes})
    assert part in str(refused.value)


def test_all_problems_of_a_config_are_told_at_once():
    wrong = {"hidden_act": "gelu", "vocab": 3, "head_dim": None}
    with pytest.raises(ValueError) as refused:
        decoder_config({**SMALL, **wrong})
    assert all(name in str(refused.value) for name in wrong)


MATTERS = {
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "initializer_range": 0.1,
    "rms_norm_eps": 1e-3,
    "tie_word_embeddings": True,
    "rope_theta": 100.0,
    "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
    "head_dim": 16,
    "linear_conv_kernel_dim": 3,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "linear_num_key_heads": 8,
    "linear_num_value_heads": 16,
    "layer_types": ["sliding_attention", "linear_attention", "linear_attention"],
    "sliding_window": 9,
    "pkm_layers": [0, 1],
    "pkm_k_dim": 64,
    "pkm_v_dim": 64,
    "pkm_heads": 2,
    "pkm_topk": 4,
    "pkm_n_subkeys": 64,
    "pkm_query_rmsnorm": False,
    "fwpkm_layers": [0],
    "fwpkm_k_dim": 64,
    "fwpkm_v_dim": 64,
    "fwpkm_heads": 2,
    "fwpkm_topk": 4,
    "fwpkm_n_subkeys": 64,
    "fwpkm_before_attn": False,
    "fwpkm_update_chunk_size": 64,
    "fwpkm_optimizer_lr": 0.5,
    "fwpkm_optimizer_weight_decay": 0.1,
    "fwpkm_grad_clip": True,
    "fwpkm_addr_loss": None,
    "fwpkm_addr_loss_weight": 0.5,
    "fwpkm_weight_loss_with_gates": False,
    "fwpkm_mem_grad_to_values_only": False,
    "fwpkm_compress_query": "l2norm",
    "fwpkm_compress_value": "l2norm",
    "fwpkm_target_value_lookahead": 2,
    "fwpkm_score_nonlinear": "relu",
    "fwpkm_qk_score_type": "dot_product",
    "fwpkm_score_temperature": 2.0,
}
EVERYTHING = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "linear_attention"],
    "sliding_window": 7,
    "pkm_layers": [0],
    "fwpkm_layers": [1],
}


@pytest.mark.parametrize("name", sorted(MATTERS))
def test_every_field_of_the_authors_matters_and_comes_back(name):
    config = decoder_config({**EVERYTHING, name: MATTERS[name]})
    assert config != decoder_config(EVERYTHING)
    assert lost_in_release(config) == []
    back = {**DEFAULTS, **release_fields(config)}[name]
    assert (list(back) if isinstance(back, tuple) else back) == MATTERS[name]


def test_no_field_is_left_out_of_that_test():
    sizes = {"vocab_size", "hidden_size", "num_hidden_layers", "full_attention_interval"}
    one_choice = {"hidden_act", "attention_dropout", "fwpkm_loss_type", "fwpkm_optimizer_type"}
    sources = {"fwpkm_query_src", "fwpkm_value_src"}
    elsewhere = {"fwpkm_variant", "fwpkm_out_fuse_gate", "max_position_embeddings"}
    assert DEFAULTS.keys() == MATTERS.keys() | sizes | one_choice | sources | elsewhere
    assert not DEFAULTS.keys() & set(NO_EFFECT)


@pytest.mark.parametrize(
    "changes",
    [
        {"fwpkm_variant": "mlp"},
        {"fwpkm_out_fuse_gate": False, "fwpkm_weight_loss_with_gates": False},
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16384}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.5}, "max_position_embeddings": 101},
        {"layer_types": None},
        {"layer_types": None, "sliding_window": None, "full_attention_interval": 2},
    ],
)
def test_combinations_of_fields_come_back(changes):
    config = decoder_config({**EVERYTHING, **changes})
    assert lost_in_release(config) == []
    again = decoder_config(release_fields(config))
    assert [again.mixer(layer) for layer in range(3)] == [config.mixer(layer) for layer in range(3)]


def test_weights_that_the_release_lacks_are_all_named():
    with pytest.raises(ValueError) as refused:
        release_tensors(Decoder(make_system("mixed")))
    named = ("blocks.0.conv.weight", "blocks.2.conv_norm.weight", "blocks.2.memory.log_temperature")
    assert all(name in str(refused.value) for name in named), refused.value


def test_a_table_of_zeros_is_written_out_as_zeros():
    section = {"num_subkeys": 4, "key_dim": 8, "value_dim": 6, "topk": 2, "initial_values": "zero"}
    tensors = release_tensors(Decoder(make_system("sliding_fwpkm", fwpkm=section)))
    assert torch.equal(tensors["model.layers.0.fwpkm.values"], torch.zeros(16, 6))
