"""The Triton kernels, interpreted on the CPU at small sizes, against the definition."""

import numpy as np
import pytest
import torch
from narrow_cases import check_narrow_queries, check_narrow_rows, check_narrow_targets, narrow_layer_results
from triton_cases import (
    AddressCase,
    address_results,
    address_three,
    random_scans,
    scan_three,
    share_of_tokens_that_differ,
    triton_version,
)

import fwpkm.ops.addressing.operation as operation
from fwpkm.memory.overlay import Overlay
from fwpkm.ops import backend as backends
from fwpkm.ops.addressing import address, key_squares
from fwpkm.ops.addressing.naive import product_key_topk_naive
from fwpkm.ops.answer import answer_tokens, can_answer, can_frame, put_token, read_cells
from fwpkm.ops.backend import interprets_triton, name_backend, runs_triton, use_backend
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.weights import read_weights
from fwpkm.ops.memory_scan import memory_scan, memory_scan_
from fwpkm.testing.accuracy import assert_all_accurate
from fwpkm.testing.inputs import make_hidden, make_layer, make_scan_inputs

pytestmark = [
    pytest.mark.skipif(
        not interprets_triton(),
        reason="Triton is not installed (pip install 'fwpkm[gpu]'), or TRITON_INTERPRET is not 1",
    ),
    pytest.mark.skipif(
        np.lib.NumpyVersion(np.__version__) >= "2.4.0" and triton_version() < (3, 9),
        reason="Triton 3.6 interprets nothing with NumPy 2.4 or later: pip install 'triton>=3.9' or 'numpy<2.4'",
    ),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
]
CASES = [
    AddressCase(M=5, H=2, n=19, half=5, topk=3, step_tokens=4),
    AddressCase(S=2, M=3, n=40, half=17, topk=8, score="dot", step_tokens=3),
    AddressCase(M=6, n=7, half=9, topk=7),
    AddressCase(M=4, n=150, half=7, topk=2, step_tokens=2),  # more sub-keys than one block holds
]


