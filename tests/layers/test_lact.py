"""LaCT against its formulas, head by head and token by token."""

import inspect

import pytest
import torch
import torch.nn.functional as F

from fwpkm.layers.lact import LaCT
from fwpkm.layers.lact_config import LaCTConfig
from fwpkm.layers.rope import RopeConfig, rotary_angles, rotate
from fwpkm.ops.fast_mlp import FastMLP
from fwpkm.ops.lact.naive import lact_naive

DIM = 6
SMALL = {"num_heads": 4, "head_dim": 2, "num_fast_heads": 2, "initial_rank": 2, "chunk_size": 4, "window": 3}
SMALL |= {"base_lr": 0.5, "rope": RopeConfig(base=100.0)}


def make_layer(**changes):
    torch.manual_seed(0)
    layer = LaCT(DIM, LaCTConfig(**{**SMALL, **changes})).double()
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return layer


def tokens(B, T, seed=0):
    return torch.randn(B, T, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turn(layer, x):
    """Turn [T, W] head by head with positions 0 to T - 1."""
    Dh, T = layer.config.head_dim, x.shape[0]
    cos, sin = rotary_angles(layer.config.rope, Dh, torch.arange(T)[None])
    return rotate(x.unflatten(-1, (-1, Dh))[None], cos, sin)[0].flatten(-2)


def attend_by_definition(layer, q, k, v):
    Dh, window, out = layer.config.head_dim, layer.config.window, []
    q, k = turn(layer, q), turn(layer, k)
    for qh, kh, vh in zip(*(t.split(Dh, dim=-1) for t in (q, k, v)), strict=True):
        rows = []
        for t in range(q.shape[0]):
            seen = slice(0 if window is None else max(0, t + 1 - window), t + 1)
            rows.append((kh[seen] @ qh[t] / Dh**0.5).softmax(0) @ vh[seen])
        out.append(torch.stack(rows))
    return torch.cat(out, dim=-1)


def fast_side(layer, t, side):
    config = layer.config
    t = t * layer.fast_scale[side] + layer.fast_offset[side]
    t = t if config.silu == "none" else F.silu(t)
    heads = [h / (h.norm(dim=-1, keepdim=True) + 1e-5) for h in t.split(config.fast_head_dim, dim=-1)]
    t = torch.cat(heads, dim=-1)
    return turn(layer, t) if config.fast_rope else t


def initial(matrix, h):
    if matrix.full is not None:
        return matrix.full[h]
    product = matrix.left[h] @ matrix.right[h]
    return product + 0.5 * torch.eye(*product.shape)


def by_definition(layer, x):
    """Process one stream [T, D]."""
    config, d = layer.config, layer.config.fast_head_dim
    q, k, v = layer.qkv_proj(x).chunk(3, dim=-1)
    if config.qk_norm:
        q, k = (
            t / (t.square().mean(-1, keepdim=True) + config.norm_eps).sqrt() * norm.weight
            for t, norm in ((q, layer.q_norm), (k, layer.k_norm))
        )
    near = attend_by_definition(layer, q, k, v)
    q, k = fast_side(layer, q, 0), fast_side(layer, k, 1)
    v = F.silu(v) if config.silu == "qkv" else v
    shift = torch.log(torch.expm1(torch.tensor(config.base_lr, dtype=torch.float64)))
    rates = F.softplus(layer.lr_proj(x) + shift)
    parts = []
    for h, own in enumerate(zip(*(t.split(d, dim=-1) for t in (q, k, v)), strict=True)):
        mlp = FastMLP(
            gate=initial(layer.initial_gate, h),
            up=initial(layer.initial_up, h),
            down=layer.initial_down[h],
        )
        momentum = layer.momentum_proj(x)[:, h].sigmoid() if config.momentum else None
        far, _ = lact_naive(*own, rates[:, 3 * h : 3 * h + 3], momentum, mlp, config.core)
        far = far / (far.square().mean(-1, keepdim=True) + config.norm_eps).sqrt() * layer.fast_norm.weight
        parts.append(far * F.silu(layer.scale_proj(x)[:, h : h + 1]) if config.learned_scale else far)
    return layer.o_proj(near + torch.cat(parts, dim=-1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"update": "muon"},
        {"momentum": False, "learned_scale": False},
        {"silu": "qkv", "qk_norm": True, "bias": True},
        {"silu": "none", "fast_rope": False, "window": None},
        {"initial_rank": None, "fast_hidden_ratio": 1.5},
    ],
    ids=str,
)
def test_layer_and_its_gradients_agree_with_the_definition(changes):
    layer, x = make_layer(**changes), tokens(2, 10).requires_grad_()
    y, expected = layer(x)[0], torch.stack([by_definition(layer, stream) for stream in x])
    torch.testing.assert_close(y, expected)
    wanted = [x, *layer.parameters()]
    found = torch.autograd.grad(y.sin().sum(), wanted)
    for a, b in zip(found, torch.autograd.grad(expected.sin().sum(), wanted), strict=True):
        torch.testing.assert_close(a, b)


def test_a_chunk_is_read_with_the_networks_of_before():
    layer, x = make_layer(window=1), tokens(1, 12)
    other = x.clone()
    other[:, 1] += 1
    differs = (layer(x)[0] != layer(other)[0]).any(-1)[0]
    assert differs.tolist() == [False, True, False, False] + [True] * 8


