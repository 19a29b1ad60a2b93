"""P8 and P1 of the contract, below the layer: the fast recurrence in any cuts equals the definition in one go."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fwpkm.memory import recurrence
from fwpkm.ops.core.naive import core_naive
from fwpkm.ops.core.options import CoreOptions
from fwpkm.testing.accuracy import assert_all_accurate, rounding_noise
from fwpkm.testing.inputs import make_core_inputs
from fwpkm.testing.states import assert_same_but_for_noise, assert_same_numbers, cut, in_pieces, make_state

pytestmark = pytest.mark.usefixtures("each_backend")

fast_options = st.builds(
    CoreOptions,
    topk=st.integers(1, 3),
    chunk_size=st.integers(1, 6),
    lookahead=st.integers(0, 8),
    score=st.sampled_from(["idw", "dot"]),
    weights=st.sampled_from(["softmax", "silu"]),
    write_rule=st.sampled_from(["paper", "release", "exact"]),
    value_lr=st.sampled_from([0.5, 1.0]),
    key_lr=st.sampled_from([0.2, 1.0]),
    key_loss=st.sampled_from(["entropy", "none"]),
    addressing_weight=st.sampled_from([0.5, 1.0]),
)
MODES = {"grad": nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def by_definition(x, keys, options, temperature=1.0, flush=False):
    """Run one literal core per memory: streams alone, or all together where there is one set of keys."""
    parts = [slice(s, s + 1) for s in range(len(keys))] if len(keys) > 1 else [slice(None)]
    traces = [
        core_naive(
            x.q[b], x.v[b], x.gate[b], keys[s], x.values, options, temperature=temperature, flush=flush
        )
        for s, b in enumerate(parts)
    ]
    return (
        torch.cat([trace.output for trace in traces]),
        torch.stack([trace.keys for trace in traces]),
        torch.stack([trace.values for trace in traces]),
    )


def fast(x, keys, options, temperature=1.0, lengths=(1000,), *, form=False):
    state = make_state(keys, x.values, options, num_streams=len(x.v), temperature=temperature)
    spans = cut(x.v.shape[1], lengths)

    def call(state, q, v, gate):
        return state.advance(q, v, gate, by_definition=form)

    out, state = in_pieces(call, state, (x.q, x.v, x.gate), spans)
    return out, state.keys, state.table.dense()


def with_gradients(run, x, keys, *args, **how):
    """Return outputs, keys, tables, and the gradients of everything that goes in."""
    x, keys = x.leaves(), keys.detach().clone().requires_grad_()
    temperature = torch.tensor(0.8, dtype=x.v.dtype, requires_grad=True)
    out, after, table = run(x, keys, *args, temperature=temperature, **how)
    loss = out.sin().sum() + after.square().sum() + table.sin().sum()
    leaves = {
        "q": x.q,
        "v": x.v,
        "gate": x.gate,
        "values": x.values,
        "keys": keys,
        "temperature": temperature,
    }
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    named = {
        f"d {name}": torch.zeros_like(leaf) if g is None else g
        for (name, leaf), g in zip(leaves.items(), grads, strict=True)
    }
    return {"output": out.detach(), "keys": after.detach(), "table": table.detach(), **named}


def make_streams(seed, *, B, T, shared, **sizes):
    x = make_core_inputs(seed, B=B, T=T, **sizes)
    others = [make_core_inputs(seed + 1 + b, T=1, **sizes).keys for b in range(B)]
    return x, torch.stack(others[:1] if shared else others)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    B=st.integers(1, 3),
    T=st.integers(1, 17),
    H=st.integers(1, 2),
    n=st.integers(3, 5),
    shared=st.booleans(),
    options=fast_options,
    spread=st.sampled_from([1.0, 0.02]),
    mode=st.sampled_from(sorted(MODES)),
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
)
def test_any_cut_in_any_mode_equals_the_definition_in_one_call(
    seed, B, T, H, n, shared, options, spread, mode, lengths
):
    x, keys = make_streams(seed, B=B, T=T, shared=shared, H=H, n=n, spread=spread)
    with MODES[mode]():
        got = fast(x, keys, options, lengths=lengths)
    names = ("output", "keys", "table")
    expected = dict(zip(names, by_definition(x, keys, options), strict=True))
    assert_same_numbers(dict(zip(names, got, strict=True)), expected)


@pytest.mark.parametrize("pairs", [1, 40])
def test_how_many_windows_are_scanned_together_changes_nothing(pairs, monkeypatch):
    x, keys = make_streams(7, B=2, T=60, shared=False, H=2, n=4)
    options = CoreOptions(topk=2, chunk_size=5, write_rule="exact")
    with torch.no_grad():
        together = fast(x, keys, options, lengths=(31,))
        monkeypatch.setattr(recurrence, "_PAIRS_AT_ONCE", pairs)
        apart = fast(x, keys, options, lengths=(31,))
    for name, a, b in zip(("output", "keys", "table"), apart, together, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@given(
    seed=st.integers(0, 10**6),
    B=st.integers(1, 2),
    T=st.integers(1, 13),
    H=st.integers(1, 2),
    shared=st.booleans(),
    options=fast_options,
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
@example(  # gradients of 1e9
    seed=0,
    B=1,
    T=5,
    H=2,
    shared=False,
    lengths=[1],
    options=CoreOptions(
        topk=3,
        chunk_size=1,
        lookahead=0,
        score="dot",
        weights="silu",
        write_rule="release",
        value_lr=0.5,
        key_lr=0.2,
        addressing_weight=0.5,
    ),
)
def test_gradients_through_any_cut_equal_those_of_the_definition_in_one_call(
    seed, B, T, H, shared, options, lengths
):
    x, keys = make_streams(seed, B=B, T=T, shared=shared, H=H, n=4)
    got = with_gradients(fast, x, keys, options, lengths=lengths)

    def defined(q, v, gate, values, keys):
        moved = replace(x, q=q, v=v, gate=gate, values=values)
        return with_gradients(by_definition, moved, keys, options)

    # With weights that don't sum to 1 a table may grow with every write, and its gradients lose all their digits.
    noise = rounding_noise(defined, x.q, x.v, x.gate, x.values, keys)
    expected = with_gradients(by_definition, x, keys, options)
    assert_same_but_for_noise(got, expected, noise, rtol=1e-6, atol=1e-8)


@given(seed=st.integers(0, 10**6), T=st.integers(1, 17), rule=st.sampled_from(["paper", "release", "exact"]))
def test_dropped_borders_equal_the_definition_call_by_call(seed, T, rule):
    """A call's last chunk is written at its end, so here the calls are part of the definition (D2)."""
    options = CoreOptions(topk=2, chunk_size=4, border="dropped", write_rule=rule)
    x, keys = make_streams(seed, B=2, T=T, shared=False)
    got = with_gradients(fast, x, keys, options)
    assert_same_numbers(got, with_gradients(by_definition, x, keys, options), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize(
    "rare",
    [{"key_loss": "memory"}, {"key_loss": "both"}, {"weight_decay": 0.1}, {"clip_gradients": True}],
    ids=str,
)
def test_rare_options_are_carried_out_by_the_definition_in_any_cut(rare, mode):
    options = CoreOptions(topk=2, chunk_size=4, **rare)
    x, keys = make_streams(1, B=2, T=14, shared=False)
    with MODES[mode]():
        got = fast(x, keys, options, lengths=[3, 1, 5])
    names = ("output", "keys", "table")
    expected = dict(zip(names, by_definition(x, keys, options), strict=True))
    assert_same_numbers(dict(zip(names, got, strict=True)), expected)


@pytest.mark.parametrize("lengths", [[1000], [5, 1, 2]], ids=str)
def test_asking_for_the_definition_gives_the_definition(lengths):
    options = CoreOptions(topk=2, chunk_size=4)
    x, keys = make_streams(2, B=3, T=14, shared=False)
    got = with_gradients(fast, x, keys, options, lengths=lengths, form=True)
    assert_same_numbers(got, with_gradients(by_definition, x, keys, options))


@pytest.mark.parametrize("rule", ["paper", "release", "exact"])
@pytest.mark.parametrize("shared", [False, True])
def test_float32_errs_at_most_twice_as_much_as_the_definition_in_float32(shared, rule):
    """Errors are taken over eight draws together: that of one single number, the temperature, says little."""
    options = CoreOptions(topk=4, chunk_size=16, write_rule=rule)
    runs = {"oracle": [], "plain": [], "fast": []}
    for seed in range(8):
        x, keys = make_streams(100 * seed, B=2, T=50, shared=shared, n=8, Dk=32, Dv=16)
        runs["oracle"].append(with_gradients(by_definition, x, keys, options))
        x, keys = x.to(torch.float32), keys.float()
        runs["plain"].append(with_gradients(by_definition, x, keys, options))
        runs["fast"].append(with_gradients(fast, x, keys, options))
    pooled = {
        who: {name: torch.stack([result[name] for result in results]) for name in results[0]}
        for who, results in runs.items()
    }
    assert_all_accurate(pooled["fast"], pooled["plain"], pooled["oracle"])


@pytest.mark.parametrize("shared", [False, True])
def test_masked_pairs_of_a_shared_table_have_no_loss_and_pass_time(shared):
    """D7: where streams share a table, padding is a token like any other whose pair weighs nothing."""
    x, keys = make_streams(3, B=2, T=11, shared=True)
    mask = torch.rand(2, 11) > 0.3
    options = CoreOptions(topk=2, chunk_size=4, write_rule="release")
    state = make_state(keys, x.values, options, num_streams=2)
    out, state = in_pieces(
        lambda s, q, v, g, m: s.advance(q, v, g, m),
        state,
        (x.q, x.v, x.gate, mask),
        cut(11, [4, 3] if shared else [11]),
    )
    trace = core_naive(x.q, x.v, x.gate, keys[0], x.values, options, write_mask=mask)
    torch.testing.assert_close(
        (out, state.keys[0], state.table.dense()[0]), (trace.output, trace.keys, trace.values)
    )


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("ahead", [0, 1, 3, 7])
@pytest.mark.parametrize("rule", ["paper", "release"])
def test_flush_writes_the_pairs_whose_targets_are_known(rule, ahead, grad):
    options = CoreOptions(topk=2, chunk_size=5, lookahead=ahead, write_rule=rule)
    x, keys = make_streams(4, B=2, T=13, shared=False)
    with torch.set_grad_enabled(grad):
        state = make_state(keys, x.values, options, num_streams=2)
        _, state = in_pieces(lambda s, q, v, g: s.advance(q, v, g), state, (x.q, x.v, x.gate), cut(13, [4]))
        flushed = state.flush()
    _, expected_keys, expected_table = by_definition(x, keys, options, flush=True)
    torch.testing.assert_close((flushed.keys, flushed.table.dense()), (expected_keys, expected_table))
    assert flushed.waiting.counts == (ahead, ahead)
    assert flushed.tokens_seen == (13, 13)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_after_a_flush_the_next_chunk_begins_with_the_tokens_that_wait_for_their_targets(ahead, grad):
    options = CoreOptions(topk=2, chunk_size=5, lookahead=ahead)
    x, keys = make_streams(5, B=2, T=24, shared=False)
    with torch.set_grad_enabled(grad):
        state = make_state(keys, x.values, options, num_streams=2)
        _, state = state.advance(x.q[:, :9], x.v[:, :9], x.gate[:, :9])
        flushed = state.flush()
        call = lambda s, q, v, g: s.advance(q, v, g)  # noqa: E731
        out, last = in_pieces(call, flushed, [t[:, 9:] for t in (x.q, x.v, x.gate)], cut(15, [1, 4]))
    for b in range(2):
        rest = slice(9 - ahead, 24)
        trace = core_naive(
            x.q[b : b + 1, rest],
            x.v[b : b + 1, rest],
            x.gate[b : b + 1, rest],
            flushed.keys[b],
            flushed.table.dense()[b],
            options,
            answered=ahead,
        )
        torch.testing.assert_close(
            (out[b], last.keys[b], last.table.dense()[b]), (trace.output[0], trace.keys, trace.values)
        )


def test_flushing_twice_is_flushing_once():
    x, keys = make_streams(6, B=2, T=9, shared=False)
    state = make_state(keys, x.values, CoreOptions(topk=2, chunk_size=4), num_streams=2)
    once = state.advance(x.q, x.v, x.gate)[1].flush()
    assert once.flush() is once


def test_dropped_borders_leave_nothing_to_flush():
    x, keys = make_streams(7, B=2, T=9, shared=False)
    options = CoreOptions(topk=2, chunk_size=4, border="dropped")
    _, state = make_state(keys, x.values, options, num_streams=2).advance(x.q, x.v, x.gate)
    assert state.waiting.counts == (0, 0)
    assert state.flush() is state


def test_streams_that_wait_differently_are_flushed_each_in_its_own_way():
    options = CoreOptions(topk=2, chunk_size=4)
    x, keys = make_streams(8, B=3, T=9, shared=False)
    lengths = torch.tensor([9, 6, 1])
    mask = torch.arange(9) < lengths[:, None]
    _, state = make_state(keys, x.values, options, num_streams=3).advance(x.q, x.v, x.gate, mask)
    flushed = state.flush()
    for b, T in enumerate(lengths.tolist()):
        alone = x.map(lambda t, b=b, T=T: t[b : b + 1, :T] if t.shape[:2] == (3, 9) else t)
        _, expected_keys, expected_table = by_definition(alone, keys[b : b + 1], options, flush=True)
        torch.testing.assert_close(
            (flushed.keys[b], flushed.table.dense()[b]), (expected_keys[0], expected_table[0])
        )


def test_tables_of_zeros_need_no_base():
    options = CoreOptions(topk=2, chunk_size=4)
    x, keys = make_streams(9, B=2, T=11, shared=False)
    zeros = type(x)(**{**x.__dict__, "values": torch.zeros_like(x.values)})
    expected = by_definition(zeros, keys, options)
    for mode in MODES.values():
        with mode():
            state = make_state(keys, None, options, num_streams=2, value_dim=3)
            out, state = state.advance(x.q, x.v, x.gate)
            torch.testing.assert_close((out, state.keys, state.table.dense()), expected)
