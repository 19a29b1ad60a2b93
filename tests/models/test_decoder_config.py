"""Configs and calls that make no sense are refused by name, with the way out."""

import pytest
import torch

from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import SYSTEMS, make_system

FULL = make_system("full").to_dict()
SLIDING = make_system("sliding_fwpkm").to_dict()


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_config_survives_being_a_plain_mapping(system):
    config = make_system(system)
    assert DecoderConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("base", "changes", "part"),
    [
        (FULL, {"mixer": ["full_attention"]}, "unknown field 'mixer'; did you mean 'mixers'?"),
        (FULL, {"mixers": ["ful_attention"]}, "'ful_attention'; did you mean 'full_attention'?"),
        (FULL, {"mixers": ["gated_deltanet"]}, "did you mean 'gated_delta_net'?"),
        (FULL, {"mixers": []}, "mixers must name between 1 and num_layers=3"),
        (FULL, {"mixers": ["full_attention"] * 4}, "mixers must name between 1 and num_layers=3"),
        (FULL, {"swiglu": {"hiden_dim": 3}}, "did you mean 'hidden_dim'?"),
        (FULL, {"attention": {"num_heds": 3}}, "did you mean 'num_heads'?"),
        (FULL, {"num_layers": 0}, "num_layers must be at least 1"),
        (FULL, {"vocab_size": "40"}, "vocab_size must be of type int, got '40'"),
        (FULL, {"memory_position": "befor"}, "did you mean 'before'?"),
        (FULL, {"narrow_probability": 1.5}, "narrow_probability must be in [0, 1], got 1.5"),
        (FULL, {"narrow_probability": 0.5}, "attention.window must be set"),
        (FULL, {"fwpkm_layers": [0]}, "fwpkm must be given, as some layer uses it"),
        (FULL, {"mixers": ["gated_delta_net"]}, "gated_delta_net must be given"),
        (FULL, {"mixers": ["gated_delta_net"]}, "attention is used by no layer; leave it out"),
        (SLIDING, {"fwpkm_layers": [0, 3]}, "fwpkm_layers must be layers from 0 to 2, got 3"),
        (SLIDING, {"fwpkm_layers": [-1]}, "fwpkm_layers must be layers from 0 to 2, got -1"),
        (SLIDING, {"fwpkm_layers": [1, 1]}, "fwpkm_layers must name a layer once, got [1, 1]"),
        (SLIDING, {"fwpkm_layers": []}, "fwpkm is used by no layer"),
        (SLIDING, {"fwmlp_layers": [0], "fwmlp": {}}, "a layer has one memory, but [0] are in"),
        (SLIDING, {"fwpkm": {**SLIDING["fwpkm"], "dim": 8}}, "fwpkm.dim must be the model's dim=16, got 8"),
        (SLIDING, {"fwpkm": {**SLIDING["fwpkm"], "topk": 9}}, "topk must not exceed num_subkeys"),
        (SLIDING, {"attention": FULL["attention"]}, "attention.window must be set for sliding_attention"),
    ],
)
def test_a_config_that_makes_no_model_is_refused_with_the_way_out(base, changes, part):
    with pytest.raises(ValueError) as refused:
        DecoderConfig.from_dict({**base, **changes})
    assert part in str(refused.value), refused.value


def test_all_problems_are_told_at_once():
    with pytest.raises(ValueError) as refused:
        DecoderConfig.from_dict({**SLIDING, "fwpkm_layers": [5, 7], "dim": 0, "narrow_probability": -1.0})
    assert all(part in str(refused.value) for part in ("got 5", "got 7", "dim must be", "got -1.0"))


def test_layers_draw_different_tables_and_the_same_in_every_model_of_the_config():
    config = make_system("sliding_fwpkm")
    first, second = Decoder(config), Decoder(config)
    tables = [model.blocks[i].memory.initial_values for model in (first, second) for i in (0, 2)]
    assert torch.equal(tables[0], tables[2])
    assert torch.equal(tables[1], tables[3])
    assert not torch.equal(tables[0], tables[1])


def test_calls_that_do_not_fit_are_refused():
    model = Decoder(make_system("sliding_fwpkm")).eval()
    ids = torch.zeros(2, 5, dtype=torch.long)
    cache = model(ids).cache
    # Test runs check shapes before the model can, so its own check is called, which users meet.
    with pytest.raises(ValueError, match=r"mask must be bool \[B, T\] = \[2, 5\].*got mask \(2, 4\)"):
        model._check(ids, None, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"same streams, got 2 and 1; use cache\.select or cache\.fork"):
        model(ids[:1], cache)
    with pytest.raises(ValueError, match="got 3 blocks for 2; pass cache=None"):
        Decoder(make_system("full", num_layers=2))(ids, cache)
    other = Decoder(make_system("sliding_fwpkm", fwpkm={**SLIDING["fwpkm"], "topk": 2}))
    with pytest.raises(ValueError, match="topk"):
        other(ids, cache)
    with pytest.raises(ValueError, match="copies must be at least 1, got copies=0"):
        cache.fork(0)


def test_a_call_without_tokens_changes_nothing():
    model = Decoder(make_system("mixed")).eval()
    ids = torch.arange(12).view(2, 6)
    cache = model(ids).cache
    empty = model(ids[:, :0], cache)
    assert empty.logits.shape == (2, 0, 40)
    assert torch.equal(model(ids, empty.cache).logits, model(ids, cache).logits)


@pytest.mark.parametrize("kept", [0, 1, 4, 99])
def test_logits_to_keep_are_the_last_ones(kept):
    model, ids = Decoder(make_system("full")).eval(), torch.arange(12).view(2, 6)
    expected = model(ids).logits[:, max(0, 6 - kept) :]
    torch.testing.assert_close(model(ids, logits_to_keep=kept).logits, expected)


def test_a_training_step_narrows_full_attention_as_often_as_told_and_an_evaluation_never():
    attention = {**FULL["attention"], "window": 2}
    model = Decoder(make_system("full", attention=attention, narrow_probability=0.5)).train()
    wide, ids = Decoder(make_system("full")), torch.arange(12).view(1, 12)
    wide.load_state_dict(model.state_dict())
    draw, all_seen = torch.Generator().manual_seed(0), wide(ids).logits
    seen = [torch.equal(model(ids, generator=draw).logits, all_seen) for _ in range(20)]
    assert 3 < sum(seen) < 17
    assert torch.equal(model.eval()(ids).logits, all_seen)
