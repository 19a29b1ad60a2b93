"""`generate()` of a model with attached memories: every way of decoding gives what reading from scratch gives."""

import copy
import pickle

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5.24")
from transformers import DynamicCache  # noqa: E402

from fwpkm.models.attach import FAMILIES, memory_states, set_memory_states  # noqa: E402
from fwpkm.testing.base_models import make_attached as make_model  # noqa: E402
from fwpkm.testing.base_models import make_base  # noqa: E402
from fwpkm.testing.hf_models import make_tokens  # noqa: E402

NEW = 9
"""New tokens: enough for the tiny memories to be written twice while they come."""
FEW = ("llama", "gpt2", "gemma3_text")
"""Rotary and absolute positions, and windows beside full attention."""
ASK = {"return_dict_in_generate": True, "output_logits": True, "max_new_tokens": NEW, "do_sample": False}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
"""The families compute norms and angles in float32 even in a float64 model."""


def assert_recomputed(model, output, num_prompt=13):
    """Every step's logits are those of reading the sequence so far at once."""
    logits = model(output.sequences, use_cache=False).logits
    for i, step in enumerate(output.logits):
        torch.testing.assert_close(step.double(), logits[:, num_prompt + i - 1], **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_greedy_is_recomputation_from_scratch(family):
    model, x = make_model(family), make_tokens()
    output = model.generate(x, **ASK)
    assert_recomputed(model, output)
    seen = {state.tokens_seen for state in memory_states(output.cache).values()}
    assert seen == {(13 + NEW - 1,) * 2}
    assert not torch.allclose(model(x).logits, make_base(family)(x).logits, **CLOSE)


@pytest.mark.parametrize("family", FEW)
@torch.no_grad()
def test_left_padding_changes_nothing(family):
    model, lengths = make_model(family), (13, 9, 4)
    x, mask = make_tokens(3), torch.ones(3, 13, dtype=torch.long)
    for row, length in enumerate(lengths):
        x[row, : 13 - length], mask[row, : 13 - length] = 0, 0
    padded = model.generate(x, attention_mask=mask, **ASK)
    states = memory_states(padded.cache)
    assert states[1].tokens_seen == tuple(length + NEW - 1 for length in lengths)
    for row, length in enumerate(lengths):
        alone = model.generate(x[row : row + 1, 13 - length :], **ASK)
        assert torch.equal(alone.sequences[0, length:], padded.sequences[row, 13:])
        for one, all_of_them in zip(alone.logits, padded.logits, strict=True):
            torch.testing.assert_close(one[0], all_of_them[row], **CLOSE)


@pytest.mark.parametrize("family", FEW)
@torch.no_grad()
def test_prompts_of_a_batch_never_share_memory(family):
    model, x = make_model(family), make_tokens(3)
    together = model.generate(x, **ASK)
    for row in range(3):
        alone = model.generate(x[row : row + 1], **ASK)
        assert torch.equal(alone.sequences[0], together.sequences[row])
        for one, all_of_them in zip(alone.logits, together.logits, strict=True):
            torch.testing.assert_close(one[0], all_of_them[row], **CLOSE)


@pytest.mark.parametrize("family", FEW)
def test_beams_follow_their_memory(family):
    model, x = make_model(family), make_tokens()
    ask = {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": NEW, "do_sample": False}
    ask |= {"return_dict_in_generate": True, "output_scores": True}
    cached, scratch = (model.generate(x, use_cache=use_cache, **ask) for use_cache in (True, False))
    assert torch.equal(cached.sequences, scratch.sequences)
    torch.testing.assert_close(cached.sequences_scores, scratch.sequences_scores, **CLOSE)
    # Beams have changed places: without reordering, the search would have gone elsewhere.
    assert (cached.beam_indices[cached.beam_indices >= 0] % 4).unique().numel() > 1


@pytest.mark.parametrize("family", FEW)
@torch.no_grad()
def test_reordered_caches_are_those_of_the_other_streams(family):
    model, x, more = make_model(family), make_tokens(3), make_tokens(4, 9)
    order = torch.tensor([2, 0, 0, 1])
    cache = model(x).cache
    cache.reorder_cache(order)
    logits = model(more, cache=cache).logits
    torch.testing.assert_close(logits, model(torch.cat([x[order], more], 1)).logits[:, 13:], **CLOSE)
    wrong = model(torch.cat([x[[0, 1, 2, 0]], more], 1)).logits[:, 13:]
    assert not torch.allclose(logits, wrong, **CLOSE)


@torch.no_grad()
def test_streams_are_chosen_and_repeated():
    model, x, more = make_model(), make_tokens(3), make_tokens(2, 9)
    for choice, rows in ((torch.tensor([False, True, True]), [1, 2]), (torch.tensor([2, 0]), [2, 0])):
        cache = model(x).cache
        cache.batch_select_indices(choice)
        expected = model(torch.cat([x[rows], more], 1)).logits[:, 13:]
        torch.testing.assert_close(model(more, cache=cache).logits, expected, **CLOSE)
    cache = model(x[:1]).cache
    cache.batch_repeat_interleave(2)
    expected = model(torch.cat([x[[0, 0]], more], 1)).logits[:, 13:]
    torch.testing.assert_close(model(more, cache=cache).logits, expected, **CLOSE)


@torch.no_grad()
def test_several_samples_of_a_prompt_have_a_memory_each():
    model, x = make_model(), make_tokens()
    output = model.generate(x, **{**ASK, "do_sample": True, "num_return_sequences": 3, "top_k": 0})
    assert len(output.sequences.unique(dim=0)) == 6
    assert_recomputed(model, output)


@pytest.mark.parametrize("family", FEW)
@torch.no_grad()
def test_prompts_are_read_in_pieces_or_embedded(family):
    model, x = make_model(family), make_tokens()
    expected = model.generate(x, max_new_tokens=NEW)
    assert torch.equal(model.generate(x, max_new_tokens=NEW, prefill_chunk_size=4), expected)
    embeds = model.get_input_embeddings()(x)
    assert torch.equal(model.generate(inputs_embeds=embeds, max_new_tokens=NEW), expected[:, 13:])


def test_static_caches_are_refused():
    with pytest.raises(ValueError, match="leave out cache_implementation='static'"):
        make_model().generate(make_tokens(), max_new_tokens=NEW, cache_implementation="static")


@pytest.mark.parametrize("fresh", [DynamicCache, lambda: None])
@torch.no_grad()
def test_a_document_is_read_once_and_asked_often(fresh):
    model, x, more = make_model(), make_tokens(), make_tokens(T=5)
    cache = model(x, cache=fresh(), use_cache=True).cache
    whole = torch.cat([x, more], 1)
    expected = model.generate(whole, max_new_tokens=NEW)
    for copied in (copy.deepcopy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))):
        answer = model.generate(whole, cache=copied(cache), max_new_tokens=NEW)
        assert torch.equal(answer, expected)
    assert cache.get_seq_length() == 13
    assert memory_states(cache)[1].tokens_seen == (13, 13)


