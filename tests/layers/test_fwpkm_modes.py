"""Precisions, gradient modes, partial gradients, truncated backpropagation, and inputs made to break things."""

import math
from contextlib import nullcontext

import pytest
import torch

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.testing.inputs import make_hidden, make_layer, small_config
from fwpkm.testing.states import (
    assert_same_numbers,
    assert_same_state,
    cut,
    in_pieces,
    named_tensors,
    state_numbers,
)

MODES = {"grad": nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def run(layer, x, lengths=(1000,), state=None):
    return in_pieces(lambda s, x: layer(x, s), state, (x,), cut(x.shape[1], lengths))


def all_finite(layer, y, state):
    grads = [p.grad for p in layer.parameters() if p.grad is not None]
    return all(bool(t.isfinite().all()) for t in (y, *state_numbers(state).values(), *grads))


@pytest.mark.parametrize("then", sorted(MODES))
@pytest.mark.parametrize("first", sorted(MODES))
@pytest.mark.parametrize("at", [2, 5, 9])
def test_a_state_made_in_one_mode_goes_on_in_any_other(at, first, then):
    layer = make_layer(1)
    x = make_hidden(layer, 2, 17)
    whole, expected = layer(x)
    with MODES[first]():
        _, state = layer(x[:, :at])
    with MODES[then]():
        y, last = run(layer, x[:, at:], [3, 1, 8], state)
    torch.testing.assert_close(y.detach(), whole[:, at:].detach())
    assert_same_state(last, expected)
    if then == "grad":
        y.sum().backward()
        assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("first", sorted(MODES))
def test_a_flush_in_any_mode_can_be_trained_through(first):
    layer = make_layer(2, initial_keys="learned")
    x = make_hidden(layer, 2, 12)
    with MODES[first]():
        _, state = layer(x[:, :3])
    flushed = state.flush()
    y, _ = layer(x[:, 3:], flushed)
    with torch.no_grad():
        layer(x[:, :1], state)  # appends behind the very tokens that the graph was made from
    y.sum().backward()
    assert layer.q_proj.weight.grad.isfinite().all()


def test_under_autocast_the_state_stays_float32_and_the_numbers_stay_close():
    layer = make_layer(3, dtype=torch.float32)
    x = make_hidden(layer, 2, 19)
    exact, _ = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = run(layer, x, [6, 1, 12])
    assert y.isfinite().all()
    assert {t.dtype for t in state_numbers(state).values()} == {torch.float32}
    assert state.table.store.rows.dtype == torch.float32
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    # Top-k may pick other slots for a few tokens: the typical token is judged.
    assert (y - exact).norm(dim=-1).median() < 0.05 * exact.norm(dim=-1).median()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_converted_layers_answer_in_their_dtype_and_remember_in_float32_at_least(dtype):
    layer = make_layer(4, dtype=torch.float32, initial_keys="learned", initial_values="learned").to(dtype)
    x = make_hidden(layer, 2, 13)
    y, state = layer(x)
    assert y.dtype == dtype
    wide = torch.promote_types(dtype, torch.float32)
    assert {
        t.dtype for t in (state.keys, state.table.store.rows, state.waiting.packed, state.temperature)
    } == {wide}
    y.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("kind", ["random", "learned"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrowing_a_layer_keeps_its_initial_memory_exact_and_its_parameters_the_same_objects(dtype, kind):
    layer = FwPKM(
        small_config(initial_values=kind, initial_keys=kind, learn_temperature=True, temperature=0.3)
    )
    layer(make_hidden(layer, 1, 9))[0].sum().backward()
    before = {
        n: getattr(layer, n).detach().clone() for n in ("initial_keys", "initial_values", "log_temperature")
    }
    parameters = list(layer.parameters())
    layer.to(dtype)
    assert all(torch.equal(getattr(layer, name), value) for name, value in before.items())
    assert all(new is old for new, old in zip(layer.parameters(), parameters, strict=True))
    assert all(p.grad is None or p.grad.dtype == p.dtype for p in layer.parameters())


def test_a_half_precision_default_dtype_keeps_the_memory_in_float32():
    torch.set_default_dtype(torch.bfloat16)
    layer = FwPKM(small_config(initial_values="learned"))
    torch.set_default_dtype(torch.float32)
    exact = FwPKM(small_config())
    assert layer.q_proj.weight.dtype == torch.bfloat16
    assert torch.equal(layer.initial_values, exact.initial_values)
    assert torch.equal(layer.initial_keys, exact.initial_keys)


@pytest.mark.parametrize(
    "name", [name for name, _ in make_layer(learn_temperature=True).named_parameters()] + ["x"]
)
def test_gradients_of_one_input_alone_are_the_same(name):
    layer = make_layer(5, learn_temperature=True)
    x = make_hidden(layer, 2, 9).requires_grad_()
    leaves = {**dict(layer.named_parameters()), "x": x}

    def loss():
        y, state = run(layer, x, [5, 4])
        return y.sin().sum() + state.table.dense().square().sum()

    (expected,) = torch.autograd.grad(loss(), leaves[name])
    for other, leaf in leaves.items():
        leaf.requires_grad_(other == name)
    torch.testing.assert_close(torch.autograd.grad(loss(), leaves[name])[0], expected)


@pytest.mark.parametrize(
    "name", ["log_temperature", "initial_keys", "initial_values", "gate_proj.bias", "q_norm.weight"]
)
def test_learned_numbers_have_the_gradients_of_finite_differences(name):
    kinds = {"initial_keys": "learned", "initial_values": "learned"}
    layer = make_layer(6, learn_temperature=True, **kinds)
    x, p, h = make_hidden(layer, 2, 11), layer.get_parameter(name), 1e-6

    def loss():
        y, state = run(layer, x, [6, 5])
        return y.sin().sum() + state.table.dense().cos().sum()

    (grad,) = torch.autograd.grad(loss(), p)
    with torch.no_grad():
        for i in grad.abs().flatten().topk(min(3, p.numel())).indices.tolist():
            at, values = grad.flatten()[i], []
            for step in (h, -2 * h):
                p.view(-1)[i] += step
                values.append(loss())
            p.view(-1)[i] += h
            torch.testing.assert_close(at, (values[0] - values[1]) / (2 * h), rtol=1e-5, atol=1e-7)


def test_sparse_gradients_of_a_learned_table_equal_the_dense_ones():
    grads = []
    for sparse in (False, True):
        layer = make_layer(7, initial_values="learned", sparse_grad=sparse)
        y, _ = run(layer, make_hidden(layer, 2, 13), [9, 4])
        y.sin().sum().backward()
        grads.append(layer.initial_values.grad)
        assert grads[-1].is_sparse == sparse
    torch.testing.assert_close(grads[1].to_dense(), grads[0])
    assert (grads[0] == 0).all(-1).any(), "rows that nobody read have no gradient"


def test_sparse_adam_trains_a_learned_table():
    layer = make_layer(7, initial_values="learned", sparse_grad=True)
    before = layer.initial_values.detach().clone()
    optimizer = torch.optim.SparseAdam([layer.initial_values], lr=0.1)
    layer(make_hidden(layer, 2, 13))[0].square().sum().backward()
    optimizer.step()
    assert (layer.initial_values != before).any()


def test_after_detach_trained_numbers_that_every_call_uses_still_get_gradients():
    layer = make_layer(8, learn_temperature=True, initial_values="learned")
    x = make_hidden(layer, 2, 12)
    _, state = layer(x[:, :6])
    y, _ = layer(x[:, 6:], state.detach())
    y.sin().sum().backward()
    assert layer.log_temperature.grad.abs() > 0
    assert layer.initial_values.grad.abs().sum() > 0


def test_truncated_backpropagation_trains_over_many_calls_without_growing_its_graph():
    layer = make_layer(9, dtype=torch.float32, learn_temperature=True, initial_keys="learned")
    optimizer, state = torch.optim.SGD(layer.parameters(), lr=1e-2), None
    for step in range(8):
        y, state = layer(make_hidden(layer, 2, 7, seed=step), state)
        loss = y.square().mean()
        optimizer.zero_grad()
        loss.backward()  # would fail at the second step if the state reached into the first one's graph
        optimizer.step()
        state = state.detach()
    assert all_finite(layer, y, state)


def test_a_changed_temperature_holds_from_the_next_call_on():
    layer = make_layer(10)
    x = make_hidden(layer, 1, 8)
    _, state = layer(x[:, :2])
    sharp, _ = layer(x[:, 2:], state)
    layer.log_temperature += 1.0
    blunt, after = layer(x[:, 2:], state)
    assert not torch.allclose(sharp, blunt)
    torch.testing.assert_close(after.temperature, layer.temperature)


HOSTILE = {
    "zeros": lambda x: torch.zeros_like(x),
    "equal rows": lambda x: x[:, :1].expand_as(x).clone(),
    "ten thousandfold": lambda x: 1e4 * x,
    "one huge token": lambda x: torch.cat((1e4 * x[:, :1], x[:, 1:]), dim=1),
    "tiny": lambda x: 1e-6 * x,
    "alternating": lambda x: x[:, :1] * (-1.0) ** torch.arange(x.shape[1]).to(x)[:, None],
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("hostile", sorted(HOSTILE))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"value_norm": "none", "query_norm": "zscore"},
        {"score": "dot", "weights": "silu", "write_rule": "exact"},
        {"initial_values": "zero", "key_loss": "none", "gate": False, "query_norm": "l2"},
    ],
    ids=str,
)
def test_hostile_inputs_train_several_steps_without_nan(changes, hostile, precision):
    layer = make_layer(11, dtype=torch.float32, **changes).to(getattr(torch, precision))
    optimizer, state = torch.optim.SGD(layer.parameters(), lr=1e-3), None
    for step in range(4):
        x = HOSTILE[hostile](make_hidden(layer, 2, 10, seed=step)).requires_grad_()
        y, state = layer(x, state)
        optimizer.zero_grad()
        y.float().square().mean().backward()
        assert all_finite(layer, y, state), f"step {step}"
        assert x.grad.isfinite().all()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        state = state.detach()


def test_every_token_on_one_slot_is_written_as_their_mean_pull():
    """The hottest slot there can be: R in the step keeps the write as strong as that of one token."""
    layer = make_layer(12, num_heads=1, topk=1, chunk_size=8, gate_weighted_loss=False)
    x = make_hidden(layer, 1, 1).expand(1, 9, 7).contiguous()
    _, state = layer(x)
    (row,) = state.table.written().tolist()
    _, v, _ = layer.project(x)
    torch.testing.assert_close(state.table.dense()[0, row], v[0, 0])


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)], ids=str)
def test_empty_batches_and_calls_are_nothing_special(shape, mode):
    layer = make_layer(13)
    with MODES[mode]():
        y, state = layer(make_hidden(layer, *shape))
        assert y.shape == (*shape, 7)
        assert state.tokens_seen == (shape[1],) * shape[0]
        if shape[0]:
            z, _ = layer(make_hidden(layer, 2, 5), state)
            torch.testing.assert_close(z, layer(make_hidden(layer, 2, 5))[0])


