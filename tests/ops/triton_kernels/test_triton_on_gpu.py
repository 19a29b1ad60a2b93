"""The Triton kernels on a GPU, against the definition over random shapes; `conftest.py` poisons what nobody wrote."""

import gc
import warnings

import pytest
import torch
from narrow_cases import check_narrow_queries, check_narrow_rows, check_narrow_targets, narrow_layer_results
from triton_cases import (
    AddressCase,
    address_results,
    address_three,
    all_finite,
    random_scans,
    scan_results,
    scan_three,
    share_of_tokens_that_differ,
    stable,
)

from fwpkm.bench.core_step import core_inputs
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.ops.addressing import address
from fwpkm.ops.addressing.naive import slot_scores_naive
from fwpkm.ops.answer import answer_tokens, read_cells
from fwpkm.ops.backend import interprets_triton, name_backend, use_backend, why_no_triton
from fwpkm.ops.memory_scan import memory_scan, memory_scan_
from fwpkm.testing.accuracy import assert_all_accurate
from fwpkm.testing.inputs import make_hidden, make_layer, make_scan_inputs

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(why_no_triton() is not None, reason=str(why_no_triton())),
    pytest.mark.skipif(interprets_triton(), reason="interpreted: run benchmarks/gpu_session.sh tests"),
    pytest.mark.usefixtures("order"),
]


@pytest.mark.parametrize("seed", range(8))
def test_scan_over_random_shapes(order, seed):
    for x in random_scans(seed, most=67):
        # Hundreds of addends one by one into the only row round more often than a sum for each chunk.
        hot = order == "any order" and x.table.shape[0] == 1
        assert_all_accurate(*scan_three(x, torch.float32, "cuda"), factor=4.0 if hot else 2.0)


@pytest.mark.parametrize("width", [1, 511, 513, 2050])
@pytest.mark.parametrize("pairs", [1, 8, 33])
def test_scan_of_odd_widths_and_many_pairs(width, pairs):
    sizes = {"num_rows": 90, "pairs": pairs, "width": width}
    x = stable(make_scan_inputs(width, reads=[40, 41], writes=[40, 37], **sizes))
    assert_all_accurate(*scan_three(x, torch.float32, "cuda"))


@pytest.mark.parametrize("num_rows", [1, 8])
def test_all_tokens_on_the_same_rows(num_rows):
    x = stable(make_scan_inputs(9, reads=[513] * 3, writes=[512] * 3, num_rows=num_rows, pairs=8, width=64))
    assert_all_accurate(
        *scan_three(x, torch.float32, "cuda"), factor=4.0
    )  # 4,096 addends to a row, in any order


@pytest.mark.parametrize("score", ["idw", "dot"])
@pytest.mark.parametrize(
    "sizes",
    [
        {"S": 3, "M": 65, "H": 2, "n": 33, "half": 17, "topk": 5},
        {"S": 1, "M": 1, "n": 1, "half": 16, "topk": 1},
        {"S": 2, "M": 130, "n": 512, "half": 256, "topk": 8},
        {"S": 1, "M": 70, "H": 4, "n": 200, "half": 64, "topk": 32},
        {"S": 5, "M": 33, "n": 1000, "half": 40, "topk": 7},
    ],
    ids=str,
)
def test_addressing_over_odd_shapes(sizes, score):
    case = AddressCase(**sizes, score=score, step_tokens=max(1, sizes["M"] - 1), seed=sizes["n"])
    assert_all_accurate(*address_three(case, torch.float32, "cuda"))


@pytest.mark.parametrize("score", ["idw", "dot"])
def test_slots_are_no_worse_than_the_kth_best(score):
    q, keys = AddressCase(M=300, H=2, n=97, half=32).inputs(torch.float32, "cuda")
    _, slot, _ = address(q, keys, topk=8, score=score)
    exact = slot_scores_naive(q[0].double(), keys[0].double(), score)
    slack = 8 * torch.finfo(torch.float32).eps * exact.abs().amax()
    assert (exact.gather(-1, slot[0]) >= exact.topk(8, dim=-1).values[..., -1:] - slack).all()
    assert all(len(set(row)) == 8 for row in slot[0].flatten(0, 1).tolist()), "a slot came twice"


def test_gradcheck_of_the_scan():
    x = (
        make_scan_inputs(1, reads=[3, 0, 4], writes=[2, 0, 4], num_rows=5, pairs=3, width=5)
        .to("cuda")
        .leaves()
    )
    run = lambda table, w, write_w, target: memory_scan(  # noqa: E731 - gradcheck wants the floats alone
        table, x.rows, w, write_w, target, x.reads, x.writes
    )
    inputs = (x.table, x.w, x.write_w, x.target)
    assert torch.autograd.gradcheck(run, inputs, nondet_tol=1e-12)


