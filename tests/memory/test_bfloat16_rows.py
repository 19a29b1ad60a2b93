"""Tables kept in bfloat16: computed with in float32, rounded as they are put away, and a value like any other."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fwpkm import FwPKM
from fwpkm.memory.forget import forget
from fwpkm.memory.join import join_states, merge_states
from fwpkm.memory.pool import MemoryPool
from fwpkm.memory.state import FwPKMState
from fwpkm.testing.inputs import make_hidden, make_layer
from fwpkm.testing.states import assert_same_state, cut, in_pieces, state_numbers

pytestmark = pytest.mark.usefixtures("each_backend")

HALF_STEP = 2.0**-8
"""Largest relative error of a number rounded to bfloat16's 8 bits."""
MODES = {"grad": nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def make_pair(seed=0, **changes):
    """Return a layer with narrow tables, and one that keeps the same base table in float32."""
    narrow = make_layer(seed, dtype=torch.float32, table_dtype="bfloat16", **changes)
    wide = FwPKM(replace(narrow.config, table_dtype="float32"))
    wide.load_state_dict(narrow.state_dict(), strict=True)
    if narrow.initial_values is not None:
        assert narrow.initial_values.dtype == torch.bfloat16
        wide.initial_values = narrow.initial_values.float()
    return narrow, wide


def make_read(layer, tokens, seed=0, streams=1):
    with torch.no_grad():
        return layer(make_hidden(layer, streams, tokens, seed))


@given(
    seed=st.integers(0, 10**6),
    T=st.integers(1, 20),
    initial_values=st.sampled_from(["random", "zero"]),
    write_rule=st.sampled_from(["paper", "exact", "release"]),
)
def test_a_call_from_afresh_computes_in_float32_and_rounds_what_it_leaves(
    seed, T, initial_values, write_rule
):
    narrow, wide = make_pair(seed, initial_values=initial_values, write_rule=write_rule)
    x = make_hidden(narrow, 2, T)
    (y, state), (expected, exact) = narrow(x), wide(x)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(state.table.dense(), exact.table.dense(), rtol=1.01 * HALF_STEP, atol=1e-6)
    for name, grad in _gradients(narrow, y).items():
        torch.testing.assert_close(grad, _gradients(wide, expected)[name], rtol=1e-5, atol=1e-6)


def _gradients(layer, y):
    named = dict(layer.named_parameters())
    grads = torch.autograd.grad(y.sin().sum(), list(named.values()), retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(named, grads, strict=True) if g is not None}


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    T=st.integers(1, 24),
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    mode=st.sampled_from(sorted(MODES)),
    change=st.sampled_from([{}, {"initial_values": "zero"}, {"table": "batch"}, {"write_rule": "exact"}]),
)
def test_any_split_in_any_mode_differs_by_roundings_only(seed, T, lengths, mode, change):
    narrow, wide = make_pair(seed, **change)
    x = make_hidden(narrow, 2, T)
    with torch.no_grad():
        expected, exact = wide(x)
    with MODES[mode]():
        y, state = in_pieces(lambda s, piece: narrow(piece, s), None, (x,), cut(T, lengths))
    # A slot's error is at most half a step for each time it was put away, and no write makes errors larger.
    largest = max(1.0, exact.table.dense().abs().max().item())
    bound = 2 * (T + 1) * HALF_STEP * largest
    assert (state.table.dense() - exact.table.dense()).abs().max() < bound
    assert state.table.store.rows.dtype == torch.bfloat16
    torch.testing.assert_close(state.keys, exact.keys, rtol=1e-4, atol=1e-5)
    assert (y - expected).abs().max() < 20 * bound


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), tokens=st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_no_older_version_changes(seed, tokens):
    layer, _ = make_pair(seed)
    _, state = make_read(layer, 5)
    kept = [(state, state_numbers(state))]
    for i, count in enumerate(tokens):
        with torch.no_grad():
            _, state = layer(make_hidden(layer, 1, count, seed=i), kept[i // 2][0])
        kept.append((state, state_numbers(state)))
    for state, numbers in reversed(kept):
        for name, x in state_numbers(state).items():
            assert torch.equal(x, numbers[name]), name


@pytest.mark.parametrize("tokens", [1, 3, 200])
def test_reading_adds_up_the_rows_as_they_are_kept(tokens):
    layer, _ = make_pair(num_subkeys=20)
    _, state = make_read(layer, 13)
    frozen = state.freeze()
    q, v, _ = layer.project(make_hidden(layer, 1, tokens))
    with torch.no_grad():
        got, _ = frozen.advance(q, v, None)
    dense = state.table.dense()
    wide = FwPKMState.fresh(
        state.keys[0], dense[0], state.options, num_streams=1, value_dim=8, temperature=state.temperature
    )
    expected, _ = wide.freeze().advance(q, v, None)
    torch.testing.assert_close(got, expected.detach(), rtol=1e-5, atol=1e-6)


def test_files_and_pools_keep_the_bits_and_take_half_the_room(tmp_path):
    narrow, wide = make_pair(value_dim=64)
    (_, state), (_, large) = make_read(narrow, 19), make_read(wide, 19)
    assert state.table.num_rows == large.table.num_rows
    rows = large.table.num_bytes - state.table.num_bytes
    assert rows == 2 * 64 * large.table.store.used
    reports = [s.save(tmp_path / n, layer) for s, n, layer in ((state, "n", narrow), (large, "w", wide))]
    assert reports[0].loss == 0
    assert reports[1].num_bytes - reports[0].num_bytes > 2 * 64 * state.table.num_rows - 100
    pool = MemoryPool(block_rows=64)
    for again in (FwPKMState.load(tmp_path / "n", narrow), pool.park(state).restore()):
        assert again.table.store.rows.dtype == torch.bfloat16
        assert_same_state(again, state, rtol=0.0, atol=0.0)
        assert_same_state(make_on(narrow, again), make_on(narrow, state), rtol=0.0, atol=0.0)
    assert pool.num_bytes < 4 * 64 * 128


def make_on(layer, state):
    with torch.no_grad():
        return layer(make_hidden(layer, state.num_streams, 7, seed=3), state)[1]


def test_memories_join_merge_and_go_to_other_devices():
    layer, _ = make_pair()
    (_, a), (_, b) = make_read(layer, 9, seed=1), make_read(layer, 9, seed=2)
    both = join_states([a, b])
    for i, state in enumerate((a, b)):
        assert_same_state(both.select(torch.tensor([i])), state, rtol=0.0, atol=0.0)
    merged = merge_states(a, b)
    assert merged.table.store.rows.dtype == torch.bfloat16
    assert_same_state(a.to("cpu"), a, rtol=0.0, atol=0.0)


def test_what_is_forgotten_is_gone_bit_by_bit():
    layer, _ = make_pair(key_loss="none")
    fresh = layer.initial_state(1).with_journal()
    with torch.no_grad():
        state = layer(make_hidden(layer, 1, 9, seed=1), fresh)[1].flush()
        after = layer(make_hidden(layer, 1, 8, seed=2), state)[1].flush()
    seen = state.tokens_seen[0]
    gone = forget(after, seen, after.tokens_seen[0]).state
    cells = state.table.written()
    assert torch.equal(gone.table.dense(), state.table.dense())
    assert torch.equal(gone.table.written(), cells)


def test_the_base_table_stays_narrow_wherever_the_module_goes():
    layer, _ = make_pair()
    before = layer.initial_values.clone()
    for convert in (FwPKM.half, FwPKM.bfloat16, FwPKM.double, FwPKM.float):
        convert(layer)
        assert layer.initial_values.dtype == torch.bfloat16
        assert torch.equal(layer.initial_values, before)
    layer.reset_initial()
    assert torch.equal(layer.initial_values, before)
    with torch.no_grad():
        _, state = layer(make_hidden(layer, 1, 9))
        layer.store_initial(state)
    assert torch.equal(layer.initial_values.float(), state.table.dense()[0])


def test_what_an_optimizer_trains_is_not_kept_narrow():
    with pytest.raises(ValueError, match="initial_values='learned' needs 'float32'"):
        make_layer(table_dtype="bfloat16", initial_values="learned")
