"""LaCT as a decoder's token mixer: the contract of the memory for whole models, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fwpkm.layers.lact import LaCT, LaCTState
from fwpkm.layers.lact_config import LaCTConfig
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
from fwpkm.models.release import release_tensors
from fwpkm.state import iter_tensors
from fwpkm.testing.states import cut
from fwpkm.testing.systems import make_system

T = 23
few = settings(deadline=None, max_examples=8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Decoder(make_system("lact")).double().eval()


@pytest.fixture(scope="module")
def ids():
    return torch.randint(40, (3, T), generator=torch.Generator().manual_seed(1))


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def read_in_pieces(model, ids, lengths):
    logits, cache = [], None
    for span in cut(T, lengths):
        output = model(ids[:, span], cache)
        logits.append(output.logits)
        cache = output.cache
    return torch.cat(logits, dim=1), cache


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), grad=st.booleans())
@few
def test_pieces_give_the_numbers_of_the_whole(model, ids, lengths, grad):
    with torch.set_grad_enabled(grad):
        whole = model(ids)
        logits, cache = read_in_pieces(model, ids, lengths)
    assert_same(logits, whole.logits)
    assert cache.tokens_seen.tolist() == [T] * 3
    for got, expected in zip(iter_tensors(cache.flush()), iter_tensors(whole.cache.flush()), strict=True):
        assert_same(got, expected)


@given(counts=st.tuples(*[st.integers(1, T)] * 3), left=st.booleans())
@few
def test_padding_and_the_batch_change_nothing(model, ids, counts, left):
    place, counts = torch.arange(T), torch.tensor(counts)[:, None]
    mask = place >= T - counts if left else place < counts
    both = model(ids, mask=mask)
    for b in range(3):
        alone = model(ids[b][mask[b]][None])
        assert_same(both.logits[b][mask[b]][None], alone.logits)
        after = model(ids[:1], both.cache.select(torch.tensor([b]))).logits
        assert_same(after, model(ids[:1], alone.cache).logits)


def test_forks_never_see_each_other(model, ids):
    parent = model(ids).cache
    kept = [x.clone() for x in iter_tensors(parent)]
    twins = parent.fork(2)
    assert twins.num_streams == 6
    expected = model(ids, parent).logits
    assert_same(model(ids.repeat_interleave(2, 0), twins).logits, expected.repeat_interleave(2, 0))
    assert_same(model(ids.flip(0), parent.select(torch.tensor([2, 1, 0]))).logits, expected.flip(0))
    for now, before in zip(iter_tensors(parent), kept, strict=True):
        assert torch.equal(now, before)


def test_a_later_token_changes_nothing_before_it(model, ids):
    changed = ids.clone()
    changed[:, 11] = (changed[:, 11] + 1) % 40
    before, after = model(ids).logits, model(changed).logits
    assert torch.equal(before[:, :11], after[:, :11])
    assert not torch.allclose(before[:, 11:], after[:, 11:])


def test_the_fast_networks_reach_beyond_the_window(model, ids):
    """With three windows of 6 nothing but fast weights leads from the first token to the last."""
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 40
    assert not torch.allclose(model(ids).logits[:, -1], model(changed).logits[:, -1], rtol=1e-6, atol=1e-8)


def test_checkpointed_training_has_the_same_gradients(model, ids):
    grads = []
    for checkpointing in (False, True):
        twin = Decoder(model.config).double().train()
        twin.load_state_dict(model.state_dict())
        twin.gradient_checkpointing = checkpointing
        twin.loss(ids)[0].backward()
        grads.append({name: p.grad for name, p in twin.named_parameters()})
    assert all(grad is not None for grad in grads[0].values())
    for name, grad in grads[0].items():
        assert_same(grads[1][name], grad)


def test_a_saved_cache_goes_on_as_if_never_stopped(model, ids, tmp_path):
    cache = model(ids).cache
    cache.save(tmp_path / "memory", model)
    loaded = type(cache).load(tmp_path / "memory", model)
    assert torch.equal(model(ids, loaded).logits, model(ids, cache).logits)


def test_a_state_says_what_it_takes(model, ids):
    state = model(ids).cache.blocks[0].mixer
    assert isinstance(state, LaCTState)
    config = model.config.lact
    window = 2 * (config.window - 1) * config.width
    networks = 3 * config.num_fast_heads * config.fast_head_dim * config.fast_hidden_dim
    assert state.num_bytes >= 8 * 3 * (window + networks)


def test_the_config_goes_through_a_mapping_even_where_a_default_is_unset():
    lact = {"num_heads": 2, "head_dim": 8, "num_fast_heads": 2, "window": "none", "initial_rank": "none"}
    config = make_system("lact", lact=lact)
    assert config.lact is not None
    assert (config.lact.window, config.lact.initial_rank) == (None, None)
    assert DecoderConfig.from_dict(config.to_dict()) == config


def test_lact_stands_beside_other_mixers(ids):
    sections = {"gated_delta_net": make_system("delta_fwmlp").gated_delta_net}
    config = make_system("lact", mixers=["gated_delta_net", "lact"], **sections)
    kinds = [type(block.mixer).__name__ for block in Decoder(config).blocks]
    assert kinds == ["GatedDeltaNet", "LaCT", "GatedDeltaNet"]


def test_a_section_without_its_mixer_is_refused():
    with pytest.raises(ValueError, match="lact is used by no layer; leave it out"):
        make_system("full", lact=LaCTConfig())
    with pytest.raises(ValueError, match="lact must be given, as some layer uses it"):
        make_system("lact", lact=None)
    with pytest.raises(ValueError, match="unknown value 'lakt'; did you mean 'lact'"):
        make_system("lact", mixers=["lakt"])


def test_the_release_has_nothing_like_it(model):
    assert isinstance(model.blocks[0].mixer, LaCT)
    with pytest.raises(ValueError, match=r"nothing like our .*mixer\."):
        release_tensors(model)
