"""Fast addressing against its definition: scores, slots, key steps, and the gradients of all of them."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.addressing import address, product_key_topk
from fwpkm.ops.addressing.naive import key_step_naive, product_key_topk_naive, slot_scores_naive
from fwpkm.testing.accuracy import assert_all_accurate
from fwpkm.testing.inputs import make_core_inputs
from fwpkm.testing.op_calls import check_op_calls, record_op_calls

pytestmark = pytest.mark.usefixtures("each_backend")

SCORES = ["idw", "dot"]


def make_streams(seed, *, S=1, M=6, H=1, n=5, half=2, dtype=torch.float64):
    """Draw queries [S, M, H, Dk] and each stream's own sub-keys [S, 2, H, n, Dk/2]."""
    each = [make_core_inputs(seed + 97 * s, T=M, H=H, n=n, Dk=2 * half, dtype=dtype) for s in range(S)]
    return torch.cat([x.q for x in each]), torch.stack([x.keys for x in each])


def address_naive(q, keys, *, topk, score, step_tokens=0, step_size=None):
    """Do what `address` does, stream by stream, with the definition."""
    scores, slots, moved = [], [], []
    for s in range(q.shape[0]):
        best, slot = product_key_topk_naive(q[s], keys[s], topk, score)
        scores.append(best)
        slots.append(slot)
        lr = 1.0 if step_size is None else float(step_size[s])
        moved.append(key_step_naive(q[s, :step_tokens], keys[s], topk, score, lr) if step_tokens else keys[s])
    return torch.stack(scores), torch.stack(slots), torch.stack(moved)


def with_gradients(fn, q, keys, **how):
    """Return scores, moved keys, and the gradients of a smooth loss of both."""
    q, keys = q.detach().clone().requires_grad_(), keys.detach().clone().requires_grad_()
    scores, _, moved = fn(q, keys, **how)
    loss = scores.softmax(-1).square().sum() + scores.mean() + moved.sin().sum()
    dq, dkeys = torch.autograd.grad(loss, (q, keys))
    return {"scores": scores.detach(), "moved": moved.detach(), "dq": dq, "dkeys": dkeys}


streams = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "S": st.integers(1, 3),
        "M": st.integers(1, 7),
        "H": st.integers(1, 3),
        "n": st.integers(1, 7),
        "half": st.integers(1, 4),
    }
)


