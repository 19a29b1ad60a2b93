"""The weighted bag against its definition, in both forms of the table's gradient."""

import pytest
import torch

from fwpkm.ops.bag import weighted_bag
from fwpkm.ops.bag.naive import weighted_bag_naive


def make_inputs(M=7, J=3, N=5, D=4):
    """Rows repeat: M * J is well above N."""
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(M, J, dtype=torch.float64, generator=draw).requires_grad_()
    table = torch.randn(N, D, dtype=torch.float64, generator=draw).requires_grad_()
    return w, torch.randint(N - 1, (M, J), generator=draw), table


@pytest.mark.parametrize("sparse_grad", [False, True])
def test_bag_and_its_gradients_agree_with_the_definition(sparse_grad):
    w, ids, table = make_inputs()
    d_out = torch.randn(7, 4, dtype=torch.float64)
    out = weighted_bag(w, ids, table, sparse_grad=sparse_grad)
    expected = weighted_bag_naive(w, ids, table)
    torch.testing.assert_close(out, expected)
    found = torch.autograd.grad(out, (w, table), d_out)
    assert found[1].is_sparse == sparse_grad
    for a, b in zip(found, torch.autograd.grad(expected, (w, table), d_out), strict=True):
        torch.testing.assert_close(a.to_dense(), b)


def test_dense_gradients_pass_gradcheck():
    w, ids, table = make_inputs()
    assert torch.autograd.gradcheck(lambda w, table: weighted_bag(w, ids, table), (w, table))


def test_a_sparse_gradient_holds_the_read_rows_alone_and_each_once():
    w, ids, table = make_inputs()
    weighted_bag(w, ids, table, sparse_grad=True).sum().backward()
    assert torch.equal(table.grad._indices()[0], ids.unique())


@pytest.mark.parametrize("sparse_grad", [False, True])
def test_neither_direction_makes_a_tensor_of_tokens_by_rows_by_width(sparse_grad):
    M, J, D = 8, 16, 64
    w, ids, table = make_inputs(M=M, J=J, N=9, D=D)
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        weighted_bag(w, ids, table, sparse_grad=sparse_grad).sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.function_events)
    assert 0 < largest < M * J * D * 8 // 2


def test_operator_is_registered_correctly():
    w, ids, table = make_inputs()
    torch.library.opcheck(torch.ops.fwpkm.weighted_bag.default, (w, ids, table, False))


def test_bfloat16_tables_keep_their_dtype():
    w, ids, table = make_inputs()
    half = [x.detach().bfloat16().requires_grad_() for x in (w, table)]
    out = weighted_bag(half[0], ids, half[1])
    out.float().sum().backward()
    assert out.dtype == half[0].grad.dtype == half[1].grad.dtype == torch.bfloat16


def test_mismatched_weights_are_refused():
    w, ids, table = make_inputs()
    with pytest.raises(ValueError, match="weighted_bag: w must have the shape of ids and the dtype of table"):
        weighted_bag(w.float(), ids, table)
