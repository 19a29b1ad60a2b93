"""The contract of the memory (P1 to P8), as properties of the layer in float64."""

import random
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from fwpkm.ops.addressing.naive import product_key_topk_naive
from fwpkm.testing.inputs import make_hidden, make_layer
from fwpkm.testing.states import assert_same_numbers, assert_same_state, cut, in_pieces, state_numbers

MODES = {"grad": nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}

layers = st.builds(
    make_layer,
    seed=st.integers(0, 10**6),
    num_heads=st.integers(1, 2),
    topk=st.integers(1, 5),
    chunk_size=st.integers(1, 6),
    lookahead=st.integers(0, 7),
    score=st.sampled_from(["idw", "dot"]),
    weights=st.sampled_from(["softmax", "silu"]),
    query_norm=st.sampled_from(["none", "l2", "zscore"]),
    write_rule=st.sampled_from(["paper", "exact"]),
    key_loss=st.sampled_from(["entropy", "none"]),
    gate=st.booleans(),
    gate_weighted_loss=st.booleans(),
    initial_values=st.sampled_from(["random", "zero", "learned"]),
    initial_keys=st.sampled_from(["random", "learned"]),
    learn_temperature=st.booleans(),
)
lengths_of = st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any)


def in_calls(layer, x, lengths, state=None, between=lambda state: state):
    """Run the layer over pieces of `x`; `between` treats every state on its way to the next call."""
    return in_pieces(
        lambda state, piece: layer(piece, None if state is None else between(state)),
        state,
        (x,),
        cut(x.shape[1], lengths),
    )


def gradients(layer, y, state):
    loss = y.sin().sum() + state.table.dense().cos().sum() + state.keys.square().sum()
    named = dict(layer.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), grads, strict=True)
    }


# P1: whole = pieces.


@settings(max_examples=40)
@given(
    layer=layers,
    B=st.integers(1, 2),
    T=st.integers(1, 17),
    lengths=lengths_of,
    mode=st.sampled_from(sorted(MODES)),
)
def test_any_split_into_calls_gives_the_same_outputs_and_state(layer, B, T, lengths, mode):
    x = make_hidden(layer, B, T)
    whole, expected = layer(x)
    with MODES[mode]():
        pieces, state = in_calls(layer, x, lengths)
    torch.testing.assert_close(pieces.detach(), whole.detach(), rtol=1e-7, atol=1e-9)
    assert_same_state(state, expected)


@given(layer=layers, T=st.integers(1, 13), lengths=lengths_of)
def test_any_split_into_calls_gives_the_same_gradients(layer, T, lengths):
    x = make_hidden(layer, 2, T)
    expected = gradients(layer, *layer(x))
    assert_same_numbers(gradients(layer, *in_calls(layer, x, lengths)), expected, rtol=1e-6, atol=1e-8)


@given(layer=layers, T=st.integers(1, 13), lengths=lengths_of)
def test_detaching_between_calls_cuts_the_graph_and_keeps_the_numbers(layer, T, lengths):
    x = make_hidden(layer, 2, T)
    whole, expected = layer(x)
    cut_off, state = in_calls(layer, x, lengths, between=lambda state: state.detach())
    torch.testing.assert_close(cut_off, whole)
    assert_same_state(state, expected)
    state = state.detach()
    assert not any(t.requires_grad for t in (state.keys, state.table.store.rows, state.waiting.packed))


def test_every_single_split_point_gives_the_same_outputs_and_state():
    layer = make_layer(1)
    x = make_hidden(layer, 2, 14)
    whole, expected = layer(x)
    for at in range(15):
        first, state = layer(x[:, :at])
        second, state = layer(x[:, at:], state)
        torch.testing.assert_close(torch.cat((first, second), dim=1), whole)
        assert_same_state(state, expected)


# P3: nobody else matters.


@given(
    layer=layers,
    seed=st.integers(0, 10**6),
    B=st.integers(1, 3),
    calls=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    mode=st.sampled_from(sorted(MODES)),
    padding=st.sampled_from([0.0, 1e4, float("nan")]),
)
def test_neither_other_streams_nor_padding_anywhere_matter(layer, seed, B, calls, mode, padding):
    """Every call pads every stream in another pattern: left, right, in the middle, all of it, none of it."""
    draw, T = torch.Generator().manual_seed(seed), sum(calls)
    x, mask = make_hidden(layer, B, T, seed), torch.rand(B, T, generator=draw) > 0.4
    x = x.masked_fill(~mask[..., None], padding)
    with MODES[mode]():
        y, state = in_pieces(lambda s, x, m: layer(x, s, m), None, (x, mask), cut(T, calls))
    assert not y[~mask].any(), "padding answers zeros"
    for b in range(B):
        alone, expected = layer(x[b : b + 1, mask[b]])
        torch.testing.assert_close(y[b, mask[b]].detach(), alone[0].detach(), rtol=1e-7, atol=1e-9)
        mine = state.select(torch.tensor([b])) if B > 1 else state
        assert_same_state(mine, expected)


