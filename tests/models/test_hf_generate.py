"""`generate()` carries the memory: every way of decoding gives what reading everything from scratch gives."""

import copy
import pickle

import pytest
import torch

from fwpkm.testing.systems import SYSTEMS

transformers = pytest.importorskip("transformers", minversion="5.24")
from fwpkm.models.hf import FwPKMCache  # noqa: E402
from fwpkm.testing.hf_models import make_hf_model as make_model  # noqa: E402
from fwpkm.testing.hf_models import make_tokens  # noqa: E402

NEW = 8
"""New tokens: enough for the tiny memories to be written several times while they come."""
FEW = ("sliding_fwpkm", "mixed")
"""Systems for what only concerns the way around a model; `SYSTEMS` for what concerns its states."""
ASK = {"return_dict_in_generate": True, "output_logits": True, "max_new_tokens": NEW, "do_sample": False}


def assert_recomputed(model, output, mask=None, num_prompt=13):
    """Every step's logits are those of reading the sequence so far at once."""
    whole = output.sequences
    if mask is not None:
        mask = torch.cat([mask, mask.new_ones(len(whole), whole.shape[1] - num_prompt)], 1)
    logits = model(whole, attention_mask=mask, use_cache=False).logits
    for i, step in enumerate(output.logits):
        torch.testing.assert_close(step.double(), logits[:, num_prompt + i - 1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("system", SYSTEMS)
def test_greedy_is_recomputation_from_scratch(system):
    model, x = make_model(system), make_tokens()
    output = model.generate(x, **ASK)
    assert_recomputed(model, output)
    best = torch.stack(output.logits, 1).argmax(-1)
    assert torch.equal(output.sequences, torch.cat([x, best], 1))


@pytest.mark.parametrize("system", FEW)
def test_samples_are_recomputed_too_and_differ(system):
    model, x = make_model(system), make_tokens()
    ask = {**ASK, "do_sample": True, "num_return_sequences": 3, "top_k": 0}
    output = model.generate(x, **ask)
    assert output.sequences.shape == (6, 13 + NEW)
    assert len(output.sequences.unique(dim=0)) == 6
    assert_recomputed(model, output)


@pytest.mark.parametrize(("system", "sample"), [*((name, False) for name in SYSTEMS), ("mixed", True)])
def test_beams_follow_their_memory(system, sample):
    model, x = make_model(system), make_tokens()
    ask = {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": NEW, "do_sample": sample}
    ask |= {"return_dict_in_generate": True, "output_scores": True}
    found = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        found.append(model.generate(x, use_cache=use_cache, **ask))
    cached, scratch = found
    assert torch.equal(cached.sequences, scratch.sequences)
    torch.testing.assert_close(cached.sequences_scores, scratch.sequences_scores)
    # Beams have changed places: without reordering, the search would have gone elsewhere.
    assert (cached.beam_indices[cached.beam_indices >= 0] % 4).unique().numel() > 1


@pytest.mark.parametrize("system", SYSTEMS)
def test_reordered_caches_are_those_of_the_other_streams(system):
    model, x, more = make_model(system), make_tokens(3), make_tokens(4, 9)
    order = torch.tensor([2, 0, 0, 1])
    cache = model(x).cache
    kept = copy.copy(cache)
    cache.reorder_cache(order)
    assert (cache.batch_size, kept.batch_size) == (4, 3)
    logits = model(more, cache=cache).logits
    torch.testing.assert_close(logits, model(torch.cat([x[order], more], 1)).logits[:, 13:])
    assert not torch.allclose(logits, model(torch.cat([x[[0, 1, 2, 0]], more], 1)).logits[:, 13:])


def test_streams_are_chosen_and_repeated():
    model, x, more = make_model(), make_tokens(3), make_tokens(2, 9)
    for choice, rows in ((torch.tensor([False, True, True]), [1, 2]), (torch.tensor([2, 0]), [2, 0])):
        cache = model(x).cache
        cache.batch_select_indices(choice)
        expected = model(torch.cat([x[rows], more], 1)).logits[:, 13:]
        torch.testing.assert_close(model(more, cache=cache).logits, expected)
    cache = model(x[:1]).cache
    cache.batch_repeat_interleave(2)
    expected = model(torch.cat([x[[0, 0]], more], 1)).logits[:, 13:]
    torch.testing.assert_close(model(more, cache=cache).logits, expected)


@pytest.mark.parametrize("system", SYSTEMS)
def test_prompts_of_a_batch_never_share_memory(system):
    model, x = make_model(system), make_tokens(3)
    together = model.generate(x, **ASK)
    for row in range(3):
        alone = model.generate(x[row : row + 1], **ASK)
        assert torch.equal(alone.sequences[0], together.sequences[row])
        for one, all_of_them in zip(alone.logits, together.logits, strict=True):
            torch.testing.assert_close(one[0], all_of_them[row])


@pytest.mark.parametrize("system", SYSTEMS)
def test_left_padding_changes_nothing(system):
    model, lengths = make_model(system), (13, 9, 4)
    x, mask = make_tokens(3), torch.ones(3, 13, dtype=torch.long)
    for row, length in enumerate(lengths):
        x[row, : 13 - length], mask[row, : 13 - length] = 0, 0
    padded = model.generate(x, attention_mask=mask, **ASK)
    assert_recomputed(model, padded, mask)
    for row, length in enumerate(lengths):
        alone = model.generate(x[row : row + 1, 13 - length :], **ASK)
        assert torch.equal(alone.sequences[0, length:], padded.sequences[row, 13:])
        for one, all_of_them in zip(alone.logits, padded.logits, strict=True):
            torch.testing.assert_close(one[0], all_of_them[row])


@pytest.mark.parametrize("system", FEW)
def test_prompts_are_read_in_pieces(system):
    model, x = make_model(system), make_tokens()
    expected = model.generate(x, max_new_tokens=NEW)
    assert torch.equal(model.generate(x, max_new_tokens=NEW, prefill_chunk_size=4), expected)


@pytest.mark.parametrize("system", FEW)
def test_embedded_prompts_are_continued_alike(system):
    model, x = make_model(system), make_tokens()
    embeds = model.get_input_embeddings()(x)
    new = model.generate(inputs_embeds=embeds, max_new_tokens=NEW)
    assert torch.equal(new, model.generate(x, max_new_tokens=NEW)[:, 13:])


@pytest.mark.parametrize("system", FEW)
@pytest.mark.parametrize("only_new", [False, True])
def test_generation_goes_on_from_a_cache(system, only_new):
    model, x, more = make_model(system), make_tokens(), make_tokens(T=5)
    first = model.generate(x, **{**ASK, "max_new_tokens": 8})
    seen = first.cache.get_seq_length()
    assert seen == 13 + 7  # the last token was not read yet
    whole = torch.cat([first.sequences, more], 1)
    mask = torch.ones_like(whole)  # the model may have written what pads
    expected = model.generate(whole, attention_mask=mask, max_new_tokens=NEW)[:, whole.shape[1] :]
    for _ in range(2):  # twice: copies are of their own
        cache = copy.deepcopy(first.cache)
        ids = whole[:, seen:] if only_new else whole
        again = model.generate(ids, attention_mask=mask, cache=cache, max_new_tokens=NEW)
        assert torch.equal(again[:, ids.shape[1] :], expected)
    assert first.cache.get_seq_length() == seen


@pytest.mark.parametrize("system", SYSTEMS)
def test_pickled_caches_never_stopped(system):
    model, x, more = make_model(system), make_tokens(), make_tokens(T=6)
    cache = model(x).cache
    loaded = pickle.loads(pickle.dumps(cache))
    expected = model(more, cache=cache).logits
    torch.testing.assert_close(model(more, cache=loaded).logits, expected, rtol=0, atol=0)


def test_a_state_of_the_decoder_is_continued():
    model, x, more = make_model(), make_tokens(), make_tokens(T=5)
    cache = FwPKMCache(model.decoder(x).cache)
    mask = torch.ones(2, 18, dtype=torch.long)
    new = model.generate(more, attention_mask=mask, cache=cache, max_new_tokens=NEW)
    assert torch.equal(new[:, 5:], model.generate(torch.cat([x, more], 1), max_new_tokens=NEW)[:, 18:])


def test_hidden_states_of_every_step():
    model, x = make_model(), make_tokens()
    output = model.generate(x, output_hidden_states=True, **ASK)
    assert len(output.hidden_states) == NEW
    assert {len(step) for step in output.hidden_states} == {4}
    last = torch.cat([step[-1] for step in output.hidden_states], 1)
    torch.testing.assert_close(last, model.decoder(output.sequences[:, :-1]).hidden)


# Speculation: tokens that turn out wrong must leave the memory


@pytest.mark.parametrize("system", FEW)
def test_prompt_lookup_is_greedy(system):
    model = make_model(system)
    x = make_tokens(1, 6).repeat(1, 4)
    greedy = model.generate(x, **ASK)
    lookup = model.generate(x, prompt_lookup_num_tokens=3, **ASK)
    assert torch.equal(lookup.sequences, greedy.sequences)
    for one, other in zip(lookup.logits, greedy.logits, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("system", FEW)
def test_assisted_generation_is_greedy_whatever_the_assistant_says(system):
    model, x = make_model(system), make_tokens(1)
    noisy = copy.deepcopy(model)
    with torch.no_grad():
        for p in noisy.parameters():
            p.add_(0.02 * torch.randn_like(p))
    greedy = model.generate(x, **ASK)
    for assistant in (noisy, copy.deepcopy(model)):
        assert torch.equal(model.generate(x, assistant_model=assistant, **ASK).sequences, greedy.sequences)


@pytest.mark.parametrize("system", FEW)
@pytest.mark.parametrize("number", [0, 3, 4, 9, 13])
def test_cropped_caches_never_saw_the_rest(system, number):
    model, x, more = make_model(system), make_tokens(), make_tokens(T=7)
    mask = torch.ones(2, 13, dtype=torch.long)
    mask[0, :3] = mask[1, 10] = 0
    cache = FwPKMCache()
    cache.activate_past_recording()
    model(x[:, :9], attention_mask=mask[:, :9], cache=cache)
    model(x[:, 9:], attention_mask=mask[:, 9:], cache=cache)
    cache.crop(-number)
    kept = 13 - number
    assert cache.get_seq_length() == kept
    logits = model(more, cache=cache).logits
    both = torch.cat([x[:, :kept], more], 1), torch.cat([mask[:, :kept], torch.ones_like(more)], 1)
    torch.testing.assert_close(logits, model(both[0], attention_mask=both[1]).logits[:, kept:])


def test_crops_that_cannot_be_are_refused():
    model, x = make_model(), make_tokens()
    cache = model(x).cache
    with pytest.raises(RuntimeError, match=r"cannot take back 1 tokens.*activate_past_recording"):
        cache.crop(-1)
    with pytest.raises(ValueError, match="negative"):
        cache.crop(1)
    cache.activate_past_recording()
    model(x, cache=cache)
    with pytest.raises(RuntimeError, match="cannot take back 14 tokens"):
        cache.crop(-14)
    assert cache.get_seq_length() == 26
    cache.reset()
    assert (cache.get_seq_length(), cache.batch_size, len(cache)) == (0, -1, 0)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        ({"cache_implementation": "static"}, ValueError, "memories need a FwPKMCache, got 'static'"),
        ({"cache": transformers.DynamicCache()}, TypeError, "must be a FwPKMCache"),
        ({"output_attentions": True}, (TypeError, ValueError), "output_attentions"),
    ],
)
def test_what_generation_cannot_do_is_refused(ask, error, message):
    with pytest.raises(error, match=message):
        make_model().generate(make_tokens(), max_new_tokens=2, return_dict_in_generate=True, **ask)
