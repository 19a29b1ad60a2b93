"""Read and write weights in one pass, against the formula and its gradients by autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fwpkm.ops.backend import use_backend
from fwpkm.ops.core.weights import read_weights
from fwpkm.ops.weigh import can_weigh, weigh

pytest.importorskip("numba")


def by_formula(score, temperature, writing, counts, factor, places, *, rate, exact):
    w = read_weights(score, "softmax", temperature)
    own = w[writing]
    step = rate * own / counts.to(score.dtype)
    if exact:
        step = step / own.square().sum(-1, keepdim=True).clamp_min(torch.finfo(own.dtype).tiny)
    return w, step if factor is None else step * factor[places][:, None]


def random_inputs(seed, R, J, written, *, has_factor=True, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    P = R + 3
    factor = torch.rand(P, generator=draw, dtype=torch.float64).to(dtype) if has_factor else None
    return (
        (3 * torch.randn(R, J, generator=draw, dtype=torch.float64)).to(dtype),
        torch.tensor(0.7, dtype=dtype),
        torch.randperm(R, generator=draw)[:written],
        torch.randint(1, 5, (written, J), generator=draw),
        factor,
        torch.randperm(P, generator=draw)[:written],
    )


def upstream(R, J, written):
    draw = torch.Generator().manual_seed(R + J)
    return [torch.randn(count, J, generator=draw, dtype=torch.float64) for count in (R, written)]


def with_gradients(fn, inputs, wanted, **how):
    inputs = [
        x.clone().requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
        for x in inputs
    ]
    outputs = fn(*inputs, **how)
    leaves = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
    loss = sum((x * g).sum() for x, g in zip(outputs, wanted, strict=True) if g is not None)
    return outputs, torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


@given(
    seed=st.integers(0, 2**31),
    R=st.integers(1, 3000),
    J=st.integers(1, 40),
    share=st.floats(0, 1),
    has_factor=st.booleans(),
    exact=st.booleans(),
    used=st.sampled_from(["both", "w", "step"]),
)
@settings(deadline=None, max_examples=30)
def test_weights_and_their_gradients_agree_with_the_formula(seed, R, J, share, has_factor, exact, used):
    inputs = random_inputs(seed, R, J, int(share * R), has_factor=has_factor)
    assert can_weigh(inputs[0], inputs[4])
    wanted = upstream(R, J, len(inputs[2]))
    if used != "both":
        wanted[used == "w"] = None
    found = with_gradients(weigh, inputs, wanted, rate=0.6, exact=exact)
    expected = with_gradients(by_formula, inputs, wanted, rate=0.6, exact=exact)
    for a, b in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("exact", [False, True])
def test_in_single_precision_errors_are_no_larger_than_those_of_plain_pytorch(exact):
    inputs = random_inputs(1, 2000, 8, 1500, dtype=torch.float32)
    wanted = [g.float() for g in upstream(2000, 8, 1500)]
    wide = [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs]
    truth = with_gradients(by_formula, wide, [x.double() for x in wanted], rate=1.0, exact=exact)

    def errors(fn):
        own = with_gradients(fn, inputs, wanted, rate=1.0, exact=exact)
        pairs = zip((*own[0], *own[1]), (*truth[0], *truth[1]), strict=True)
        return [(a.double() - b).norm() / b.norm() for a, b in pairs]

    for own, plain in zip(errors(weigh), errors(by_formula), strict=True):
        assert own <= 2 * plain + 1e-7


def test_gradients_pass_the_numerical_check():
    score, temperature, writing, counts, factor, places = random_inputs(2, 6, 3, 4)
    for exact in (False, True):

        def fn(s, tau, f, exact=exact):
            return weigh(s, tau, writing, counts, f, places, rate=0.5, exact=exact)

        leaves = (score.requires_grad_(), temperature.requires_grad_(), factor.requires_grad_())
        assert torch.autograd.gradcheck(fn, leaves)


def test_tensors_with_gaps_are_as_good():
    score, temperature, writing, counts, factor, places = random_inputs(5, 40, 6, 30)

    def with_gaps(x):
        return torch.stack((x, torch.full_like(x, 7)), dim=-1)[..., 0]

    gaps = [with_gaps(x) for x in (score, factor, counts, writing, places)]
    assert not any(x.is_contiguous() for x in gaps)
    wanted, how = [with_gaps(g) for g in upstream(40, 6, 30)], {"rate": 1.0, "exact": True}
    leaves = [x.requires_grad_() for x in (gaps[0], gaps[1])]
    outputs = weigh(leaves[0], temperature, gaps[3], gaps[2], leaves[1], gaps[4], **how)
    grads = torch.autograd.grad(outputs, leaves, wanted)
    expected = with_gradients(
        by_formula, (score, temperature, writing, counts, factor, places), wanted, **how
    )
    for a, b in zip((*outputs, *grads), (*expected[0], expected[1][0], expected[1][2]), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("exact", [False, True])
def test_a_nan_makes_all_of_its_tokens_weights_nan_and_nobody_elses(exact):
    score, temperature, writing, counts, factor, places = random_inputs(3, 5, 4, 5)
    score[2, 1] = float("nan")
    w, step = weigh(score, temperature, writing, counts, factor, places, rate=1.0, exact=exact)
    bad = writing == 2
    assert w.isnan().any(dim=-1).tolist() == [False, False, True, False, False]
    assert w[2].isnan().all()
    assert torch.equal(step.isnan(), bad[:, None].expand_as(step))


def test_any_number_of_threads_gives_the_same():
    inputs, before = random_inputs(4, 5000, 8, 4000), torch.get_num_threads()
    wanted = upstream(5000, 8, 4000)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs, grads = with_gradients(weigh, inputs, wanted, rate=1.0, exact=True)
            found.append([*outputs, *grads])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_plain_pytorch_is_left_alone():
    score = torch.randn(3, 2)
    with use_backend("torch"):
        assert not can_weigh(score, None)
    assert can_weigh(score, torch.ones(3), None)
    assert not can_weigh(score, None, torch.ones(3, dtype=torch.float64))
    assert not can_weigh(score[:0], None)
    assert not can_weigh(score.bfloat16(), None)