@pytest.mark.parametrize("padding", [7.0, float("nan")])
def test_padding_has_no_gradient_and_changes_none(padding):
    layer = make_layer(2)
    x, mask = make_hidden(layer, 2, 9), torch.ones(2, 9, dtype=torch.bool)
    mask[0, :3], mask[1, 5:7] = False, False
    grads = []
    for fill in (0.0, padding):
        leaf = x.masked_fill(~mask[..., None], fill).requires_grad_()
        y, state = layer(leaf, None, mask)
        grads.append(
            {
                "x": torch.autograd.grad(y.sin().sum(), leaf, retain_graph=True)[0],
                **gradients(layer, y, state),
            }
        )
    assert_same_numbers(grads[1], grads[0])
    assert not grads[1]["x"][~mask].any()


@pytest.mark.parametrize("mode", sorted(MODES))
def test_a_stream_that_became_nan_leaves_the_others_alone(mode):
    layer = make_layer(3)
    x = make_hidden(layer, 2, 21)
    ill = x.clone()
    ill[0, 5] = float("nan")
    with MODES[mode]():
        y, _ = in_calls(layer, ill, [13, 1, 1, 6])
        expected, _ = in_calls(layer, x, [13, 1, 1, 6])
    assert y[0].isnan().any()
    torch.testing.assert_close(y[1], expected[1])


# P4: the future does not matter.