@pytest.mark.parametrize("score", ["idw", "dot"])
def test_gradcheck_of_addressing_with_its_key_step(score):
    q, keys = AddressCase(S=2, M=4, H=2, n=5, half=3).inputs(torch.float64, "cuda")
    run = lambda q, keys: address(q, keys, topk=2, score=score, step_tokens=3)[::2]  # noqa: E731
    assert torch.autograd.gradcheck(run, (q.requires_grad_(), keys.requires_grad_()), nondet_tol=1e-12)


def test_nothing_reads_what_nobody_wrote():
    """Sizes at which every block ends early, on memory that was full of NaN when it was freed."""
    sizes = (100, 3_000, 60_000, 250_000, 4 << 20, 32 << 20)
    poison = [torch.full((size,), float("nan"), device="cuda") for size in sizes for _ in range(9)]
    poison.clear()
    for x in random_scans(11, most=33):
        assert all_finite(scan_results(memory_scan, x.to("cuda").to(torch.float32)))
    case = AddressCase(S=2, M=35, H=3, n=37, half=19, topk=3, step_tokens=31)
    assert all_finite(address_results(case, *case.inputs(torch.float32, "cuda")))


def test_races_would_show_as_runs_that_differ_by_more_than_rounding(order):
    """Twenty runs of a scan in which every chunk reads and writes the rows of the one before."""
    x = stable(make_scan_inputs(12, reads=[257] * 6, writes=[256] * 6, num_rows=300, pairs=8, width=129))
    x = x.to("cuda").to(torch.float32)
    first = scan_results(memory_scan, x)
    for _ in range(20):
        again = scan_results(memory_scan, x)
        for name, value in first.items():
            if order == "fixed order":
                assert torch.equal(again[name], value), name
            else:
                assert float((again[name] - value).norm()) <= 1e-4 * float(value.norm()), name


def test_an_untouched_overlay_and_a_written_one_answer_as_in_plain_pytorch():
    layer = make_layer(num_subkeys=24, dtype=torch.float32).to("cuda")
    x = make_hidden(layer, 3, 40).to("cuda")
    results = []
    for backend in ("triton", "torch"):
        with use_backend(backend), torch.no_grad():
            fresh, state = layer(x[:, :1])
            y, state = layer(x[:, 1:37], state)
            parts = [fresh, y]
            for t in range(37, 40):
                one, state = layer(x[:, t : t + 1], state)
                parts.append(one)
        results.append((torch.cat(parts, dim=1), state.table.dense()))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_a_layer_at_the_papers_size_trains_as_in_plain_pytorch():
    torch.manual_seed(0)
    config = FwPKMConfig(dim=64)
    layer = FwPKM(config).to("cuda")
    inputs = tuple(x.detach().cuda().requires_grad_() for x in core_inputs(config, 2, 1100))
    results = []
    for backend in ("triton", "torch"):
        with use_backend(backend):
            out, _ = layer.initial_state(2).advance(*inputs)
            results.append((out, *torch.autograd.grad(out.square().mean(), inputs)))
    for a, b in zip(*results, strict=True):
        # The best of 262,144 slots lie so close together that some tokens' eighth one is a matter of rounding.
        assert share_of_tokens_that_differ(a, b, tolerance=1e-3) <= 0.02


@pytest.mark.parametrize("step_tokens", [0, 60])
def test_narrow_queries_address_as_the_same_numbers_in_float32_do(step_tokens):
    check_narrow_queries(AddressCase(S=2, M=65, H=2, n=33, half=17, topk=5, step_tokens=step_tokens), "cuda")
    check_narrow_queries(AddressCase(M=70, n=512, half=256, topk=8, step_tokens=step_tokens), "cuda")


@pytest.mark.parametrize("width", [65, 512])
def test_narrow_targets_are_read_as_they_are_and_tables_stay_wide(width):
    sizes = {"num_rows": 90, "pairs": 8, "width": width}
    check_narrow_targets(stable(make_scan_inputs(3, reads=[65, 64], writes=[64, 60], **sizes)), "cuda")


@pytest.mark.parametrize(("n", "half", "width", "topk"), [(5, 3, 7, 3), (512, 256, 512, 8)])
def test_rows_in_bfloat16_are_read_as_the_same_numbers_in_float32(n, half, width, topk):
    check_narrow_rows(B=3, n=n, half=half, width=width, topk=topk, device="cuda")


def test_a_layer_with_tables_in_bfloat16_trains_and_streams_as_in_plain_pytorch():
    results = []
    for form in ("triton", "torch"):
        with use_backend(form):
            results.append(narrow_layer_results("cuda"))
    # A row that is rounded the other way differs by a unit of bfloat16.
    torch.testing.assert_close(*results, rtol=2**-7, atol=2**-7)


def needs(gigabytes):
    """Skip where the device has no such room, what earlier tests left in the cache not counted."""
    gc.collect()
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < gigabytes << 30:
        pytest.skip(f"needs {gigabytes} GiB of a GPU's memory")


