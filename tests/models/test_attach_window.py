"""Attention limited to a window and the first tokens, with and without a cache that holds no more than that."""

import copy

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5.24")
import fwpkm  # noqa: E402
from fwpkm.models.attach import (  # noqa: E402
    FAMILIES,
    attention_window,
    free_attention,
    limit_attention,
    memory_states,
    window_cache,
)
from fwpkm.testing.base_models import TINY, make_attached, make_base  # noqa: E402
from fwpkm.testing.hf_models import make_tokens  # noqa: E402

transformers.utils.logging.disable_progress_bar()
LIMITED = [name for name in FAMILIES if name != "gemma2"]


def seen_by(T, window, sinks):
    """The definition: the mask of a limited model, which transformers takes in four dimensions."""
    i = torch.arange(T)
    far = i[:, None] - i[None]
    return ((far >= 0) & ((far < window) | (i[None] < sinks)))[None, None]


def read_in_pieces(model, x, cache, sizes):
    logits, at = [], 0
    for size in sizes:
        logits.append(model(x[:, at : at + size], cache=cache).logits)
        at += size
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize(("window", "sinks"), [(4, 0), (4, 1), (7, 3), (1, 1), (64, 1)])
@torch.no_grad()
def test_a_limited_model_is_the_model_with_that_mask(window, sinks):
    model, x = make_base(), make_tokens(T=20)
    expected = model(x, attention_mask=seen_by(20, window, sinks).expand(len(x), -1, -1, -1)).logits
    limit_attention(model, window, sinks)
    torch.testing.assert_close(model(x).logits, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", LIMITED)
@torch.no_grad()
def test_every_family_can_be_limited_and_freed(family):
    model, x = make_base(family), make_tokens(T=20)
    before = model(x).logits
    limit_attention(model, 3)
    assert (attention_window(model).window, attention_window(model).sinks) == (3, 1)
    limited = model(x).logits
    torch.testing.assert_close(limited[:, :3], before[:, :3])
    assert not torch.allclose(limited[:, -1], before[:, -1])
    free_attention(model)
    assert attention_window(model) is None
    assert torch.equal(model(x).logits, before)


@pytest.mark.parametrize("sinks", [0, 1, 3])
@pytest.mark.parametrize("sizes", [(20,), (1,) * 20, (7, 1, 8, 4), (3, 17)])
@torch.no_grad()
def test_a_window_cache_gives_the_same_from_less(sizes, sinks):
    model, x = make_attached(), make_tokens(T=20)
    limit_attention(model, 5, sinks)
    whole = model(x).logits
    for cache in (window_cache(model), transformers.DynamicCache(config=model.config)):
        torch.testing.assert_close(read_in_pieces(model, x, cache, sizes), whole, rtol=1e-9, atol=1e-9)
        assert cache.get_seq_length() == 20
        assert {state.tokens_seen for state in memory_states(cache).values()} == {(20,) * len(x)}
    small = window_cache(model)
    read_in_pieces(model, x, small, sizes)
    assert small.layers[0].keys.shape[-2] == 4 + sinks
    torch.testing.assert_close(
        read_in_pieces(model, x, copy.deepcopy(small), (2,)), read_in_pieces(model, x, small, (2,))
    )


@torch.no_grad()
def test_padding_on_the_left_changes_nothing():
    model, x = make_base(), make_tokens(1, 14)
    limit_attention(model, 4, 2)
    row, mask = (torch.nn.functional.pad(y, (5, 0)) for y in (x, torch.ones_like(x)))
    places = (mask.cumsum(-1) - 1).clamp_min(0)
    padded = model(row, attention_mask=mask, position_ids=places).logits[:, 5:]
    torch.testing.assert_close(padded, model(x).logits, rtol=1e-9, atol=1e-9)
    small = window_cache(model)
    model(row, attention_mask=mask, position_ids=places, cache=small)
    with pytest.raises(ValueError, match="must not be padded on the left"):
        model(x[:, :1], attention_mask=torch.cat([mask, mask[:, :1]], 1), cache=small)


def test_generation_says_the_same_with_either_cache():
    model, x = make_attached(), make_tokens(T=12)
    limit_attention(model, 5)
    plain, small = (
        model.generate(x, max_new_tokens=8, do_sample=False, cache=cache)
        for cache in (None, window_cache(model))
    )
    assert torch.equal(plain, small)
    beams = model.generate(x, max_new_tokens=5, num_beams=3, cache=window_cache(model))
    assert torch.equal(beams, model.generate(x, max_new_tokens=5, num_beams=3))


@torch.no_grad()
def test_a_window_cache_refuses_to_go_back():
    model, x = make_base(), make_tokens(T=12)
    limit_attention(model, 5)
    cache = window_cache(model)
    model(x, cache=cache)
    with pytest.raises(RuntimeError, match="cannot take back 2 tokens"):
        cache.crop(-2)


@torch.no_grad()
def test_layers_that_slide_by_themselves_keep_the_shorter_window():
    model, x = make_base("mistral"), make_tokens(T=20)  # its own window is 8
    before = model(x).logits
    limit_attention(model, 30, 0)
    torch.testing.assert_close(model(x).logits, before)


def test_attention_that_cannot_be_limited_is_refused_and_left_alone():
    model = make_base("gemma2")
    with pytest.raises(ValueError, match=r"got attn_logit_softcapping .* set sliding_window"):
        limit_attention(model, 4)
    model = make_base()
    model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="got attn_implementation='eager'"):
        limit_attention(model, 4)
    with pytest.raises(ValueError, match="window must be at least 1, got window=0; sinks must be at least 0"):
        limit_attention(make_base(), 0, -1)
    with pytest.raises(ValueError, match="has no limit; call limit_attention"):
        window_cache(make_base())