def test_flushing_teaches_the_networks_what_waits():
    layer, x = make_layer(window=1), tokens(1, 3)
    _, state = layer(x)
    flushed = state.flush()
    assert (state.memory.waiting.counts, flushed.memory.waiting.counts) == ((3,), (0,))
    _, full = make_layer(window=1, chunk_size=3)(x)
    torch.testing.assert_close(flushed.memory.fast.mlp.gate, full.memory.fast.mlp.gate)


def test_rates_start_near_the_base_rate():
    layer = LaCT(DIM, LaCTConfig(**{**SMALL, "base_lr": 0.01}))
    assert (layer.rates(torch.zeros(1, 1, DIM)) / 0.01).log().abs().max() < 1


@pytest.mark.parametrize(
    "change",
    [
        {"window": 2},
        {"chunk_size": 3},
        {"update": "muon"},
        {"momentum": False},
        {"base_lr": 0.1},
        {"silu": "qkv"},
        {"silu": "none"},
        {"fast_rope": False},
        {"learned_scale": False},
        {"qk_norm": True},
        {"norm_eps": 0.1},
        {"rope": RopeConfig(base=10_000.0, fraction=1.0, scaling="linear", factor=2.0)},
    ],
    ids=str,
)
def test_each_field_that_is_no_size_changes_the_numbers(change):
    one, other = make_layer(), make_layer(**change)
    other.load_state_dict(one.state_dict(), strict=False)
    x = tokens(2, 12)
    assert not torch.allclose(one(x)[0], other(x)[0], rtol=1e-6)


def test_each_size_shows_in_the_weights():
    layer = LaCT(DIM, LaCTConfig(**{**SMALL, "fast_hidden_ratio": 1.5, "bias": True, "qk_norm": True}))
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {
        "qkv_proj.weight": (24, 6),
        "qkv_proj.bias": (24,),
        "q_norm.weight": (8,),
        "k_norm.weight": (8,),
        "fast_scale": (2, 8),
        "fast_offset": (2, 8),
        "lr_proj.weight": (6, 6),
        "lr_proj.bias": (6,),
        "momentum_proj.weight": (2, 6),
        "momentum_proj.bias": (2,),
        "scale_proj.weight": (2, 6),
        "scale_proj.bias": (2,),
        "initial_gate.left": (2, 6, 2),
        "initial_gate.right": (2, 2, 4),
        "initial_up.left": (2, 6, 2),
        "initial_up.right": (2, 2, 4),
        "initial_down": (2, 4, 6),
        "fast_norm.weight": (4,),
        "o_proj.weight": (6, 8),
    }


def test_initial_networks_have_the_scales_of_the_release():
    config = LaCTConfig(num_heads=4, head_dim=100, num_fast_heads=4, initial_rank=64, initial_gain=0.3)
    layer = LaCT(DIM, config)
    torch.testing.assert_close(layer.initial_down.std().item(), 0.1, rtol=0.05, atol=0)
    product = layer.initial_gate() - 0.5 * torch.eye(100)
    torch.testing.assert_close(product.std().item(), 0.3**2 * 0.1, rtol=0.05, atol=0)
    full = LaCT(DIM, LaCTConfig(num_heads=4, head_dim=100, num_fast_heads=4, initial_rank=None))
    torch.testing.assert_close(full.initial_up().std().item(), 0.1, rtol=0.05, atol=0)


def test_a_state_of_another_configuration_is_refused_with_all_differences():
    _, state = make_layer()(tokens(2, 3))
    with pytest.raises(ValueError) as error:
        make_layer(chunk_size=5, fast_hidden_ratio=2.0)(tokens(2, 3), state)
    assert "LaCTOptions(chunk_size=5" in str(error.value)
    assert "fast networks end in (2, 4, 8) in the layer and (2, 4, 4) in the state" in str(error.value)


def test_all_mistakes_are_reported_at_once():
    config = object.__new__(LaCTConfig)
    fields = {f: getattr(LaCTConfig(**SMALL), f) for f in LaCTConfig.__slots__}
    wrong = {"num_fast_heads": 3, "base_lr": 0.0, "silu": "v", "chunk_size": 0, "head_dim": 5, "window": 0}
    for name, value in {**fields, **wrong}.items():
        object.__setattr__(config, name, value)
    with pytest.raises(ValueError) as caught:
        inspect.unwrap(LaCTConfig.__post_init__)(config)
    for part in (
        "LaCTConfig: window must be at least 1, got window=0",
        "base_lr must be above 0",
        "width must be a multiple of num_fast_heads, got width=20 and num_fast_heads=3",
        "silu must be none, qk or qkv, got silu='v'",
        "head_dim * rope.fraction must be even",
        "chunk_size must be at least 1, got chunk_size=0",
    ):
        assert part in str(caught.value)


def test_a_fresh_memory_is_float32_under_autocast_however_it_is_made():
    layer, x = make_layer().float(), tokens(2, 9).float()
    with torch.autocast("cpu", torch.bfloat16):
        given = layer(x, layer.initial_state(x))[0]
        assert torch.equal(layer(x)[0], given)
        fast = layer.initial_state(x).memory.fast.mlp
    assert torch.equal(fast.gate, layer.initial_state(x).memory.fast.mlp.gate)