@given(layer=layers, T=st.integers(2, 15), data=st.data())
def test_no_output_depends_on_a_later_token(layer, T, data):
    at = data.draw(st.integers(1, T - 1))
    x = make_hidden(layer, 1, T)
    changed = torch.cat((x[:, :at], make_hidden(layer, 1, T - at, seed=1)), dim=1)
    torch.testing.assert_close(layer(changed)[0][:, :at], layer(x)[0][:, :at], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("border", ["moved", "dropped"])
@pytest.mark.parametrize("lookahead", [0, 1, 3, 6])
def test_no_output_has_a_gradient_to_a_later_token_and_some_to_earlier_chunks(lookahead, border):
    layer = make_layer(4, lookahead=lookahead, border=border)
    x = make_hidden(layer, 1, 14).requires_grad_()
    y, _ = layer(x)
    reach = torch.stack(
        [torch.autograd.grad(row.sum(), x, retain_graph=True)[0][0].abs().sum(-1) for row in y[0]]
    )
    assert not reach.triu(1).any()
    assert reach.diagonal().all()
    if lookahead < 4 or border == "moved":
        assert reach[13, :4].any(), "what was written comes back"


# P5: states are values.


def grow_states(rng, layer, node):
    """Go on from a state by a random means: returns the new state and the history that must explain it."""
    state, history = node
    how = rng.choice(["call", "call", "call", "call", "single", "flush", "detach", "select", "masked"])
    if how == "flush":
        return state.flush(), [*history, "flush"]
    if how == "detach":
        return state.detach(), history
    if how == "select":
        streams = [rng.randrange(2) for _ in range(2)]
        return state.select(torch.tensor(streams)), [*history, streams]
    T = 1 if how == "single" else rng.randint(0, 9)
    x, mask = make_hidden(layer, 2, T, rng.randrange(10**6)), None
    if how == "masked":
        mask = torch.tensor(
            [[rng.random() < 0.6 for _ in range(T)] for _ in range(2)], dtype=torch.bool
        ).view(2, T)
    return layer(x, state, mask)[1], [*history, (x, mask)]


def relive(layer, history):
    """Repeat a history from its beginning, in one straight line."""
    state = layer.initial_state(2)
    for event in history:
        if event == "flush":
            state = state.flush()
        elif isinstance(event, list):
            state = state.select(torch.tensor(event))
        else:
            x, mask = (
                None if t is None else t.clone() for t in event
            )  # made in inference mode, some of them
            state = layer(x, state, mask)[1]
    return state


@settings(max_examples=60)
@given(seed=st.integers(0, 10**9), steps=st.integers(1, 16), recent=st.booleans(), chunk=st.integers(1, 5))
def test_in_a_random_tree_of_forks_every_state_equals_its_own_history(seed, steps, recent, chunk):
    rng = random.Random(seed)
    layer = make_layer(seed % 100, chunk_size=chunk, lookahead=rng.randint(0, 3), num_heads=1, topk=2)
    nodes = [(layer.initial_state(2), [])]
    for _ in range(steps):
        parent = nodes[-1] if recent and rng.random() < 0.8 else rng.choice(nodes)
        with MODES[rng.choice(sorted(MODES))]():
            nodes.append(grow_states(rng, layer, parent))
    rng.shuffle(nodes)
    for state, history in nodes[:6]:
        assert_same_state(state, relive(layer, history))


@pytest.mark.parametrize("mode", sorted(MODES))
def test_the_given_state_is_untouched_to_the_last_bit(mode):
    layer = make_layer(5)
    with MODES[mode]():
        _, state = layer(make_hidden(layer, 2, 30))
        before = state_numbers(state)
        for seed, T in enumerate([1, 1, 4, 40]):
            layer(make_hidden(layer, 2, T, seed), state)
            state.flush()
        assert_same_numbers(state_numbers(state), before, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("copy", ["detach", "to"])
def test_a_copy_and_its_origin_never_see_each_others_writes(copy):
    layer = make_layer(6)
    with torch.no_grad():
        _, state = layer(make_hidden(layer, 2, 80))
        other = state.detach() if copy == "detach" else state.to("cpu")
        before = state_numbers(state)
        layer(make_hidden(layer, 2, 5, 1), state)
        assert_same_numbers(state_numbers(other), before, rtol=0.0, atol=0.0)
        layer(make_hidden(layer, 2, 5, 2), other)
        assert_same_numbers(state_numbers(state), before, rtol=0.0, atol=0.0)


def test_a_fork_costs_nothing():
    state = make_layer(7).initial_state(1)
    assert state.fork() is state


# P6: what does not write.


@pytest.mark.parametrize("score", ["idw", "dot"])
def test_value_lr_zero_is_a_plain_product_key_memory(score):
    layer = make_layer(8, value_lr=0.0, key_loss="none", score=score)
    x = make_hidden(layer, 2, 13)
    q, v, gate = layer.project(x)
    best, slot = product_key_topk_naive(q.flatten(0, 1), layer.initial_keys, 3, score)
    w = (best.flatten(1) / layer.temperature).softmax(-1)
    v_hat = torch.einsum("mj,mjd->md", w, layer.initial_values[slot.flatten(1)]).view(v.shape)
    y, state = layer(x)
    torch.testing.assert_close(
        y, layer.out_proj(layer.out_norm(gate[..., None] * v_hat + (1 - gate[..., None]) * v))
    )
    torch.testing.assert_close(state.table.dense(), layer.initial_values.expand(2, -1, -1))
    torch.testing.assert_close(state.keys, layer.initial_keys.expand_as(state.keys))


@pytest.mark.parametrize("mode", sorted(MODES))
def test_a_closed_gate_leaves_the_table_alone(mode):
    layer = make_layer(9)
    with torch.no_grad():
        layer.gate_proj.weight.zero_()
        layer.gate_proj.bias.fill_(-1000.0)
    with MODES[mode]():
        _, state = layer(make_hidden(layer, 2, 13))
        assert torch.equal(state.table.dense(), layer.initial_values.expand(2, -1, -1))


def test_an_open_gate_answers_with_what_was_retrieved_and_half_open_with_a_mixture():
    layer = make_layer(10, value_lr=0.0, key_loss="none")
    x, answers = make_hidden(layer, 1, 3), []
    for logit in (-1000.0, 0.0, 1000.0):
        with torch.no_grad():
            layer.gate_proj.weight.zero_()
            layer.gate_proj.bias.fill_(logit)
            layer.out_norm.register_forward_pre_hook(lambda _, args: answers.append(args[0]))
            layer(x)
            layer.out_norm._forward_pre_hooks.clear()
    torch.testing.assert_close(answers[0], layer.project(x)[1])
    torch.testing.assert_close(answers[1], (answers[0] + answers[2]) / 2)


# P7: training, prefill, decoding; checkpointing.


@pytest.mark.parametrize("table", ["stream", "batch"])
def test_training_prefill_and_decoding_give_the_same_numbers(table):
    layer = make_layer(11, table=table)
    x = make_hidden(layer, 2, 23)
    trained, expected = layer(x)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            prefilled, state = layer(x)
            decoded, last = in_calls(layer, x, [1])
        for y, s in ((prefilled, state), (decoded, last)):
            torch.testing.assert_close(y, trained.detach())
            assert_same_state(s, expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_outputs_gradients_and_state(reentrant):
    layer = make_layer(12)
    x = make_hidden(layer, 2, 11).requires_grad_()
    _, start = layer(make_hidden(layer, 2, 6, seed=1))
    start = start.detach()
    results = []
    for run in (layer, lambda x, s: checkpoint(layer, x, s, use_reentrant=reentrant)):
        layer.zero_grad()
        y, state = run(x, start)
        numbers = state_numbers(state)
        (dx,) = torch.autograd.grad(y.sin().sum(), x) if not reentrant else (None,)
        y, _ = run(x, start)
        x.grad = None
        y.sin().sum().backward()
        assert dx is None or torch.equal(dx, x.grad)
        grads = {f"d {n}": p.grad.clone() for n, p in layer.named_parameters()}
        results.append({"y": y.detach(), "dx": x.grad.clone(), **numbers, **grads})
    assert_same_numbers(results[1], results[0])


def test_gradients_flow_through_states_between_checkpointed_calls():
    layer = make_layer(13)
    x = make_hidden(layer, 1, 18)
    results = []
    for run in (layer, lambda x, s: checkpoint(layer, x, s, use_reentrant=False)):
        y, state = in_pieces(lambda s, x, run=run: run(x, s), None, (x,), cut(18, [5, 7]))
        results.append(gradients(layer, y, state))
    assert_same_numbers(results[1], results[0])


# P8: the definition.


@given(layer=layers, T=st.integers(1, 13), lengths=lengths_of)
def test_the_layer_equals_its_definition_forward_backward_and_in_the_final_state(layer, T, lengths):
    x = make_hidden(layer, 2, T)

    def literally(x, state):
        q, v, gate = layer.project(x)
        state = layer.initial_state(2) if state is None else state
        weight = gate if layer.config.gate_weighted_loss else None
        v_hat, state = state.advance(q, v, weight, by_definition=True)
        mixed = v_hat + v if gate is None else gate[..., None] * v_hat + (1 - gate[..., None]) * v
        return layer.out_proj(layer.out_norm(mixed)), state

    expected, last = literally(x, None)
    y, state = in_calls(layer, x, lengths)
    torch.testing.assert_close(y, expected, rtol=1e-7, atol=1e-9)
    assert_same_state(state, last)
    assert_same_numbers(gradients(layer, y, state), gradients(layer, expected, last), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("norm", ["none", "l2", "zscore"])
def test_queries_values_and_gates_are_what_the_formulas_say(norm):
    layer = make_layer(14, query_norm=norm, value_norm=norm, gate_logits=3)
    x = make_hidden(layer, 1, 2)

    def projected(x, rms, linear):
        unit = x / (x.square().mean() + layer.config.norm_eps).sqrt()
        return linear.weight @ ((1 + rms.weight) * unit) + linear.bias

    def normal(x):
        if norm == "l2":
            return x / (x.square().sum() + 1e-6).sqrt()
        return (x - x.mean()) / (x.std() + 1e-6) if norm == "zscore" else x

    q, v, gate = layer.project(x)
    for t in range(2):
        queries = projected(x[0, t], layer.q_norm, layer.q_proj).view(2, 2, 3)  # heads, halves
        expected = torch.stack([torch.cat([normal(half) for half in head]) for head in queries])
        torch.testing.assert_close(q[0, t], expected)
        torch.testing.assert_close(v[0, t], normal(projected(x[0, t], layer.v_norm, layer.v_proj)))
        torch.testing.assert_close(
            gate[0, t], projected(x[0, t], layer.gate_norm, layer.gate_proj).mean().sigmoid()
        )


def test_a_fresh_state_keeps_its_numbers_when_the_layer_is_trained_on():
    layer = make_layer(15, initial_keys="learned")
    state, x = layer.initial_state(1), make_hidden(layer, 1, 6)
    expected = layer(x, replace(state, keys=state.keys.clone(), key_squares=state.key_squares.clone()))[0]
    with torch.no_grad():
        layer.initial_keys.mul_(-3)
    torch.testing.assert_close(layer(x, state)[0], expected)