@torch.no_grad()
def test_an_adapter_knows_the_window_that_it_was_trained_with(tmp_path):
    model, x = make_attached(), make_tokens(T=20)
    limit_attention(model, 4, 2)
    fwpkm.save_adapter(model, tmp_path / "a")
    again = fwpkm.load_adapter(make_base(), tmp_path / "a")
    assert attention_window(again) == attention_window(model)
    assert torch.equal(again(x).logits, model(x).logits)
    other = make_base()
    other.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="must use PyTorch's attention"):
        fwpkm.load_adapter(other, tmp_path / "a")
    fwpkm.attach(other, [1], TINY)  # nothing was left behind


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_in_long_texts_the_first_tokens_follow_at_a_distance(family):
    changes = {"sliding_window": None} if family == "mistral" else {}
    model = make_base(family, **changes)  # trained for 128 positions, so a span is 64
    limit_attention(model, 5, 2)
    x, cache = make_tokens(T=128), window_cache(model)
    found = [model(part, cache=cache).logits for part in x.split(64, dim=1)][1]
    near = torch.arange(128)
    near[:2] += 64 - 5  # where tokens of the second span see them
    expected = model(x, position_ids=near[None].expand(2, -1)).logits[:, 64:]
    clear = 3 * 5  # what three layers hand on from tokens that saw them at 0
    torch.testing.assert_close(found[:, clear:], expected[:, clear:], rtol=1e-6, atol=1e-6)
    far = model(x).logits[:, 64:]
    assert not torch.allclose(found[:, clear:], far[:, clear:], rtol=1e-6, atol=1e-6)
    again = read_in_pieces(model, x, window_cache(model), (20, 44, 1, 29, 34))[:, 64:]
    torch.testing.assert_close(again, found, rtol=1e-6, atol=1e-6)


def test_first_tokens_that_cannot_be_turned_stay_where_they_are():
    for model, window, sinks in ((make_base("gpt2"), 5, 1), (make_base(), 5, 0), (make_base(), 63, 1)):
        limit_attention(model, window, sinks)
        assert window_cache(model).layers[0].turner is None
