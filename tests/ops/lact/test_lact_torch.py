"""LaCT's write: orthogonalisation, row lengths, and the step against autograd."""

import pytest
import torch

from fwpkm.ops.fast_mlp import FastMLP
from fwpkm.ops.lact import LaCTOptions, LaCTWeights, lact_step
from fwpkm.ops.lact.naive import lact_naive
from fwpkm.ops.lact.torch import orthogonalise
from fwpkm.state import iter_tensors

S, H, F, d, M = 2, 3, 5, 4, 6


def draw(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def make_mlp():
    shapes = {"gate": (S, H, F, d), "up": (S, H, F, d), "down": (S, H, d, F)}
    return FastMLP(**{name: draw(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())})


@pytest.mark.parametrize("update", ["gradient", "muon"])
@pytest.mark.parametrize("momentum", [False, True])
def test_two_steps_agree_with_the_definition_through_second_order(update, momentum):
    options = LaCTOptions(chunk_size=M, update=update, momentum=momentum)
    mlp = make_mlp()
    k, v = draw(S, H, 2 * M, d, seed=11), draw(S, H, 2 * M, d, seed=12)
    rates, say = draw(S, H, 2 * M, 3, seed=13), draw(S, H, 2 * M, seed=14)
    now = LaCTWeights.fresh(mlp, momentum=momentum)
    for chunk in (slice(0, M), slice(M, 2 * M)):
        factor = say[:, :, chunk].mean(-1)[..., None, None] if momentum else None
        own = rates[:, :, chunk].split(1, dim=-1)
        now = lact_step(now, k[:, :, chunk], v[:, :, chunk], own, factor, options)
    pairs = []
    for s in range(S):
        for h in range(H):
            one = FastMLP(gate=mlp.gate[s, h], up=mlp.up[s, h], down=mlp.down[s, h])
            part = say[s, h] if momentum else None
            _, end = lact_naive(k[s, h], k[s, h], v[s, h], rates[s, h], part, one, options)
            pairs += [(a[s, h], b) for a, b in zip(iter_tensors(now.mlp), iter_tensors(end), strict=True)]
    for a, b in pairs:
        torch.testing.assert_close(a, b)
    wanted = [k, v, rates, *iter_tensors(mlp), *([say] if momentum else [])]
    sums = [sum(p.sin().sum() for p in side) for side in zip(*pairs, strict=True)]
    for a, b in zip(*(torch.autograd.grad(total, wanted) for total in sums), strict=True):
        torch.testing.assert_close(a, b)


def test_rows_keep_their_lengths_whatever_is_written():
    now = LaCTWeights.fresh(make_mlp(), momentum=False)
    k, v = draw(S, H, M, d, seed=11), draw(S, H, M, d, seed=12)
    rates = tuple(torch.full((3, S, H, M, 1), 9.0, dtype=torch.float64))
    after = lact_step(now, k, v, rates, None, LaCTOptions(chunk_size=M, momentum=False))
    for a, b in zip(iter_tensors(after.mlp), iter_tensors(now.mlp), strict=True):
        torch.testing.assert_close(a.norm(dim=-1), b.norm(dim=-1), rtol=1e-4, atol=0)
        assert not torch.allclose(a, b)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_orthogonalise_keeps_singular_vectors_and_evens_out_singular_values(shape):
    G = draw(3, *shape, seed=0).detach()
    X = orthogonalise(G)
    u, s, vh = torch.linalg.svd(G, full_matrices=False)
    inner = u.mT @ X @ vh.mT
    values = inner.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(inner, torch.diag_embed(values), rtol=0, atol=1e-9)
    strong = s > 0.01 * s.square().sum(-1, keepdim=True).sqrt()
    assert ((values[strong] > 0.97) & (values[strong] < 1.04)).all()


def test_orthogonalise_leaves_zero_alone():
    G = torch.zeros(2, 3, requires_grad=True)
    orthogonalise(G).sum().backward()
    assert torch.equal(orthogonalise(G), torch.zeros(2, 3))
    assert G.grad.isfinite().all()


def test_all_option_problems_are_reported_at_once():
    options = object.__new__(LaCTOptions)
    for name, value in {"chunk_size": 0, "update": "adam", "momentum": True}.items():
        object.__setattr__(options, name, value)
    with pytest.raises(ValueError, match=r"LaCTOptions: chunk_size must be at least 1.*; update must be"):
        LaCTOptions.__post_init__(options)