@torch.no_grad()
def test_a_copied_cache_shares_the_table_and_sees_no_later_write():
    model, x, more = make_model(), make_tokens(), make_tokens(T=9)
    cache = model(x).cache
    other = copy.deepcopy(cache)
    assert memory_states(other)[1] is memory_states(cache)[1]
    expected = model(torch.cat([x, more], 1)).logits[:, 13:]
    for each in (cache, other):
        torch.testing.assert_close(model(more, cache=each).logits, expected, **CLOSE)


@torch.no_grad()
def test_reset_forgets_the_memory():
    model, x, more = make_model(), make_tokens(), make_tokens(T=9)
    cache = model(x).cache
    cache.reset()
    assert memory_states(cache) == {}
    torch.testing.assert_close(model(more, cache=cache).logits, model(more).logits, rtol=0, atol=0)


@torch.no_grad()
def test_memories_alone_are_carried_on_flushed_or_frozen():
    model, x, more = make_model(), make_tokens(T=15), make_tokens(T=9)
    states = memory_states(model(x).cache)
    found = []
    for change in (lambda s: s, lambda s: s.flush(), lambda s: s.freeze()):
        cache = DynamicCache(config=model.config)
        set_memory_states(cache, {layer: change(state) for layer, state in states.items()})
        found.append(model(more, cache=cache).logits)
        assert cache.get_seq_length() == 9
    found.append(model(more).logits)
    for i, one in enumerate(found):
        assert not any(torch.allclose(one, other, **CLOSE) for other in found[i + 1 :])
    assert memory_states(cache)[1].tokens_seen == (15, 15)  # frozen


