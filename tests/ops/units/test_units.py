"""Normalised rows in compiled loops and in kernels against their formulas: values and gradients, on odd sizes."""

import importlib.util

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.layers.frame import normalise
from fwpkm.layers.norm import RMSNorm
from fwpkm.layers.norm import scaled_units as spelt_out
from fwpkm.ops import units
from fwpkm.ops.backend import interprets_triton, use_backend

# of Triton before 3.9, interpreted
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")


def form(backend, device, *, is_there, reason):
    marks = pytest.mark.skipif(not is_there, reason=reason)
    return pytest.param((backend, device), id=f"{backend} {device}", marks=marks)


HAS_NUMBA, HAS_TRITON = (importlib.util.find_spec(package) is not None for package in ("numba", "triton"))
HAS_GPU = HAS_TRITON and torch.cuda.is_available() and not interprets_triton()
INTERPRETED = form(
    "triton", "cpu", is_there=interprets_triton(), reason="Triton's interpreter is not asked for"
)
ON_GPU = form("triton", "cuda", is_there=HAS_GPU, reason="needs a CUDA device")
FORMS = [form("numba", "cpu", is_there=HAS_NUMBA, reason="numba is not installed"), INTERPRETED, ON_GPU]


@pytest.fixture(scope="module", params=FORMS)
def device(request):
    """Normalise rows by compiled loops, or by kernels."""
    backend, device = request.param
    with use_backend(backend):
        yield device


@pytest.fixture(scope="module", params=[INTERPRETED, ON_GPU])
def kernels(request):
    """Normalise rows by kernels."""
    backend, device = request.param
    with use_backend(backend):
        yield device


EPS = 0.3
"""Added to mean squares, and not next to nothing in float32."""
sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 19))
shapes = pytest.mark.parametrize("shape", [(2, 3, 7), (1, 901, 16), (1, 9, 513), (3, 1, 2049)], ids=str)
"""Narrow ones; several blocks of rows; rows that fill a block alone; wider ones."""


