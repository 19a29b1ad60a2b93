"""Single tokens answered in one compiled call, against the definition: all slots scored, tables spelled out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.memory.overlay import Overlay
from fwpkm.ops.addressing import key_squares
from fwpkm.ops.addressing.naive import product_key_topk_naive
from fwpkm.ops.answer import answer_tokens, can_answer, read_cells
from fwpkm.ops.backend import use_backend
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.weights import read_weights


def draw_table(S, n, Dv, based, written):
    """Return tables of S streams with some rows written over the base, or over zeros."""
    base = torch.randn(n * n, Dv).double() if based else None
    cells = torch.randperm(S * n * n)[:written]
    table = Overlay.fresh(base, S, n * n, torch.empty(0, Dv, dtype=torch.float64))
    return table.put(cells, torch.randn(len(cells), Dv).double(), torch.ones(len(cells), dtype=torch.bool))


@given(
    seed=st.integers(0, 10**6),
    shared=st.booleans(),
    heads=st.integers(1, 3),
    topk=st.integers(1, 4),
    score=st.sampled_from(["idw", "dot"]),
    weights=st.sampled_from(["softmax", "silu", "relu"]),
    based=st.booleans(),
)
def test_it_retrieves_what_the_definition_does(seed, shared, heads, topk, score, weights, based):
    torch.manual_seed(seed)
    B, T, n, half, Dv = 2, 3, 5, 4, 6
    S, options = 1 if shared else B, CoreOptions(topk=topk, score=score, weights=weights)
    q, keys = (
        torch.randn(B, T, heads, 2 * half).double(),
        torch.randn(S, 2, heads, n, half).double(),
    )
    temperature = torch.rand(()).double() + 0.5
    store = draw_table(S, n, Dv, based, written=7).store
    out = answer_tokens(
        q, keys, key_squares(keys, score), store.base, store.index, store.rows, temperature, options
    )
    dense = Overlay(store).dense()
    for b in range(B):
        s = 0 if shared else b
        best, slot = product_key_topk_naive(q[b], keys[s], topk, score)
        w = read_weights(best.flatten(1), weights, temperature)
        expected = torch.einsum("tj,tjd->td", w, dense[s][slot.flatten(1)])
        torch.testing.assert_close(out[b], expected)


def test_streams_that_share_expanded_keys_are_answered_alike():
    keys = torch.randn(1, 2, 1, 5, 4).double().expand(3, 2, 1, 5, 4)
    q, store = torch.randn(1, 1, 1, 8).double().expand(3, 1, 1, 8), draw_table(3, 5, 6, True, 0).store
    out = answer_tokens(
        q,
        keys,
        key_squares(keys, "idw"),
        store.base,
        store.index,
        store.rows,
        torch.ones(()).double(),
        CoreOptions(topk=2),
    )
    assert torch.equal(out, out[:1].expand_as(out))


@given(seed=st.integers(0, 10**6), num_tokens=st.integers(0, 80), based=st.booleans())
def test_cells_are_read_wherever_their_rows_are(seed, num_tokens, based):
    torch.manual_seed(seed)
    table = draw_table(2, 4, 3, based, written=9)
    w, cells = torch.rand(num_tokens, 2).double(), torch.randint(32, (num_tokens, 2))
    got = read_cells(w, cells, table.store.base, table.store.index, table.store.rows)
    torch.testing.assert_close(got, torch.einsum("mj,mjd->md", w, table.dense().flatten(0, 1)[cells]))


@pytest.mark.parametrize(
    ("shape", "backend", "grad", "there"),
    [
        ((1, 1, 4), "auto", False, True),
        ((2, 4, 4), "auto", False, True),
        ((3, 3, 4), "auto", False, False),
        ((1, 1, 4), "auto", True, False),
        ((1, 1, 4), "torch", False, False),
    ],
)
def test_it_answers_few_tokens_without_a_graph(shape, backend, grad, there):
    with use_backend(backend), torch.set_grad_enabled(grad):
        assert can_answer(torch.zeros(shape)) is there