# Speculation: tokens that turn out wrong must leave the memory


@pytest.mark.parametrize("family", FEW)
@torch.no_grad()
def test_prompt_lookup_is_greedy(family):
    model, x = make_model(family), make_tokens(1, 6).repeat(1, 4)
    greedy = model.generate(x, **ASK)
    lookup = model.generate(x, prompt_lookup_num_tokens=3, **ASK)
    assert torch.equal(lookup.sequences, greedy.sequences)
    for one, other in zip(lookup.logits, greedy.logits, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("family", FEW)
@torch.no_grad()
def test_assisted_generation_is_greedy_whatever_the_assistant_says(family):
    model, x = make_model(family), make_tokens(1)
    noisy = copy.deepcopy(model)
    for p in noisy.parameters():
        p.add_(0.02 * torch.randn_like(p))
    greedy = model.generate(x, **ASK)
    for assistant in (noisy, make_base(family)):
        assisted = model.generate(x, assistant_model=assistant, **ASK)
        assert torch.equal(assisted.sequences, greedy.sequences)


@pytest.mark.parametrize("number", [0, 3, 4, 9, 13])
@torch.no_grad()
def test_cropped_caches_never_saw_the_rest(number):
    model, x, more = make_model(), make_tokens(), make_tokens(T=7)
    cache = recording(model)
    assert cache.is_croppable
    for piece in (x[:, :9], x[:, 9:]):
        model(piece, cache=cache)
    cache.crop(-number)
    kept = 13 - number
    assert cache.get_seq_length() == kept
    logits = model(more, cache=cache).logits
    expected = model(torch.cat([x[:, :kept], more], 1)).logits[:, kept:]
    torch.testing.assert_close(logits, expected, **CLOSE)


def recording(model):
    """Return a fresh cache of which every call is recorded, as `generate` makes it for an assistant."""
    cache = model(make_tokens()).cache
    cache.reset()
    cache.activate_past_recording()
    return cache


@torch.no_grad()
def test_crops_that_cannot_be_are_refused():
    model, x = make_model(), make_tokens()
    cache = model(x).cache
    assert not cache.is_croppable
    with pytest.raises(RuntimeError, match=r"cannot take back 1 tokens.*activate_past_recording"):
        cache.crop(-1)
    cache.activate_past_recording()
    model(x, cache=cache)
    with pytest.raises(RuntimeError, match="cannot take back 14 tokens"):
        copy.deepcopy(cache).crop(-14)
    assert {layer.get_seq_length() for layer in cache.layers} == {26}


@torch.no_grad()
def test_caches_of_tokens_that_no_memory_saw_are_refused():
    model, x = make_model(), make_tokens()
    cache = make_base()(x).cache
    with pytest.raises(ValueError, match="layer 1 has seen 13 tokens without one"):
        model(x, cache=cache)
    states = memory_states(model(x).cache)
    for other in (transformers.EncoderDecoderCache(DynamicCache(), DynamicCache()), "cache"):
        with pytest.raises(TypeError, match=f"must be a decoder's Cache, got {type(other).__name__}"):
            set_memory_states(other, states)
