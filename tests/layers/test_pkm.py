"""Product key memory against its formula, spelled out with all N slots."""

import pytest
import torch
import torch.nn.functional as F

from fwpkm.layers.pkm import PKMConfig, ProductKeyMemory

SMALL = {"dim": 12, "num_subkeys": 5, "key_dim": 6, "value_dim": 12, "num_heads": 2, "topk": 3}


def make_layer(**changes):
    torch.manual_seed(0)
    layer = ProductKeyMemory(PKMConfig(**{**SMALL, **changes})).double()
    for p in layer.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return layer


def by_definition(layer, x):
    """Score all slots of every head, keep the k best, and add up what they hold."""
    config = layer.config
    half = config.key_dim // 2
    q = F.linear(x, layer.query_proj.weight, layer.query_proj.bias)
    if config.query_norm:
        q = q / (q.square().mean(-1, keepdim=True) + config.norm_eps).sqrt() * layer.query_norm.weight
    out = 0
    for h, q_h in enumerate(q.split(config.key_dim, dim=-1)):
        s1, s2 = q_h[..., :half] @ layer.keys[0, h].T, q_h[..., half:] @ layer.keys[1, h].T
        best = (s1[..., :, None] + s2[..., None, :]).flatten(-2).topk(config.topk)
        w = best.values.softmax(-1)
        out = out + torch.einsum("btk,btkd->btd", w, layer.values[best.indices])
    if config.output == "gated":
        out = out * F.silu(F.linear(x, layer.gate_proj.weight, layer.gate_proj.bias))
    return out if config.output == "none" else layer.value_proj(out)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"value_dim": 7},
        {"output": "linear", "value_dim": 7},
        {"output": "none"},
        {"query_norm": False},
        {"query_bias": False},
        {"num_heads": 1, "topk": 5},
    ],
)
def test_layer_and_its_gradients_agree_with_the_definition(changes):
    layer, x = make_layer(**changes), torch.randn(2, 4, 12, dtype=torch.float64, requires_grad=True)
    y, expected = layer(x), by_definition(layer, x)
    torch.testing.assert_close(y, expected)
    wanted, d_y = [x, *layer.parameters()], torch.randn_like(y)
    found = torch.autograd.grad(y, wanted, d_y)
    for a, b in zip(found, torch.autograd.grad(expected, wanted, d_y), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("optimizer", [torch.optim.SparseAdam, torch.optim.SGD])
def test_sparse_table_gradients_train_only_the_rows_that_were_read(optimizer):
    layer = make_layer(sparse_grad=True)
    x, before = torch.randn(1, 1, 12, dtype=torch.float64), layer.values.detach().clone()
    layer(x).square().sum().backward()
    optimizer([layer.values], lr=0.1).step()
    _, slots = layer.address(x)
    changed = (layer.values != before).any(-1).nonzero()[:, 0]
    assert torch.equal(changed, slots.unique())


def test_weights_of_each_head_add_up_to_one():
    w, slots = make_layer().address(torch.randn(2, 3, 12, dtype=torch.float64))
    assert w.shape == slots.shape == (2, 3, 2, 3)
    torch.testing.assert_close(w.sum(-1), torch.ones(2, 3, 2, dtype=torch.float64))


def test_tokens_do_not_see_each_other():
    layer, x = make_layer(), torch.randn(2, 4, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[1, 2], layer(x[1:, 2:3])[0, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_of_the_hidden_states_is_kept(dtype):
    layer, x = make_layer().to(dtype), torch.randn(2, 3, 12, dtype=dtype)
    layer(x).float().sum().backward()
    assert layer(x).dtype == layer.values.grad.dtype == dtype


def test_autocast_leaves_addressing_in_float32():
    layer, x = make_layer().float(), torch.randn(2, 3, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.address(x)[0].dtype == torch.float32
        layer(x).sum().backward()


def test_fresh_weights_have_the_scales_of_the_release():
    layer = ProductKeyMemory(PKMConfig(dim=64, num_subkeys=64, key_dim=16, value_dim=32, num_heads=2, topk=4))
    assert layer.keys.abs().max() <= 16**-0.5
    torch.testing.assert_close(layer.keys.std(), torch.tensor(16**-0.5 / 3**0.5), rtol=0.1, atol=0)
    torch.testing.assert_close(layer.values.std(), torch.tensor(32**-0.5), rtol=0.1, atol=0)
    for proj in (layer.value_proj, layer.gate_proj):
        torch.testing.assert_close(proj.weight.std(), torch.tensor(64**-0.5), rtol=0.1, atol=0)
    assert torch.equal(layer.query_norm.weight, torch.ones(32))


def test_all_config_problems_are_reported_at_once():
    with pytest.raises(ValueError) as error:
        PKMConfig(dim=0, num_subkeys=4, key_dim=3, topk=5, value_dim=8, output="none", norm_eps=0.0)
    for name in ("dim", "key_dim", "topk", "output", "norm_eps"):
        assert f"{name}" in str(error.value)
    assert str(error.value).count(";") == 4


def test_hidden_states_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"x must be \[..., dim=12\], got x \(2, 3, 11\)"):
        make_layer()(torch.randn(2, 3, 11, dtype=torch.float64))
