"""The contract of the memory for whole models, P1 to P5 and P7, for every system of the study, in float64."""

import json
import pickle
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.state import iter_tensors
from fwpkm.testing.states import cut, named_tensors
from fwpkm.testing.systems import SYSTEMS, make_system

T = 18  # three chunks and a rest
lengths = st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(lambda x: sum(x) >= 3 * len(x))
few = settings(max_examples=4)
systems = pytest.mark.parametrize("system", SYSTEMS)
MODELS: dict[str, Decoder] = {}


def model_of(system: str) -> Decoder:
    if system not in MODELS:
        torch.manual_seed(0)
        MODELS[system] = Decoder(make_system(system)).double().eval()
    return MODELS[system]


def tokens(B=3, seed=1, length=T):
    return torch.randint(40, (B, length), generator=torch.Generator().manual_seed(seed))


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def read_in_pieces(model, ids, spans, mask=None):
    logits, cache = [], None
    for span in spans:
        output = model(ids[:, span], cache, None if mask is None else mask[:, span])
        logits.append(output.logits)
        cache = output.cache
    return torch.cat(logits, dim=1), cache


def assert_goes_on_alike(model, got: DecoderCache, expected: DecoderCache, seed=2):
    """Two caches are the same memory if nothing that is read later tells them apart."""
    assert got.tokens_seen.tolist() == expected.tokens_seen.tolist()
    later = tokens(got.num_streams, seed, 7)
    assert_same(model(later, got).logits, model(later, expected).logits)


@systems
@few
@given(lengths=lengths, grad=st.booleans())
def test_p1_pieces_give_the_numbers_of_the_whole(system, lengths, grad):
    model, ids = model_of(system), tokens()
    with torch.set_grad_enabled(grad):
        whole = model(ids)
        logits, cache = read_in_pieces(model, ids, cut(T, lengths))
        assert_same(logits, whole.logits)
        assert_goes_on_alike(model, cache, whole.cache)


@systems
def test_p1_token_by_token_gives_the_numbers_of_the_whole(system):
    model, ids = model_of(system), tokens()
    with torch.inference_mode():
        whole = model(ids)
        logits, cache = read_in_pieces(model, ids, cut(T, [1]))
        assert_same(logits, whole.logits)
        assert_goes_on_alike(model, cache, whole.cache)


@systems
@few
@given(counts=st.tuples(*[st.integers(0, T)] * 3), left=st.booleans(), lengths=lengths)
def test_p3_padding_and_the_batch_change_nothing(system, counts, left, lengths):
    model, ids, place = model_of(system), tokens(), torch.arange(T)
    counts = torch.tensor(counts)[:, None]
    mask = place >= T - counts if left else place < counts
    with torch.no_grad():
        logits, cache = read_in_pieces(model, ids, cut(T, lengths), mask)
        for b in range(3):
            alone = model(ids[b][mask[b]][None])
            assert_same(logits[b][mask[b]][None], alone.logits)
            assert_goes_on_alike(model, cache.select(torch.tensor([b])), alone.cache)


@systems
def test_p3_what_another_stream_reads_changes_not_one_gradient(system):
    model, ids = model_of(system), tokens(2)
    embedded = model.embed(ids).detach().requires_grad_()
    (grad,) = torch.autograd.grad(model.read(embedded).logits[0].square().sum(), embedded)
    assert (grad[0] != 0).any(-1).all(), "every token of the stream itself counts"
    assert (grad[1] == 0).all()


@systems
@few
@given(at=st.integers(1, T - 1))
def test_p4_no_output_depends_on_a_later_token(system, at):
    model, ids = model_of(system), tokens()
    changed = ids.clone()
    changed[:, at:] = (ids[:, at:] + 1) % 40
    with torch.no_grad():
        before, after = model(ids).logits, model(changed).logits
    assert_same(after[:, :at], before[:, :at])
    assert not torch.equal(after[:, at:], before[:, at:])


@systems
def test_p1_flushing_after_pieces_is_flushing_after_the_whole(system):
    model, ids = model_of(system), tokens()
    with torch.no_grad():
        whole, pieces = model(ids).cache, read_in_pieces(model, ids, cut(T, [7, 4]))[1]
        assert_goes_on_alike(model, pieces.flush(), whole.flush())


