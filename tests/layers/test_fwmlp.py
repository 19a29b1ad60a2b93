"""The fast-weight MLP against its definition, and what is its own beside the contract of fast weights."""

import inspect

import pytest
import torch

from fwpkm.layers.fwmlp import FastWeightMLP, FastWeightMLPConfig
from fwpkm.ops.fast_mlp import FastMLP
from fwpkm.ops.fast_mlp.naive import fast_mlp_naive
from fwpkm.state import iter_tensors

SMALL = {"dim": 6, "hidden_dim": 5, "key_dim": 4, "value_dim": 3, "chunk_size": 4, "lr": 0.5}


def make_layer(**changes):
    torch.manual_seed(0)
    layer = FastWeightMLP(FastWeightMLPConfig(**{**SMALL, **changes})).double()
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return layer


def tokens(B, T, seed=0):
    return torch.randn(B, T, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(layer, x, mask=None, *, flush=False):
    """Run one naive recurrence per stream, or one for all where they share."""
    q, v, gate = layer.project(x)
    start, core = layer.initial, layer.config.core
    if layer.config.scope == "batch":
        v_hat, end = fast_mlp_naive(
            q[:, :, 0], v, start, core, mask=None if mask is None else mask.double(), flush=flush
        )
        ends = [end]
    else:
        parts = [
            fast_mlp_naive(q[b : b + 1, :, 0], v[b : b + 1], start, core, flush=flush)
            for b in range(x.shape[0])
        ]
        v_hat, ends = torch.cat([out for out, _ in parts]), [end for _, end in parts]
    fast = ends[0].map(lambda *p: torch.stack(p), *ends[1:])
    return layer.fuse(v_hat, v, gate, x, mask), fast


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target": "last", "lookahead": 2},
        {"lookahead": 2, "gate": False},
        {"lookahead": 0, "gate_logits": 3},
        {"key_dim": 5},
        {"border": "dropped"},
        {"border": "dropped", "lookahead": 2, "scope": "batch"},
        {"scope": "batch"},
        {"clip_gradients": True, "weight_decay": 0.1, "lr": 3.0},
        {"initial_weights": "learned", "query_norm": "l2", "value_norm": "none"},
    ],
    ids=str,
)
@pytest.mark.parametrize("T", [3, 9, 13])
def test_layer_and_its_gradients_agree_with_the_definition(changes, T):
    layer, x = make_layer(**changes), tokens(2, T).requires_grad_()
    y, state = layer(x)
    expected, fast = by_definition(layer, x)
    torch.testing.assert_close(y, expected)
    for a, b in zip(iter_tensors(state.fast), iter_tensors(fast), strict=True):
        torch.testing.assert_close(a, b)
    wanted = [x, *layer.parameters()]
    found = torch.autograd.grad(y.sin().sum(), wanted)
    for a, b in zip(found, torch.autograd.grad(expected.sin().sum(), wanted), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_needed_to_write(mode):
    layer, x = make_layer(), tokens(2, 9)
    with mode():
        y, state = layer(x)
    torch.testing.assert_close(y.clone(), layer(x)[0])
    assert not any(p.requires_grad for p in iter_tensors(state.fast))


def test_flushing_writes_the_waiting_tokens_whose_targets_are_known():
    layer, x = make_layer(), tokens(2, 7)
    _, state = layer(x)
    flushed = state.flush()
    _, fast = by_definition(layer, x, flush=True)
    for a, b in zip(iter_tensors(flushed.fast), iter_tensors(fast), strict=True):
        torch.testing.assert_close(a, b)
    assert state.waiting.counts == (3, 3)
    assert flushed.waiting.counts == (1, 1)
    assert flushed.tokens_seen == state.tokens_seen == (7, 7)


def test_flushing_streams_of_different_lengths_flushes_each():
    layer, x = make_layer(), tokens(3, 7)
    mask = torch.arange(7) < torch.tensor([[7], [1], [5]])
    with torch.no_grad():
        flushed = layer(x, None, mask)[1].flush()
        for b, length in enumerate((7, 1, 5)):
            alone = layer(x[b : b + 1, :length])[1].flush()
            for p, own in zip(iter_tensors(flushed.fast), iter_tensors(alone.fast), strict=True):
                torch.testing.assert_close(p[b], own[0])
            assert flushed.waiting.counts[b] == alone.waiting.counts[0]


def test_streams_that_share_a_network_give_padding_no_loss_but_time():
    layer, x = make_layer(scope="batch"), tokens(2, 9)
    mask = torch.rand(2, 9, generator=torch.Generator().manual_seed(1)) < 0.6
    y, state = layer(x, None, mask)
    expected, fast = by_definition(layer, x, mask)
    torch.testing.assert_close(y, expected)
    for a, b in zip(iter_tensors(state.fast), iter_tensors(fast), strict=True):
        torch.testing.assert_close(a, b)
    assert state.tokens_seen == (9, 9)


def test_streams_that_share_a_network_cannot_be_selected():
    _, state = make_layer(scope="batch")(tokens(2, 3))
    with pytest.raises(ValueError, match="streams that share fast weights cannot be taken apart"):
        state.select(torch.tensor([0]))


def test_a_step_size_of_zero_leaves_the_network_alone():
    layer, x = make_layer(lr=0.0), tokens(1, 9)
    _, state = layer(x)
    for name, p in zip(
        ("gate", "up", "down"), (state.fast.gate, state.fast.up, state.fast.down), strict=True
    ):
        assert torch.equal(p[0], getattr(layer, f"initial_{name}"))


def test_what_was_learned_can_be_stored_without_changing_older_states():
    layer, x = make_layer(), tokens(1, 9)
    fresh = layer.initial_state(1)
    before, (_, state) = fresh.fast.gate.clone(), layer(x)
    layer.store_initial(state)
    assert torch.equal(layer.initial_gate, state.fast.gate[0])
    assert torch.equal(fresh.fast.gate, before)


def test_the_seed_decides_the_initial_network_and_nothing_else():
    a, b, c = (FastWeightMLP(FastWeightMLPConfig(**SMALL, weight_seed=s)) for s in (0, 0, 1))
    assert torch.equal(a.initial_up, b.initial_up)
    assert not torch.equal(a.initial_up, c.initial_up)
    big = FastWeightMLP(FastWeightMLPConfig(**{**SMALL, "hidden_dim": 400, "key_dim": 100, "value_dim": 50}))
    for p, std in ((big.initial_gate, 0.1), (big.initial_up, 0.1), (big.initial_down, 0.05)):
        torch.testing.assert_close(p.std(), torch.tensor(std), rtol=0.05, atol=0)


@pytest.mark.parametrize("initial_weights", ["random", "learned"])
def test_half_precision_never_reaches_the_fast_weights(initial_weights):
    layer = FastWeightMLP(FastWeightMLPConfig(**SMALL, initial_weights=initial_weights))
    exact = layer.initial_gate.clone()
    y, state = layer.bfloat16()(tokens(2, 9).bfloat16())
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert state.fast.gate.dtype == state.waiting.packed.dtype == torch.float32
    assert torch.equal(layer.initial_gate, exact)


@pytest.mark.parametrize(
    "change",
    [
        {"chunk_size": 3},
        {"lookahead": 2},
        {"target": "last"},
        {"lr": 0.4},
        {"weight_decay": 0.3},
        {"clip_gradients": True},
        {"border": "dropped"},
        {"query_norm": "l2"},
        {"value_norm": "none"},
        {"gate": False},
        {"gate_logits": 2},
        {"scope": "batch"},
        {"weight_seed": 1},
        {"norm_eps": 0.1},
    ],
    ids=str,
)
def test_each_field_that_is_no_size_changes_the_numbers(change):
    one, other = make_layer(**{"lr": 5.0}), make_layer(**{"lr": 5.0, **change})
    weights = {n: p for n, p in other.state_dict().items() if not n.startswith("initial_")}
    one.load_state_dict(
        {n: p for n, p in weights.items() if p.shape == one.state_dict()[n].shape}, strict=False
    )
    x = tokens(2, 12)
    assert not torch.allclose(one(x)[0], other(x)[0], rtol=1e-6)


def test_fields_about_weights_show_in_them():
    names = {n for n, _ in make_layer(initial_weights="learned", bias=False).named_parameters()}
    assert {"initial_gate", "initial_down_bias"} <= names
    assert not {"q_proj.bias", "out_proj.bias"} & names
    assert "initial_gate" not in dict(make_layer().named_parameters())
    assert "initial_gate" in make_layer().state_dict()


def test_non_finite_hidden_states_are_refused_on_wish_but_not_at_padding():
    layer, x = make_layer(check_inputs=True), tokens(1, 3)
    x[0, 0] = float("nan")
    with pytest.raises(ValueError, match="x must be finite, got 6 NaN or infinite numbers of 18"):
        layer(x)
    layer(x, None, torch.tensor([[False, True, True]]))


def test_a_state_of_another_configuration_is_refused_with_all_differences():
    _, state = make_layer()(tokens(2, 3))
    with pytest.raises(ValueError) as error:
        make_layer(lr=0.1, hidden_dim=7)(tokens(3, 3), state)
    for part in ("lr is 0.1 in the layer and 0.5", "x has 3 streams and the state 2", "fast weights are"):
        assert part in str(error.value)


def test_hidden_states_and_masks_that_do_not_fit_are_refused():
    layer = make_layer()
    with pytest.raises(ValueError, match=r"FastWeightMLP: x must be \[B, T, dim=6\]"):
        layer(torch.randn(1, 2, 5))


def test_all_mistakes_are_reported_at_once():
    config = object.__new__(FastWeightMLPConfig)
    fields = {f: getattr(FastWeightMLPConfig(**SMALL), f) for f in FastWeightMLPConfig.__slots__}
    wrong = {"hidden_dim": 0, "key_dim": 3, "query_norm": "l2", "value_dim": 1, "lr": 0.1}
    wrong |= {"chunk_size": 0, "scope": "all", "norm_eps": 0.0}
    for name, value in {**fields, **wrong}.items():
        object.__setattr__(config, name, value)
    with pytest.raises(ValueError) as caught:
        inspect.unwrap(FastWeightMLPConfig.__post_init__)(config)
    for part in (
        "FastWeightMLPConfig: hidden_dim must be at least 1, got hidden_dim=0",
        "norm_eps must be above 0",
        "scope must be one of stream, batch, got scope='all'",
        "query_norm='l2' needs an even key_dim, got 3",
        "value_norm='zscore' needs value_dim of at least 2",
        "chunk_size must be at least 1, got chunk_size=0",
    ):
        assert part in str(caught.value)


def test_a_network_without_biases_maps_without_them():
    mlp = FastMLP(gate=torch.ones(2, 3), up=torch.ones(2, 3), down=torch.ones(1, 2))
    assert mlp.map(lambda p: 2 * p).gate_bias is None
