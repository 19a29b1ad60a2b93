"""Batches made of memories, merged memories, and memories that only read."""

import pytest
import torch

from fwpkm import FwPKM, FwPKMConfig
from fwpkm.layers.fwmlp import FastWeightMLP, FastWeightMLPConfig
from fwpkm.memory.join import join_states, merge_states
from fwpkm.models.decoder import Decoder
from fwpkm.testing.states import assert_same_state
from fwpkm.testing.systems import make_system

SMALL = {"dim": 6, "num_subkeys": 7, "key_dim": 4, "value_dim": 5, "chunk_size": 4, "topk": 2}


def make_layer(**changes):
    torch.manual_seed(0)
    return FwPKM(FwPKMConfig(**{**SMALL, **changes})).double()


@torch.no_grad()
def read(layer, tokens, state=None, streams=1):
    return layer(torch.randn(streams, tokens, 6).double(), state)[1]


def test_join_undoes_select():
    layer = make_layer()
    state = read(layer, 11, streams=3)
    parts = [state.select(torch.tensor([b])) for b in range(3)]
    assert_same_state(join_states(parts), state, rtol=0.0, atol=0.0)
    uneven = [read(layer, tokens) for tokens in (0, 3, 22)]
    joined = join_states(uneven)
    assert joined.tokens_seen == (0, 3, 22)
    for b, state in enumerate(uneven):
        assert_same_state(joined.select(torch.tensor([b])), state, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("rule", ["mean", "sum", "first", "second"])
def test_merged_memories_keep_what_one_wrote_and_settle_what_both_wrote_by_the_rule(rule):
    layer = make_layer()
    a, b = read(layer, 20, streams=2), read(layer, 13, streams=2)
    merged = merge_states(a, b, rule)
    a, b = a.flush(), b.flush()
    base = layer.initial_values.expand(2, -1, -1)
    A, B, M = (s.table.dense() for s in (a, b, merged))
    wrote_a, wrote_b = ((t - base).abs().amax(-1) > 0 for t in (A, B))
    assert (wrote_a & wrote_b).any()
    assert (wrote_a & ~wrote_b).any()
    assert torch.equal(M[wrote_a & ~wrote_b], A[wrote_a & ~wrote_b])
    assert torch.equal(M[~wrote_a], B[~wrote_a])
    both = wrote_a & wrote_b
    expected = {"mean": (A + B) / 2, "sum": A + B - base, "first": A, "second": B}[rule]
    torch.testing.assert_close(M[both], expected[both])
    assert merged.tokens_seen == (33, 33)
    read(layer, 9, merged, streams=2)


def test_merging_with_a_memory_that_has_read_nothing_changes_no_row():
    layer = make_layer()
    a = read(layer, 20)
    merged = merge_states(a, layer.initial_state(1), "sum")
    assert torch.equal(merged.table.dense(), a.flush().table.dense())


def test_memories_that_do_not_go_together_are_refused():
    layer = make_layer()
    with pytest.raises(ValueError, match="as many streams, got 1 and 2"):
        merge_states(read(layer, 3), read(layer, 3, streams=2))
    with pytest.raises(ValueError, match="base table"):
        merge_states(read(layer, 3), read(make_layer(), 3))


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("table", ["stream", "batch"])
def test_a_frozen_memory_answers_every_token_from_the_same_table(graph, table):
    layer = make_layer(table=table)
    state = read(layer, 10, streams=2).freeze()
    x = torch.randn(2, 15, 6).double()
    with torch.set_grad_enabled(graph):
        whole, after = layer(x, state)
        single = torch.cat([layer(x[:, t : t + 1], state)[0] for t in range(15)], dim=1)
    assert after is not state or not graph
    assert_same_state(after, state, rtol=0.0, atol=0.0)
    torch.testing.assert_close(whole, single)
    assert state.flush() is state
    thawed, _ = layer(x[:, :2], state.thaw())
    torch.testing.assert_close(thawed, whole[:, :2])
    if graph:
        whole.sum().backward()
        assert layer.q_proj.weight.grad.abs().sum() > 0


def test_a_frozen_memory_skips_padding():
    layer = make_layer()
    state = read(layer, 10, streams=2).freeze()
    x, mask = torch.randn(2, 5, 6).double(), torch.tensor([[True] * 5, [False, True, False, True, True]])
    x[1, 0] = float("nan")
    with torch.no_grad():
        y, _ = layer(x, state, mask)
        alone, _ = layer(x[1:, mask[1]], state.select(torch.tensor([1])))
    torch.testing.assert_close(y[1, mask[1]], alone[0])
    assert (y[1, ~mask[1]] == 0).all()


def test_a_frozen_fast_network_answers_every_token_alike():
    torch.manual_seed(0)
    layer = FastWeightMLP(FastWeightMLPConfig(dim=6, hidden_dim=8, key_dim=4, value_dim=5, chunk_size=4))
    with torch.no_grad():
        _, state = layer(torch.randn(2, 9, 6))
        x, frozen = torch.randn(2, 14, 6), state.freeze()
        whole, after = layer(x, frozen)
        single = torch.cat([layer(x[:, t : t + 1], frozen)[0] for t in range(14)], dim=1)
    torch.testing.assert_close(whole, single)
    assert after.tokens_seen == state.tokens_seen == (9, 9)
    assert after.waiting is state.waiting


@pytest.mark.parametrize("name", ["mixed", "delta_fwmlp"])
def test_a_frozen_cache_keeps_its_memories_and_goes_on_mixing_tokens(name):
    model = Decoder(make_system(name))
    with torch.no_grad():
        cache = model(torch.randint(40, (1, 17))).cache.freeze()
        after = model(torch.randint(40, (1, 9)), cache).cache
        on = model(torch.randint(40, (1, 9)), after.thaw()).cache
    assert after.tokens_seen.tolist() == [26]
    for old, new, later in zip(cache.blocks, after.blocks, on.blocks, strict=True):
        if old.memory is not None:
            assert new.memory.tokens_seen == old.memory.tokens_seen
            assert new.memory.waiting is old.memory.waiting
            assert later.memory.tokens_seen == (26,)