@given(shape=streams, score=st.sampled_from(SCORES), data=st.data())
def test_scores_slots_steps_and_gradients_equal_the_definition(shape, score, data):
    q, keys = make_streams(**shape)
    how = {
        "topk": data.draw(st.integers(1, shape["n"])),
        "score": score,
        "step_tokens": data.draw(st.integers(0, shape["M"])),
        "step_size": torch.rand(shape["S"], dtype=torch.float64),
    }
    assert torch.equal(address(q, keys, **how)[1], address_naive(q, keys, **how)[1])
    fast, slow = with_gradients(address, q, keys, **how), with_gradients(address_naive, q, keys, **how)
    for name, value in slow.items():
        torch.testing.assert_close(fast[name], value, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(("n", "topk"), [(1, 1), (7, 1), (7, 7), (33, 8), (64, 5)])
def test_product_key_topk_picks_slots_no_worse_than_the_kth_best(n, topk, score, dtype):
    q, keys = make_streams(n, M=20, H=2, n=n, half=3, dtype=dtype)
    scores, slot = product_key_topk(q[0], keys[0], topk, score)
    exact = slot_scores_naive(q[0].double(), keys[0].double(), score)
    slack = 8 * torch.finfo(dtype).eps * exact.abs().amax()
    assert (exact.gather(-1, slot) >= exact.topk(topk, dim=-1).values[..., -1:] - slack).all()
    assert all(len(set(row)) == topk for row in slot.flatten(0, 1).tolist()), "a slot came twice"
    assert (scores[..., :-1] >= scores[..., 1:]).all(), "the best comes first"
    torch.testing.assert_close(scores.double(), exact.gather(-1, slot), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("half", [5, 32])
def test_float32_errs_at_most_twice_as_much_as_the_definition_in_float32(half, score):
    q, keys = make_streams(half, S=2, M=33, H=2, n=19, half=half)
    how = {"topk": 4, "score": score, "step_tokens": 30}
    oracle = with_gradients(address_naive, q, keys, **how)
    plain = with_gradients(address_naive, q.float(), keys.float(), **how)
    fast = with_gradients(address, q.float(), keys.float(), **how)
    assert_all_accurate(fast, plain, oracle)


@pytest.mark.parametrize("distance", [1.0, 0.1, 0.01, 0.0])
def test_near_a_sub_key_float32_scores_err_no_more_than_cancellation_explains(distance):
    """Distances come from |q|^2 - 2 q.K + |K|^2, so they err by the rounding of its terms."""
    q, keys = make_streams(13, M=8, n=8, half=32)
    keys[0, :, 0] = q[0, :, 0].view(8, 2, 32).transpose(0, 1) + distance * torch.randn(2, 8, 32).double()
    fast, slot, _ = address(q.float(), keys.float(), topk=4)
    exact = slot_scores_naive(q[0].float().double(), keys[0].float().double(), "idw").gather(-1, slot[0])
    size = q.square().sum(-1).amax() + keys.square().sum(-1).amax()
    rounding = 4 * torch.finfo(torch.float32).eps * size
    assert ((-fast[0].double()).exp() <= (-exact).exp() * (1 + rounding / 1e-3) ** 2).all()
    assert ((-fast[0].double()).exp() >= (-exact).exp() / (1 + rounding / 1e-3) ** 2).all()


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("step_tokens", [0, 1, 3, 5])
def test_gradcheck_of_scores_and_key_step(score, step_tokens):
    q, keys = make_streams(1, S=2, M=5, H=2, n=4)

    def run(q, keys):
        scores, _, moved = address(q, keys, topk=2, score=score, step_tokens=step_tokens)
        return scores, moved

    assert torch.autograd.gradcheck(run, (q.requires_grad_(), keys.requires_grad_()))


@pytest.mark.parametrize("only", ["q", "keys"])
def test_gradients_of_one_input_alone_are_the_same(only):
    q, keys = make_streams(2)
    both = with_gradients(address, q, keys, topk=2, step_tokens=4)[f"d{only}"]
    leaves = {"q": q.clone(), "keys": keys.clone()}
    leaves[only].requires_grad_()
    scores, _, moved = address(**leaves, topk=2, step_tokens=4)
    loss = scores.softmax(-1).square().sum() + scores.mean() + moved.sin().sum()
    torch.testing.assert_close(torch.autograd.grad(loss, leaves[only])[0], both)


@pytest.mark.parametrize("score", SCORES)
def test_a_loss_of_the_moved_keys_alone_has_gradients(score):
    q, keys = make_streams(3, S=2)
    grads = []
    for fn in (address, address_naive):
        leaves = q.clone().requires_grad_(), keys.clone().requires_grad_()
        moved = fn(*leaves, topk=3, score=score, step_tokens=6)[2]
        grads.append(torch.autograd.grad(moved.cos().sum(), leaves))
    torch.testing.assert_close(*grads)


def test_second_derivatives_are_refused_instead_of_wrong():
    q, keys = make_streams(4)
    q.requires_grad_()
    scores, _, _ = address(q, keys, topk=2)
    (grad,) = torch.autograd.grad(scores.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.sum(), q)


def test_streams_with_step_size_zero_keep_their_keys():
    q, keys = make_streams(5, S=3)
    _, _, moved = address(q, keys, topk=2, step_tokens=6, step_size=torch.tensor([1.0, 0.0, 1.0]).double())
    assert [torch.equal(a, b) for a, b in zip(moved, keys, strict=True)] == [False, True, False]


def test_without_step_tokens_the_keys_come_back_themselves():
    q, keys = make_streams(6)
    assert address(q, keys, topk=2)[2] is keys


def test_tokens_past_step_tokens_do_not_move_the_keys():
    q, keys = make_streams(7)
    other = q.clone()
    other[:, 4:] += 1
    assert torch.equal(
        address(q, keys, topk=2, step_tokens=4)[2], address(other, keys, topk=2, step_tokens=4)[2]
    )


def test_no_tokens_have_no_scores():
    q, keys = make_streams(8, M=1)
    scores, slot, moved = address(q[:, :0], keys, topk=2)
    assert scores.shape == slot.shape == (1, 0, 1, 2)
    assert moved is keys


@pytest.mark.parametrize("score", SCORES)
def test_equal_sub_keys_and_zero_queries_give_finite_numbers(score):
    q, keys = torch.zeros(1, 4, 1, 4, requires_grad=True), torch.ones(1, 2, 1, 5, 2, requires_grad=True)
    scores, slot, moved = address(q, keys, topk=3, score=score, step_tokens=4)
    grads = torch.autograd.grad(scores.sum() + moved.square().sum(), (q, keys))
    assert all(len(set(row)) == 3 for row in slot.flatten(0, 2).tolist())
    assert all(bool(x.isfinite().all()) for x in (scores, moved, *grads))


def test_a_query_on_its_sub_key_has_a_finite_score_and_gradient():
    keys = torch.randn(1, 2, 1, 5, 16) * 30
    q = torch.cat((keys[0, 0, 0, 2], keys[0, 1, 0, 3])).view(1, 1, 1, 32).requires_grad_()
    scores, slot, _ = address(q, keys, topk=2)
    (grad,) = torch.autograd.grad(scores.sum(), q)
    assert slot[0, 0, 0, 0] == 2 * 5 + 3
    assert scores.isfinite().all()
    assert grad.isfinite().all()


def test_memory_layout_of_the_queries_does_not_matter():
    q, keys = make_streams(9, S=2, H=2)
    laid_otherwise = q.transpose(1, 2).contiguous().transpose(1, 2)
    a = with_gradients(address, q, keys, topk=2, step_tokens=5)
    leaf = laid_otherwise.requires_grad_()
    scores, _, moved = address(leaf, keys, topk=2, step_tokens=5)
    (dq,) = torch.autograd.grad(scores.softmax(-1).square().sum() + scores.mean() + moved.sin().sum(), leaf)
    torch.testing.assert_close(dq, a["dq"])


def test_the_operators_keep_the_rules_of_torch_library():
    def run(score, step_tokens, laid_otherwise=False):
        q, keys = make_streams(10, S=2, M=5, H=2, n=4)
        if laid_otherwise:
            q = q.transpose(1, 2).contiguous().transpose(1, 2)
        with_gradients(address, q, keys, topk=2, score=score, step_tokens=step_tokens)

    calls = record_op_calls(lambda: [run("idw", 3), run("dot", 5), run("idw", 0), run("idw", 3, True)])
    assert {"fwpkm::address", "fwpkm::address_backward"} <= check_op_calls(calls)


def test_inference_first_and_training_later_share_nothing_that_breaks():
    q, keys = make_streams(11, n=9)
    with torch.inference_mode():
        before = address(q, keys, topk=6, step_tokens=6)
    after = with_gradients(address, q, keys, topk=6, step_tokens=6)
    torch.testing.assert_close(after["scores"], before[0].clone())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topk": 0}, "address: topk must be in [1, n], got topk=0 with n=5"),
        ({"topk": 6}, "address: topk must be in [1, n], got topk=6 with n=5"),
        ({"step_tokens": 7}, "address: step_tokens must be in [0, M], got step_tokens=7 with M=6"),
        ({"step_tokens": -1}, "address: step_tokens must be in [0, M], got step_tokens=-1 with M=6"),
        ({"keys": torch.zeros(1, 2, 1, 5, 3).double()}, "got keys (1, 2, 1, 5, 3) with queries (1, 6, 1, 4)"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(change, message):
    q, keys = make_streams(12)
    args = {"q": q, "keys": keys, "topk": 2, **change}
    with pytest.raises(ValueError, match=re.escape(message)):
        address(**args)


@pytest.mark.parametrize("score", SCORES)
def test_no_tokens_ask_for_nothing(score):
    q, keys = (x.requires_grad_() for x in make_streams(0, S=2))
    scores, slots, moved = address(q[:, :0], keys, topk=3, score=score)
    assert scores.shape == slots.shape == (2, 0, 1, 3)
    dq, dkeys = torch.autograd.grad(scores.sum() + moved.sum(), (q, keys))
    assert torch.equal(dq, torch.zeros_like(q))
    assert torch.equal(dkeys, torch.ones_like(keys))