@pytest.mark.parametrize("seed", [0, 1])
def test_scan_and_its_gradients_err_at_most_twice_as_much_as_the_definition(order, seed):
    for x in random_scans(seed, most=4):
        assert_all_accurate(*scan_three(x, torch.float32, "cpu"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_addressing_and_its_gradients_err_at_most_twice_as_much_as_the_definition(order, case):
    assert_all_accurate(*address_three(case, torch.float32, "cpu"))


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_in_float64_the_kernels_are_the_definition(order, case):
    fast, _, exact = address_three(case, torch.float64, "cpu")
    torch.testing.assert_close(fast, exact, rtol=1e-9, atol=1e-11)


def test_more_slots_than_one_program_holds_are_refused_by_name_and_left_to_pytorch_by_auto(
    order, monkeypatch
):
    case = AddressCase(M=3, n=40, half=3, topk=33, step_tokens=2)
    with pytest.raises(RuntimeError, match=r"kernels find at most 32 slots a head, got topk=33; use backend"):
        address_three(case, torch.float64, "cpu")
    monkeypatch.setattr(backends, "_wanted", "auto")
    monkeypatch.setattr(operation, "runs_triton", lambda x: True)  # as for a tensor on a GPU
    fast, _, exact = address_three(case, torch.float64, "cpu")
    torch.testing.assert_close(fast, exact, rtol=1e-9, atol=1e-11)
    q, keys = case.inputs(torch.float32, "cpu")
    assert torch.equal(*(address(x, keys, topk=33)[1] for x in (q.bfloat16(), q.bfloat16().float())))


@pytest.mark.parametrize("said", ["ieee", "tf32", "none"])
def test_float32_products_follow_pytorchs_newer_setting(triton, said):
    from fwpkm.ops.launch_triton import product_precision

    case, before = AddressCase(M=3, n=19, half=5, topk=3), torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = said
        _, slot, _ = address(*case.inputs(torch.float32, "cpu"), topk=3)
        assert slot.shape == (1, 3, 1, 3)
        assert product_precision() == ("tf32" if said == "tf32" else "ieee")
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


@pytest.mark.parametrize(("said", "meant"), [("highest", "ieee"), ("high", "tf32x3"), ("medium", "tf32")])
def test_float32_products_follow_pytorchs_older_setting(triton, said, meant):
    from fwpkm.ops.launch_triton import product_precision

    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(said)
        assert product_precision() == meant
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("step_tokens", [0, 3])
def test_no_streams_have_no_slots_and_no_gradients(triton, step_tokens):
    torch.use_deterministic_algorithms(False)
    q = torch.zeros(0, 4, 2, 6, requires_grad=True)
    keys = torch.zeros(0, 2, 2, 5, 3, requires_grad=True)
    score, slot, moved = address(q, keys, topk=2, step_tokens=step_tokens)
    assert (score.shape, slot.shape, moved.shape) == ((0, 4, 2, 2), (0, 4, 2, 2), (0, 2, 2, 5, 3))
    dq, dkeys = torch.autograd.grad(score.sum() + moved.sum(), (q, keys))
    assert (dq.shape, dkeys.shape) == (q.shape, keys.shape)


def test_grids_leave_room_for_more_streams_than_their_second_dimension(triton, monkeypatch):
    """CUDA's grids end at 2^31 - 1 in their first dimension, and at 65,535 in the others."""
    torch.use_deterministic_algorithms(False)
    grids = {}
    import fwpkm.ops.addressing.triton as triton_addressing

    for name in ("find_slots_kernel", "pool_kernel", "step_kernel", "towards_kernel", "slopes_kernel"):
        monkeypatch.setattr(triton_addressing, name, Launches(name, grids))
    q = torch.zeros(70_000, 1, 1, 2, requires_grad=True)
    keys = torch.zeros(70_000, 2, 1, 2, 1, requires_grad=True)
    score, _, moved = address(q, keys, topk=1, step_tokens=1)
    (score.sum() + moved.sum()).backward()
    assert len(grids) == 5
    assert all(size <= 65_535 for _, *others in grids.values() for size in others)


class Launches:
    """Notes a kernel's grid instead of launching it."""

    def __init__(self, name, grids):
        self.name, self.grids = name, grids

    def __getitem__(self, grid):
        self.grids[self.name] = grid
        return lambda *args, **how: None


@pytest.mark.parametrize("score", ["idw", "dot"])
def test_gradcheck_of_addressing_with_its_key_step(triton, score):
    torch.use_deterministic_algorithms(False)
    case = AddressCase(M=2, n=4, half=1, score=score)
    q, keys = (x.requires_grad_() for x in case.inputs(torch.float64, "cpu"))
    run = lambda q, keys: address(q, keys, topk=2, score=score, step_tokens=2)[::2]  # noqa: E731
    assert torch.autograd.gradcheck(run, (q, keys), fast_mode=True)


def test_gradcheck_of_the_scan(triton):
    torch.use_deterministic_algorithms(False)
    x = make_scan_inputs(1, reads=[2, 0, 2], writes=[1, 0, 2], num_rows=3, pairs=2, width=3).leaves()
    run = lambda table, w, write_w, target: memory_scan(  # noqa: E731 - gradcheck wants the floats alone
        table, x.rows, w, write_w, target, x.reads, x.writes
    )
    assert torch.autograd.gradcheck(run, (x.table, x.w, x.write_w, x.target), fast_mode=True)


def test_sums_in_a_fixed_order_are_the_same_bits_each_time(triton):
    x = make_scan_inputs(2, reads=[5, 4], writes=[5, 3], num_rows=2, width=5, dtype=torch.float32)
    first, second = (memory_scan(**x.__dict__) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_narrow_targets_are_read_as_they_are_and_tables_stay_wide(order):
    check_narrow_targets(make_scan_inputs(3, reads=[4, 2], writes=[3, 2]), "cpu")


@pytest.mark.parametrize("step_tokens", [0, 3])
def test_narrow_queries_address_as_the_same_numbers_in_float32_do(order, step_tokens):
    check_narrow_queries(AddressCase(M=4, n=19, half=5, topk=3, step_tokens=step_tokens), "cpu")


def test_rows_in_bfloat16_are_read_as_the_same_numbers_in_float32(triton):
    check_narrow_rows(B=2, n=5, half=3, width=7, topk=3, device="cpu")


def test_a_layer_with_tables_in_bfloat16_trains_and_streams_as_in_plain_pytorch(triton):
    results = []
    for form in ("triton", "torch"):
        with use_backend(form):
            results.append(narrow_layer_results("cpu"))
    # A row that is rounded the other way differs by a unit of bfloat16.
    torch.testing.assert_close(*results, rtol=2**-7, atol=2**-7)


def test_a_nan_query_has_nan_scores_and_slots_that_exist(triton):
    q, keys = AddressCase(M=3, n=19).inputs(torch.float32, "cpu")
    q[0, 1, 0, 0] = float("nan")
    scores, slot, _ = address(q, keys, topk=2)
    assert scores.isnan().any(-1).flatten().tolist() == [False, True, False]
    assert ((slot >= 0) & (slot < 19 * 19)).all()


def test_in_place_gives_the_same_numbers(order):
    x = make_scan_inputs(4, reads=[4, 3], writes=[4, 2])
    table = x.table.clone()
    out = memory_scan_(table, x.rows, x.w, x.write_w, x.target, x.reads, x.writes)
    torch.testing.assert_close((out, table), memory_scan(**x.__dict__))


def test_a_chosen_set_of_rows_equals_their_copy(order):
    x = make_scan_inputs(5, reads=[4, 3], writes=[4, 2])
    large, ids = torch.randn(20, 5, dtype=torch.float64), torch.randperm(20)[:7]
    large[ids] = x.table
    own = memory_scan(large, x.rows, x.w, x.write_w, x.target, x.reads, x.writes, ids)
    torch.testing.assert_close(own, memory_scan(**x.__dict__))


@pytest.mark.parametrize("row", [-1, 7])
def test_a_row_that_is_not_there_is_refused(triton, row):
    x = make_scan_inputs(6, reads=[3], writes=[2])
    x.rows[1, 0] = row
    with pytest.raises(RuntimeError, match=r"rows must be in \[0, R\) with R=7"):
        memory_scan(**x.__dict__)


@pytest.mark.parametrize(
    ("heads", "topk", "score", "weights", "based", "shared", "kept", "n", "half"),
    [
        (2, 3, "idw", "softmax", True, False, torch.float64, 5, 4),
        (1, 4, "dot", "silu", False, True, torch.float64, 5, 4),
        (3, 1, "idw", "relu", True, False, torch.float64, 5, 4),
        (2, 3, "idw", "softmax", True, False, torch.bfloat16, 5, 4),
        (2, 3, "idw", "softmax", True, False, torch.float64, 70, 100),  # several blocks of sub-keys
        (1, 2, "dot", "softmax", True, False, torch.float64, 3, 4100),  # and of their columns
    ],
)
def test_tokens_answered_by_kernels_retrieve_what_the_definition_does(
    triton, heads, topk, score, weights, based, shared, kept, n, half
):
    B, T, Dv = 2, 2, 6
    S, options = 1 if shared else B, CoreOptions(topk=topk, score=score, weights=weights)
    q, keys = torch.randn(B, T, heads, 2 * half).double(), torch.randn(S, 2, heads, n, half).double()
    base = torch.randn(n * n, Dv).to(kept) if based else None
    cells = torch.randperm(S * n * n)[:7]
    table = Overlay.fresh(base, S, n * n, torch.empty(0, Dv, dtype=torch.float64), row_dtype=kept)
    table = table.put(cells, torch.randn(7, Dv).double(), torch.ones(7, dtype=torch.bool))
    store, temperature = table.store, torch.rand(()).double() + 0.5
    out = answer_tokens(
        q, keys, key_squares(keys, score), store.base, store.index, store.rows, temperature, options
    )
    for b in range(B):
        s = 0 if shared else b
        best, slot = product_key_topk_naive(q[b], keys[s], topk, score)
        w = read_weights(best.flatten(1), weights, temperature)
        expected = torch.einsum("tj,tjd->td", w, table.dense()[s][slot.flatten(1)])
        torch.testing.assert_close(out[b], expected)
    cell, w = torch.randint(S * n * n, (3, 5)), torch.randn(3, 5).double()
    expected = torch.einsum("mj,mjd->md", w, table.dense().flatten(0, 1)[cell])
    torch.testing.assert_close(read_cells(w, cell, store.base, store.index, store.rows), expected)


def test_a_layer_trains_and_streams_as_in_plain_pytorch(triton):
    layer = make_layer(num_heads=1, topk=2)
    x = make_hidden(layer, 1, 7)
    results = []
    for backend in ("triton", "torch"):
        with use_backend(backend):
            out, state = layer(x)
            grads = torch.autograd.grad(
                out.sin().sum() + state.table.dense().cos().sum(), list(layer.parameters())
            )
            with torch.no_grad():
                first, state = layer(x[:, :6])
                last, state = layer(x[:, 6:], state)
        results.append((out, *grads, first, last, state.table.dense(), state.keys))
    torch.testing.assert_close(*results)


def test_without_a_gpu_auto_leaves_the_kernels_alone_and_single_tokens_keep_their_compiled_frame(triton):
    assert name_backend("cpu") == "triton"
    with torch.no_grad():
        assert can_answer(torch.zeros(1, 1, 4))
        assert not can_frame(torch.zeros(1, 1, 4), torch.float32)
    with use_backend("auto"):
        assert name_backend("cpu") in ("numba", "torch")


def test_the_kernels_keep_to_their_own_dtypes(triton):
    with pytest.raises(
        RuntimeError, match="backend='triton': kernels need float32, float64, bfloat16, float16"
    ):
        runs_triton(torch.zeros(1, dtype=torch.complex64))


def test_an_entropy_step_of_no_wish_leaves_finite_numbers(triton):
    case = AddressCase(M=3, n=5, topk=3, step_tokens=3)
    q, keys = torch.zeros(1, 3, 1, 4), torch.ones(1, 2, 1, 5, 2)
    assert all(bool(x.isfinite().all()) for x in address_results(case, q, keys).values())


@pytest.mark.parametrize("width", [(), (3,)])
def test_tokens_that_differ_are_counted_and_nan_differs(width):
    x = torch.ones(2, 5, *width)
    y = x.clone()
    y[0, 1], y[1, 3], y[1, 4] = 1.5, float("nan"), 1 + 1e-6
    assert share_of_tokens_that_differ(y, x, tolerance=1e-3) == pytest.approx(0.2)
    assert share_of_tokens_that_differ(x, x, tolerance=0) == 0


@torch.no_grad()
@pytest.mark.parametrize("given", [(True, True), (True, False), (False, True), (False, False)], ids=str)
def test_a_token_is_put_at_its_place_which_moves_on(triton, given):
    B, capacity, widths = 3, 5, (1030, 7)  # more than is copied at once
    q, v = (torch.randn(B, 1, width) for width in widths)
    gate, mask = (torch.rand(B, 1) if there else None for there in given)
    line, place = torch.randn(B, capacity, sum(widths) + 2), torch.tensor([0, 4, 2])
    expected, one = line.clone(), torch.ones(B, 1)
    fields = (q[:, 0], v[:, 0], *(one if x is None else x for x in (gate, mask)))
    expected[torch.arange(B), place] = torch.cat(fields, dim=1)
    assert put_token(q, v, gate, mask, line, place)
    assert torch.equal(line, expected)
    assert place.tolist() == [1, 5, 3]
    assert not put_token(q.expand(B, 2, -1), v.expand(B, 2, -1), None, None, line, place)
    assert torch.equal(line, expected)