@pytest.mark.parametrize(
    "sizes", [{"num_subkeys": 1, "topk": 1}, {"topk": 5}, {"topk": 1}, {"key_dim": 2}], ids=str
)
def test_extreme_sizes_agree_with_the_definition(sizes):
    layer = make_layer(14, **sizes)
    x = make_hidden(layer, 2, 11)
    q, v, gate = layer.project(x)
    expected, last = layer.initial_state(2).advance(q, v, gate, by_definition=True)
    got, state = layer.initial_state(2).advance(q, v, gate)
    torch.testing.assert_close(got, expected)
    assert_same_state(state, last)


def test_the_same_seed_draws_the_same_memory_and_another_seed_another():
    one, same, other = (FwPKM(small_config(table_seed=s)) for s in (3, 3, 4))
    assert torch.equal(one.initial_values, same.initial_values)
    assert torch.equal(one.initial_keys, same.initial_keys)
    assert not torch.equal(one.initial_values, other.initial_values)


def test_the_table_is_in_no_checkpoint_unless_it_is_learned():
    assert "initial_values" not in FwPKM(small_config()).state_dict()
    assert "initial_keys" in FwPKM(small_config()).state_dict()
    assert "initial_values" in FwPKM(small_config(initial_values="learned")).state_dict()


def test_a_layer_loaded_from_a_checkpoint_gives_the_same_numbers():
    layer, other = make_layer(15, initial_values="learned"), make_layer(16, initial_values="learned")
    other.load_state_dict(layer.state_dict())
    x = make_hidden(layer, 2, 9)
    (y, state), (z, last) = layer(x), other(x)
    assert torch.equal(y, z)
    assert_same_numbers(state_numbers(state), state_numbers(last), rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 0.5, "learn_temperature": True},
        {"initial_values": "learned", "initial_keys": "learned"},
        {"initial_values": "zero", "gate": False},
        {"table_dtype": "bfloat16"},
    ],
    ids=str,
)
def test_a_layer_made_on_the_meta_device_can_be_filled_later(changes):
    with torch.device("meta"):
        layer = FwPKM(small_config(**changes))
    assert all(x.is_meta for x in named_tensors(layer).values())
    layer.to_empty(device="cpu")
    for x in named_tensors(layer).values():
        x.data.fill_(math.nan)
    layer.reset_parameters()
    fresh = FwPKM(small_config(**changes))
    found, expected = named_tensors(layer), named_tensors(fresh)
    assert found.keys() == expected.keys()
    for name, x in found.items():
        assert x.isfinite().all(), name
        assert x.dtype == expected[name].dtype, name
        if "proj.weight" not in name:  # drawn from the global generator
            assert torch.equal(x, expected[name]), name
