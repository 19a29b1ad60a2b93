"""`fwpkm.attach`: nothing changes at first, everything can be taken off again, and mistakes are refused."""

import copy
import subprocess
import sys

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5.24")
import fwpkm  # noqa: E402
from fwpkm.models.attach import FAMILIES, freeze_base, memories, memory_states, unfreeze_base  # noqa: E402
from fwpkm.testing.base_models import TINY, awaken, make_attached, make_base  # noqa: E402
from fwpkm.testing.hf_models import make_tokens  # noqa: E402


def names(model):
    """Everything by which `detach` could leave a trace."""
    found = {"model": sorted(model.__dict__), "state": list(model.state_dict())}
    for name, module in model.named_modules():
        hooks = [len(x) for key, x in module.__dict__.items() if "hooks" in key and isinstance(x, dict)]
        found[name] = (hooks, sorted(module.__dict__["_modules"]))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_bit_equal_at_first_and_differ_later(family, dtype):
    model, x = make_base(family, dtype), make_tokens()
    mask = torch.ones_like(x)
    mask[0, :4] = 0
    with torch.no_grad():
        before = [model(x).logits, model(x, attention_mask=mask).logits]
        assert fwpkm.attach(model, [0, 2], TINY) is model
        after = [model(x).logits, model(x, attention_mask=mask).logits]
        assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
        assert not torch.equal(awaken(model)(x).logits, before[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_detach_leaves_no_trace(family):
    model, x = make_base(family), make_tokens()
    trace, logits = names(model), model(x).logits
    awaken(fwpkm.attach(model, [1], TINY))
    freeze_base(model)
    assert not torch.equal(model(x).logits, logits)
    assert fwpkm.detach(model) is model
    assert names(model) == trace
    assert torch.equal(model(x).logits, logits)
    assert all(p.requires_grad for p in model.parameters())
    fwpkm.attach(model, [2], TINY)


def test_a_headless_decoder_takes_memories_too():
    model, x = make_base().model, make_tokens()
    before = model(x).last_hidden_state
    fwpkm.attach(model, [1], TINY)
    assert torch.equal(model(x).last_hidden_state, before)
    assert not torch.equal(awaken(model)(x).last_hidden_state, before)
    fwpkm.detach(model)
    assert torch.equal(model(x).last_hidden_state, before)


def test_every_layer_has_a_table_of_its_own_and_the_config_that_was_given():
    config = fwpkm.FwPKMConfig(dim=32, table_seed=5, **TINY)
    found = memories(fwpkm.attach(make_base(), [2, 0], config))
    assert list(found) == [0, 2]
    assert [memory.config.table_seed for memory in found.values()] == [5, 7]
    assert not torch.equal(found[0].initial_values, found[2].initial_values)
    assert found[0].config.topk == 2


def test_projections_keep_a_precision_of_their_own():
    model, x = make_base(dtype=torch.bfloat16), make_tokens()
    before = model(x).logits
    fwpkm.attach(model, [1], TINY, dtype=torch.float32)
    assert {p.dtype for p in memories(model)[1].parameters()} == {torch.float32}
    assert torch.equal(model(x).logits, before)
    logits = awaken(model)(x).logits
    assert logits.dtype == torch.bfloat16
    assert not torch.equal(logits, before)


def test_hidden_states_are_recorded_as_before():
    model, x = make_base(), make_tokens()
    before = model(x, output_hidden_states=True).hidden_states
    fwpkm.attach(model, [1], TINY)
    after = model(x, output_hidden_states=True).hidden_states
    assert len(after) == len(before) == 4
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_half_precision_bases_keep_exact_tables():
    memory = memories(fwpkm.attach(make_base(dtype=torch.bfloat16), [1], TINY))[1]
    assert memory.q_proj.weight.dtype == torch.bfloat16
    assert memory.initial_keys.dtype == memory.initial_values.dtype == torch.float32


def test_the_memory_reads_what_comes_into_its_layer():
    model, x = make_attached(layers=(1,)), make_tokens()
    memory, layer, seen = memories(model)[1], model.model.layers[1], {}
    hooks = [
        model.model.layers[0].register_forward_hook(lambda _, __, y: seen.update(before=y)),
        layer.input_layernorm.register_forward_pre_hook(lambda _, args: seen.update(after=args[0])),
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(seen["after"], seen["before"] + memory(seen["before"])[0], rtol=0, atol=0)


def test_copies_of_a_model_are_of_their_own():
    model, x = make_attached(), make_tokens()
    before = model(x).logits
    other = copy.deepcopy(model)
    assert torch.equal(other(x).logits, before)
    with torch.no_grad():
        memories(other)[1].out_proj.weight.zero_()
    assert torch.equal(model(x).logits, before)
    assert not torch.equal(other(x).logits, before)
    fwpkm.detach(other)
    assert torch.equal(model(x).logits, before)
    assert memories(model)[2] is model.model.layers[2].fwpkm


def test_freezing_leaves_only_the_memory_to_train():
    model = make_attached()
    model.lm_head.weight.requires_grad_(False)
    freeze_base(model)
    freeze_base(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".fwpkm." in name for name in trained)
    assert len(trained) == sum(1 for m in memories(model).values() for _ in m.parameters())
    unfreeze_base(model)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["lm_head.weight"]


def test_without_a_cache_every_call_starts_afresh():
    model, x = make_attached(), make_tokens()
    first = model(x, use_cache=False)
    assert first.cache is None
    torch.testing.assert_close(model(x, use_cache=False).logits, first.logits, rtol=0, atol=0)
    states = memory_states(model(x).cache)
    assert {layer: state.tokens_seen for layer, state in states.items()} == {1: (13, 13), 2: (13, 13)}
    assert memory_states(None) == {}


# What is refused


@pytest.mark.parametrize(
    ("layers", "config", "message"),
    [
        ([3], TINY, r"from 0 to 2, got 3"),
        ([-1, 7], TINY, r"got -1; .*got 7"),
        ([True], TINY, "got True"),
        ([1, 1], TINY, "must differ, got 1 twice"),
        ([], TINY, "at least one of the layers 0 to 2"),
        ([1], {"top_k": 8}, r"unknown field 'top_k'; did you mean 'topk'"),
        ([1], {"dim": 16, "num_subkeys": 8}, r"model's width 32, got dim=16"),
        ([9], {"topk": 0}, r"got 9; .*topk must be"),
        ([9], fwpkm.FwPKMConfig(dim=8), r"got 9; .*width 32, got dim=8"),
    ],
)
def test_what_does_not_fit_is_refused_all_at_once(layers, config, message):
    model = make_base()
    trace = names(model)
    with pytest.raises(ValueError, match=message):
        fwpkm.attach(model, layers, config)
    assert names(model) == trace


def test_models_of_other_kinds_are_refused():
    with pytest.raises(TypeError, match="transformers model, got Linear"):
        fwpkm.attach(torch.nn.Linear(2, 2), [0], TINY)
    config = transformers.AutoConfig.for_model(
        "qwen2_moe", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=8,
        num_experts=2, moe_intermediate_size=8, shared_expert_intermediate_size=8, intermediate_size=8,
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"Qwen2MoeForCausalLM is not supported.*'qwen2_moe'; did you mean 'qwen2'"
    ):
        fwpkm.attach(transformers.AutoModelForCausalLM.from_config(config), [0], TINY)
    with pytest.raises(ValueError, match="add_cross_attention must be False, got add_cross_attention=True"):
        fwpkm.attach(make_base("gpt2", add_cross_attention=True), [0], TINY)


def test_attaching_twice_and_detaching_nothing_are_refused():
    model = make_attached()
    with pytest.raises(ValueError, match="has memories already"):
        fwpkm.attach(model, [0], TINY)
    fwpkm.detach(model)
    for call in (fwpkm.detach, memories, freeze_base, unfreeze_base):
        with pytest.raises(ValueError, match=r"has no memories; call fwpkm\.attach"):
            call(model)


def test_masks_that_do_not_say_what_is_padding_are_refused():
    model, x = make_attached(), make_tokens()
    for mask in (torch.ones(2, 1, 13, 13), torch.ones(1, 13), torch.ones(2, 9)):
        with pytest.raises(ValueError, match="attention_mask must be"):
            model(x, attention_mask=mask)
    with pytest.raises(ValueError, match="would share a memory"):
        model(x, position_ids=torch.cat([torch.arange(6), torch.arange(7)])[None])
    model(x, position_ids=torch.arange(13)[None])


def test_a_layer_by_itself_is_refused():
    model, x = make_attached(), make_tokens()
    with pytest.raises(RuntimeError, match="layer 1 was called outside its model"):
        model.model.layers[1](model.model.embed_tokens(x))
    with pytest.raises(ValueError, match="exactly one"):
        model()
    model(x)


def test_importing_the_package_does_not_import_transformers():
    code = "import sys, fwpkm; sys.exit('transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"attach", "detach", "save_adapter", "load_adapter"} <= set(dir(fwpkm))
    with pytest.raises(AttributeError, match="no attribute 'atach'"):
        _ = fwpkm.atach