def draw(shape, seed, device="cpu", *, like_rows=False, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = shape[:-1] if like_rows else shape
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return drawn.to(device).requires_grad_()


def assert_alike(fast, slow, leaves):
    """Compare what two forms return, and the gradients of a smooth loss of it."""
    wanted = [torch.randn_like(y) for y in slow]
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    grads = [
        torch.autograd.grad(sum((y.sin() * g).sum() for y, g in zip(ys, wanted, strict=True)), leaves)
        for ys in (fast, slow)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def check_scaled_units(device, shape, seed, count):
    x = draw(shape, seed, device)
    weights = [draw(shape[-1:], seed + 1 + i, device) for i in range(count)]
    assert units.can_normalise(x, *weights)
    with use_backend("torch"):
        slow = spelt_out(x, EPS, *weights)
    assert_alike(units.scaled_units(x, EPS, *weights), slow, [x, *weights])


def check_dots(device, shape, seed, count):
    x = draw(shape, seed, device)
    vector, *weights = (draw(shape[-1:], seed + 1 + i, device) for i in range(count + 1))
    with use_backend("torch"):
        unit, *slow = spelt_out(x, EPS, torch.zeros_like(vector), *weights)
    fast = units.scaled_units_and_dots(x, EPS, vector, *weights)
    assert_alike(fast, [*slow, unit @ vector], [x, vector, *weights])


def check_normalised(device, shape, seed, kind):
    x = draw(shape, seed, device)
    with use_backend("torch"):
        slow = normalise(x, kind)
    assert_alike([units.normalised(x, kind)], [slow], [x])


def check_mixtures(device, shape, seed, gated):
    v_hat, v, weight = (
        draw(shape, seed, device),
        draw(shape, seed + 1, device),
        draw(shape[-1:], seed + 2, device),
    )
    gate = draw(shape, seed + 3, device, like_rows=True) if gated else None
    mixed = v_hat + v if gate is None else v + gate[..., None] * (v_hat - v)
    with use_backend("torch"):
        (slow,) = spelt_out(mixed, EPS, weight)
    leaves = [v_hat, v, weight] + ([] if gate is None else [gate])
    assert_alike([units.mixed_units(v_hat, v, gate, EPS, weight)], [slow], leaves)


@given(shape=sizes, seed=st.integers(0, 10**6), count=st.integers(1, 3))
def test_scaled_units_equal_the_formula(device, shape, seed, count):
    check_scaled_units(device, shape, seed, count)


@given(shape=sizes, seed=st.integers(0, 10**6), count=st.integers(0, 3))
def test_products_of_units_with_a_vector_equal_the_formula(device, shape, seed, count):
    check_dots(device, shape, seed, count)


@pytest.mark.parametrize("kind", ["l2", "zscore"])
@given(shape=sizes, seed=st.integers(0, 10**6))
def test_normalised_vectors_equal_the_formula(device, kind, shape, seed):
    check_normalised(device, shape, seed, kind)


@given(shape=sizes, seed=st.integers(0, 10**6), gated=st.booleans())
def test_mixtures_equal_the_formula(device, shape, seed, gated):
    check_mixtures(device, shape, seed, gated)


@shapes
@pytest.mark.parametrize("parts", [1, 2])
def test_so_do_rows_of_any_width_and_number(device, shape, parts, monkeypatch):
    """With so few programs each goes through several blocks of rows."""
    if HAS_TRITON:
        monkeypatch.setattr("fwpkm.ops.units.triton.num_multiprocessors", lambda x: 1)
        monkeypatch.setattr("fwpkm.ops.units.triton._PARTS", parts)
    check_scaled_units(device, shape, 0, 3)
    check_dots(device, shape, 1, 2)
    for kind in ("l2", "zscore"):
        check_normalised(device, shape, 2, kind)
    for gated in (True, False):
        check_mixtures(device, shape, 3, gated)


@pytest.mark.parametrize("kind", ["l2", "zscore"])
def test_constant_vectors_have_finite_gradients(device, kind):
    x = torch.full((2, 5), 3.0, requires_grad=True, device=device)
    (grad,) = torch.autograd.grad(units.normalised(x, kind).sum(), x)
    assert grad.isfinite().all()


@pytest.mark.parametrize("kind", ["l2", "zscore"])
def test_nan_stays_with_its_row(device, kind):
    x = torch.randn(4, 5, device=device)
    x[1, 2] = float("nan")
    y = units.normalised(x, kind)
    assert y[1].isnan().all()
    assert y[[0, 2, 3]].isfinite().all()


def test_only_what_is_asked_for_gets_a_gradient(device):
    x, weight, other = draw((2, 3, 4), 0, device), draw((4,), 1, device), draw((4,), 2, device)
    first, second = units.scaled_units(x, EPS, weight, other)
    dx, d_other = torch.autograd.grad(first.sum(), (x, other), allow_unused=True, retain_graph=True)
    assert dx.isfinite().all()
    assert d_other is None
    both = torch.autograd.grad(second.sum(), (weight, other), allow_unused=True)
    assert both[0] is None
    assert both[1].isfinite().all()
    _, dots = units.scaled_units_and_dots(x, EPS, other, weight)
    alone, d_other, d_weight = torch.autograd.grad(dots.sum(), (x, other, weight), allow_unused=True)
    assert alone.isfinite().all()
    assert d_other.isfinite().all()
    assert d_weight is None


def test_a_vector_may_be_a_weight_too(device):
    x, vector = draw((2, 3, 4), 0, device), draw((4,), 1, device)
    fast = units.scaled_units_and_dots(x, EPS, vector, vector)
    with use_backend("torch"):
        unit, slow = spelt_out(x, EPS, torch.zeros_like(vector), vector)
    assert_alike(fast, [slow, unit @ vector], [x, vector])


def test_views_are_dealt_with(device):
    x = torch.randn(3, 8, 5, device=device).transpose(1, 2)
    weight = torch.randn(8, device=device)
    with use_backend("torch"):
        (slow,) = spelt_out(x, EPS, weight)
    torch.testing.assert_close(units.scaled_units(x, EPS, weight)[0], slow)


def test_weights_need_not_be_contiguous(device):
    x, wide = draw((2, 5, 7), 0, device), torch.randn(14, device=device).double()
    weight, bias = wide[::2], wide[1::2]
    with use_backend("torch"):
        slow, unit = spelt_out(x, EPS, weight, torch.zeros_like(weight))
        mixed = spelt_out(2 * x, EPS, bias)
    torch.testing.assert_close(units.scaled_units(x, EPS, weight)[0], slow)
    torch.testing.assert_close(units.scaled_units_and_dots(x, EPS, bias)[0], unit @ bias)
    torch.testing.assert_close(units.mixed_units(x, x, None, EPS, bias), mixed[0])


def test_weights_of_another_width_are_left_to_pytorch_which_refuses_them(device):
    x = torch.randn(2, 5, 8, device=device)
    for width in (4, 1, 16):
        assert not units.can_normalise(x, torch.zeros(width, device=device))
    assert not units.can_normalise(x, torch.zeros(2, 5, 1, device=device))
    assert units.can_normalise(x, torch.zeros(8, device=device), torch.zeros(2, 5, device=device))


def test_the_backward_takes_the_form_of_the_forward(device):
    """Whatever backend is chosen meanwhile."""
    x, weight = draw((2, 5, 7), 0, device), draw((7,), 1, device)
    ys = [
        units.scaled_units(x, EPS, weight)[0],
        units.normalised(x, "zscore"),
        units.mixed_units(x, x, None, EPS, weight),
    ]
    expected = [torch.autograd.grad(y.sin().sum(), x, retain_graph=True)[0] for y in ys]
    with use_backend("torch"):
        got = [torch.autograd.grad(y.sin().sum(), x)[0] for y in ys]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_transforms_of_functions_go_through_pytorchs_own_operations(device):
    norm, x = RMSNorm(7).to(device), torch.randn(3, 5, 7, device=device)
    torch.testing.assert_close(torch.func.vmap(norm)(x), norm(x))
    _, tangent = torch.func.jvp(norm, (x,), (x,))
    torch.testing.assert_close(
        tangent, torch.zeros_like(x), rtol=0, atol=1e-5
    )  # norms do not depend on lengths


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
def test_compiled_loops_want_one_precision_and_none_below_float32():
    x, weight = torch.randn(3, 8), torch.randn(8)
    with use_backend("auto"):
        assert units.can_normalise(x, weight)
        assert not units.can_normalise(x, weight.double())
        assert not units.can_normalise(x.to(torch.bfloat16))


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
def test_half_precision_is_widened_before_a_named_backend_is_asked():
    x, norm = torch.randn(2, 3, 7).to(torch.bfloat16), RMSNorm(7).to(torch.bfloat16)
    with use_backend("numba"):
        got = norm(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), RMSNorm(7)(x.float()), rtol=1e-2, atol=1e-2)


def test_kernels_read_and_write_half_precision_as_the_same_numbers_in_float32(kernels):
    x, weight, other = (draw(shape, 5, kernels, dtype=torch.bfloat16) for shape in ((2, 9, 7), (7,), (7,)))
    wide = [t.detach().float().requires_grad_() for t in (x, weight, other)]
    with use_backend("torch"):
        (slow,) = spelt_out(wide[0], EPS, wide[1])
        dots = spelt_out(wide[0], EPS, torch.zeros_like(wide[2]))[0] @ wide[2]
    fast, fast_dots = units.scaled_units_and_dots(x, EPS, other, weight)
    assert (fast.dtype, fast_dots.dtype) == (torch.bfloat16, torch.float32)
    g, g_dots = torch.randn_like(slow).to(torch.bfloat16), torch.randn_like(dots)
    narrow = torch.autograd.grad((fast, fast_dots), (x, weight, other), (g, g_dots))
    assert {d.dtype for d in narrow} == {torch.bfloat16}
    expected = torch.autograd.grad((slow, dots), wide, (g.float(), g_dots))
    for a, b in zip((fast, fast_dots, *narrow), (slow, dots, *expected), strict=True):
        torch.testing.assert_close(a.float(), b, rtol=2**-7, atol=1e-5)


def test_kernels_widen_values_and_narrow_mixtures_on_their_way(kernels):
    x = draw((2, 9, 7), 6, kernels, dtype=torch.bfloat16)
    wide = x.detach().float().requires_grad_()
    y = units.normalised(x, "zscore", torch.float32)
    with use_backend("torch"):
        expected = normalise(wide, "zscore")
    torch.testing.assert_close(y, expected)
    g = torch.randn_like(expected)
    (dx,), (d_wide,) = (torch.autograd.grad(out, leaf, g) for out, leaf in ((y, x), (expected, wide)))
    assert dx.dtype == torch.bfloat16
    torch.testing.assert_close(dx.float(), d_wide, rtol=2**-7, atol=1e-5)
    weight = torch.zeros(7, device=kernels, dtype=torch.bfloat16)
    mixed = units.mixed_units(y.detach(), wide.detach(), None, EPS, weight, torch.bfloat16)
    assert mixed.dtype == torch.bfloat16
    with use_backend("torch"):
        (slow,) = spelt_out(y.detach() + wide.detach(), EPS, weight.float())
    torch.testing.assert_close(mixed.float(), slow, rtol=2**-7, atol=1e-5)


def test_kernels_compute_in_the_wider_precision_of_what_is_given_and_what_is_wanted(kernels):
    x = torch.randn(2, 5, 7, device=kernels)
    with use_backend("torch"):
        expected = normalise(x.double(), "zscore")
    torch.testing.assert_close(units.normalised(x, "zscore", torch.float64), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_the_gates_short_way_is_not_for_forward_gradients(kernels):
    x = torch.randn(2, 7, device=kernels)
    assert units.can_gate(x)
    with torch.autograd.forward_ad.dual_level():
        assert not units.can_gate(x)
    with torch.enable_grad():
        assert not units.can_gate(x)


def test_rows_too_wide_for_a_program_are_left_to_pytorch(kernels):
    x, norm = torch.randn(2, 8193, device=kernels), RMSNorm(8193).to(kernels)
    assert not units.can_normalise(x)
    assert norm(x).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "bias"), [(torch.float64, True), (torch.float64, False), (torch.bfloat16, True)]
)
def test_units_come_with_the_gate_of_the_modules(kernels, dtype, bias):
    norms = [draw((19,), 1 + i, kernels, dtype=dtype) for i in range(3)]
    x, proj = draw((2, 5, 19), 0, kernels, dtype=dtype), torch.nn.Linear(19, 3, bias=bias).to(kernels, dtype)
    *scaled, gate = units.gated_units(x, EPS, norms[2], proj.weight, proj.bias, (norms[0], norms[1]))
    wide = torch.promote_types(dtype, torch.float32)
    assert ({y.dtype for y in scaled}, gate.dtype) == ({dtype}, wide)
    with use_backend("torch"):
        *slow, for_gate = spelt_out(x.to(wide), EPS, *(norm.to(wide) for norm in norms))
    close = {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 2**-7, "atol": 1e-5}
    for a, b in zip(scaled, slow, strict=True):
        torch.testing.assert_close(a.to(wide), b, **close)
    close = close if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(gate, proj.to(wide)(for_gate).mean(-1).sigmoid(), **close)