@systems
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_p5_a_given_cache_is_untouched_and_forks_never_see_each_other(system, mode):
    model, ids = model_of(system), tokens(2)
    with mode():
        parent = model(ids).cache
        kept = [x.clone() for x in iter_tensors(parent)]
        expected = model(tokens(2, 3), parent)
        twins = parent.fork(2)
        assert twins.num_streams == 4
        other = model(tokens(4, 4), twins)
        again = model(tokens(2, 3), parent)
        assert torch.equal(again.logits, expected.logits)
        twice = model(tokens(2, 3).repeat_interleave(2, 0), twins)
        assert_same(twice.logits, expected.logits.repeat_interleave(2, 0))
        for now, before in zip(iter_tensors(parent), kept, strict=True):
            assert torch.equal(now, before)
        alone = model(tokens(4, 4)[:1], parent.select(torch.tensor([0])))
        assert_same(other.logits[:1], alone.logits)


@systems
def test_p2_a_pickled_cache_goes_on_as_if_never_stopped(system):
    model, ids = model_of(system), tokens()
    with torch.no_grad():
        cache = model(ids).cache
        assert_goes_on_alike(model, pickle.loads(pickle.dumps(cache)), cache)


ELSEWHERE = """
import json, sys, torch
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
torch.set_num_threads(1)
out = {}
for name, x in torch.load(sys.argv[1], weights_only=False).items():
    model = Decoder(DecoderConfig.from_dict(json.loads(x["config"]))).double().eval()
    model.load_state_dict(x["weights"])
    with torch.no_grad():
        out[name] = model(x["later"], x["cache"]).logits
torch.save(out, sys.argv[2])
"""


def test_p2_a_cache_saved_here_goes_on_in_another_process(tmp_path):
    there, expected, later = {}, {}, tokens(3, 5, 9)
    with torch.no_grad():
        for system in SYSTEMS:
            model = model_of(system)
            cache = model(tokens()).cache
            expected[system] = model(later, cache).logits
            there[system] = {
                "config": json.dumps(model.config.to_dict()),
                "weights": model.state_dict(),
                "cache": cache,
                "later": later,
            }
    torch.save(there, tmp_path / "there.pt")
    command = [sys.executable, "-c", ELSEWHERE, tmp_path / "there.pt", tmp_path / "back.pt"]
    subprocess.run(command, check=True)
    back = torch.load(tmp_path / "back.pt")
    for system in SYSTEMS:
        assert_same(back[system], expected[system])


def gradients(model, ids):
    model.zero_grad()
    loss, output = model.loss(ids)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), found, output


@systems
def test_p7_gradient_checkpointing_gives_the_same_loss_gradients_and_memory(system):
    torch.manual_seed(0)
    model, ids = Decoder(make_system(system)).double().train(), tokens()
    loss, plain, output = gradients(model, ids)
    model.gradient_checkpointing = True
    again, checkpointed, other = gradients(model, ids)
    assert_same(again, loss)
    assert plain.keys() == checkpointed.keys() == dict(model.named_parameters()).keys()
    for name, grad in plain.items():
        assert_same(checkpointed[name], grad)
        assert grad.abs().max() > 0, f"{name} is trained"
    with torch.no_grad():
        assert_goes_on_alike(model.eval(), other.cache.detach(), output.cache.detach())


@systems
@settings(max_examples=2)
@given(lengths=lengths)
def test_p7_gradients_through_pieces_equal_those_of_the_whole(system, lengths):
    model, ids = model_of(system), tokens(2)

    def found(logits):
        parameters = dict(model.named_parameters())
        grads = torch.autograd.grad(logits.sin().sum(), parameters.values(), allow_unused=True)
        return {name: g for name, g in zip(parameters, grads, strict=True) if g is not None}

    whole, pieces = found(model(ids).logits), found(read_in_pieces(model, ids, cut(T, lengths))[0])
    assert whole.keys() == pieces.keys()
    for name, grad in whole.items():
        scale = max(1.0, grad.abs().max().item())
        torch.testing.assert_close(
            pieces[name], grad, rtol=1e-7, atol=1e-8 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_decoder_made_on_the_meta_device_is_filled_as_a_fresh_one(system):
    config = make_system(system)
    with torch.device("meta"):
        model = Decoder(config)
    model.to_empty(device="cpu")
    for x in named_tensors(model).values():
        x.data.fill_(float("nan"))
    model.reset_parameters()
    fresh = Decoder(config)
    found, expected = named_tensors(model), named_tensors(fresh)
    assert found.keys() == expected.keys()
    for name, x in found.items():
        if expected[name].unique().numel() < 2:  # one number, whichever the seed
            assert torch.equal(x, expected[name]), name
        else:
            assert x.isfinite().all(), name
        if x.numel() > 200:
            assert x.std().item() == pytest.approx(expected[name].std().item(), rel=0.4), name
    tokens = torch.randint(config.vocab_size, (2, 9))
    assert model(tokens).logits.isfinite().all()