def test_a_table_beyond_2_to_the_31_numbers_is_written_in_place(order):
    needs(10)
    rows = (1 << 31) // 512 + 5
    table = torch.zeros(rows, 512, device="cuda")
    table[-1], ids = 1.0, torch.full((1, 2), rows - 1, device="cuda")
    half = torch.full((1, 2), 0.5, device="cuda")
    out = memory_scan_(table, ids, half, half, torch.zeros(1, 512, device="cuda"), [1], [1])
    assert torch.equal(out, torch.ones(1, 512, device="cuda"))
    assert torch.equal(table[-1], torch.zeros(512, device="cuda"))


def test_a_table_beyond_2_to_the_31_numbers_has_the_gradients_of_a_small_one(order):
    """The last rows of a large table against a table of nothing else."""
    needs(45)  # the table, the new one, and in the backward two of that size
    x = stable(make_scan_inputs(8, reads=[9, 8], writes=[8, 8], num_rows=5, pairs=3, width=512))
    x, first = x.to("cuda").to(torch.float32), (1 << 31) // 512
    expected = scan_results(memory_scan, x)
    large = torch.zeros(first + 5, 512, device="cuda")
    large[first:] = x.table
    leaves = [t.detach().requires_grad_() for t in (large, x.w, x.write_w, x.target)]
    table, w, write_w, target = leaves
    out, new = memory_scan(table, x.rows + first, w, write_w, target, x.reads, x.writes)
    loss = out.sin().sum() + new[first:].cos().sum()
    grads = torch.autograd.grad(loss, leaves)
    got = {"v_hat": out, "table": new[first:], "d table": grads[0][first:]}
    got.update(zip(("d w", "d write_w", "d target"), grads[1:], strict=True))
    torch.testing.assert_close({name: t.detach() for name, t in got.items()}, expected, rtol=1e-4, atol=1e-5)
    assert not bool(grads[0][:first].any())


def test_sub_keys_beyond_2_to_the_31_numbers_step_and_have_gradients_as_a_few_do():
    needs(50)
    torch.use_deterministic_algorithms(False)
    streams = (1 << 31) // (2 * 1024 * 1024) + 2
    draw = torch.Generator().manual_seed(5)
    one_q, one_keys = (
        torch.randn(1, 2, 1, 2048, generator=draw),
        torch.randn(1, 2, 1, 1024, 1024, generator=draw),
    )
    results = []
    for S in (1, streams):
        q = one_q.cuda().repeat(S, 1, 1, 1).requires_grad_()
        keys = one_keys.cuda().expand(S, -1, -1, -1, -1)
        score, slot, moved = address(q, keys, topk=4, step_tokens=2)
        (dq,) = torch.autograd.grad(score.sin().sum() + moved[-1].sin().sum(), q)
        results.append((score[-1].detach(), slot[-1], moved[-1].detach().clone(), dq[-1]))
        del score, slot, moved, dq
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_reads_beyond_2_to_the_31_numbers():
    needs(10)
    rows, index = (1 << 31) // 512 + 5, torch.full((1, (1 << 31) // 512 + 5), -1, dtype=torch.int32)
    table, cells = torch.zeros(rows, 512, device="cuda"), torch.full((1, 2), rows - 1, device="cuda")
    table[-1] = 1.0
    half, index = torch.full((1, 2), 0.5, device="cuda"), index.cuda()
    assert torch.equal(read_cells(half, cells, table, index, table[:0]), torch.ones(1, 512, device="cuda"))
    index[:] = rows - 1
    assert torch.equal(read_cells(half, cells, None, index, table), torch.ones(1, 512, device="cuda"))


def test_more_streams_than_a_grids_second_dimension_holds():
    case = AddressCase(S=33_000, M=2, n=4, half=1, topk=2, step_tokens=2)
    torch.manual_seed(0)
    q, keys = torch.randn(33_000, 2, 1, 2, device="cuda"), torch.randn(33_000, 2, 1, 4, 1, device="cuda")
    results = []
    for form in ("triton", "torch"):
        with use_backend(form):
            results.append(address_results(case, q, keys))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)


def test_a_training_step_waits_once_for_the_device():
    torch.use_deterministic_algorithms(False)
    layer = make_layer(num_subkeys=24, dtype=torch.float32).to("cuda")
    x = make_hidden(layer, 2, 37)
    layer(x)[0].sum().backward()  # what is kept from call to call is made
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")  # says itself that it is a prototype
            layer(x)[0].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in said if "called a synchronizing" in str(warning.message)]
    assert len(waits) == 1, waits


@torch.no_grad()
def test_a_token_is_answered_under_a_cuda_graph():
    layer = make_layer(num_subkeys=24, dtype=torch.float32).to("cuda")
    _, state = layer(make_hidden(layer, 2, 30).to("cuda"))
    q = torch.randn(2, 1, 2, 6, device="cuda")
    store = state.table.store
    args = (
        state.keys,
        state.key_squares,
        store.base,
        store.index,
        store.rows,
        state.temperature,
        state.options,
    )
    expected = answer_tokens(q, *args)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = answer_tokens(q, *args)
    out.zero_()
    graph.replay()
    torch.testing.assert_close(out, expected)


def test_auto_takes_the_kernels():
    with use_backend("auto"):
        assert name_backend("cuda") == "triton"
