"""The fast memory scan against its definition: what is read, the table after, and every gradient."""

import inspect
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.memory_scan import memory_scan, memory_scan_
from fwpkm.ops.memory_scan.naive import memory_scan_naive
from fwpkm.testing.accuracy import assert_all_accurate
from fwpkm.testing.inputs import make_scan_inputs
from fwpkm.testing.op_calls import check_op_calls, record_op_calls

pytestmark = pytest.mark.usefixtures("each_backend")

FLOATS = ("table", "w", "write_w", "target")
chunk = st.tuples(st.integers(0, 4), st.integers(0, 4))


def with_gradients(scan, x):
    """Return v^, the final table, and the gradients of a loss of both."""
    x = x.leaves()
    out, table = scan(x.table, x.rows, x.w, x.write_w, x.target, x.reads, x.writes)
    loss = out.sin().sum() + table.cos().sum()
    grads = torch.autograd.grad(loss, [getattr(x, name) for name in FLOATS])
    named = {f"d {name}": g for name, g in zip(FLOATS, grads, strict=True)}
    return {"v_hat": out.detach(), "table": table.detach(), **named}


@given(
    seed=st.integers(0, 10**6),
    chunks=st.lists(chunk, min_size=1, max_size=5),
    num_rows=st.integers(1, 9),
    pairs=st.integers(1, 4),
    width=st.sampled_from([1, 3, 8]),
)
def test_reads_table_and_gradients_equal_the_definition(seed, chunks, num_rows, pairs, width):
    reads, writes = [a + b for a, b in chunks], [b for _, b in chunks]
    x = make_scan_inputs(seed, reads=reads, writes=writes, num_rows=num_rows, pairs=pairs, width=width)
    fast, slow = with_gradients(memory_scan, x), with_gradients(memory_scan_naive, x)
    for name, value in slow.items():
        torch.testing.assert_close(fast[name], value, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@given(seed=st.integers(0, 10**6), chunks=st.lists(chunk, min_size=1, max_size=5), num_rows=st.integers(1, 9))
def test_in_place_gives_the_same_numbers(seed, chunks, num_rows):
    x = make_scan_inputs(
        seed, reads=[a + b for a, b in chunks], writes=[b for _, b in chunks], num_rows=num_rows
    )
    table = x.table.clone()
    out = memory_scan_(table, x.rows, x.w, x.write_w, x.target, x.reads, x.writes)
    expected = memory_scan_naive(x.table, x.rows, x.w, x.write_w, x.target, x.reads, x.writes)
    torch.testing.assert_close((out, table), expected)


@pytest.mark.parametrize("width", [3, 64])
@pytest.mark.parametrize("num_rows", [1, 6, 200])
def test_float32_errs_at_most_twice_as_much_as_the_definition_in_float32(num_rows, width):
    """One row is the hot slot: every pair of the chunk adds to it. Two hundred are mostly written once."""
    x = make_scan_inputs(3, reads=[17, 20, 16, 9], writes=[16, 20, 16, 0], num_rows=num_rows, width=width)
    share = x.write_w / torch.bincount(x.rows.flatten(), minlength=num_rows).amax()  # the step stays stable
    x = type(x)(**{**x.__dict__, "write_w": share})
    oracle, plain = (
        with_gradients(memory_scan_naive, x),
        with_gradients(memory_scan_naive, x.to(torch.float32)),
    )
    assert_all_accurate(with_gradients(memory_scan, x.to(torch.float32)), plain, oracle)


@pytest.mark.parametrize("num_rows", [1, 5])
def test_gradcheck(num_rows):
    x = make_scan_inputs(
        1, reads=[3, 0, 2, 2], writes=[2, 0, 2, 1], num_rows=num_rows, pairs=2, width=3
    ).leaves()
    run = lambda table, w, write_w, target: memory_scan(  # noqa: E731 - gradcheck wants the floats alone
        table, x.rows, w, write_w, target, x.reads, x.writes
    )
    assert torch.autograd.gradcheck(run, (x.table, x.w, x.write_w, x.target))


@pytest.mark.parametrize("wanted", ["v_hat", "table"])
@pytest.mark.parametrize("only", FLOATS)
def test_gradients_of_one_input_and_one_result_alone_are_the_same(only, wanted):
    x = make_scan_inputs(2, reads=[4, 5], writes=[4, 3])
    grads = []
    for scan in (memory_scan, memory_scan_naive):
        args = dict(x.__dict__, **{only: getattr(x, only).clone().requires_grad_()})
        out = scan(**args)[0 if wanted == "v_hat" else 1]
        grads.append(torch.autograd.grad(out.sin().sum(), args[only], allow_unused=True)[0])
    fast, slow = grads
    torch.testing.assert_close(fast, torch.zeros_like(fast) if slow is None else slow)


def test_the_given_tensors_are_left_alone_and_share_nothing_with_the_results():
    x = make_scan_inputs(4, reads=[4, 5], writes=[4, 3])
    copy = x.map(torch.clone)
    out, table = memory_scan(**x.__dict__)
    out.zero_()
    table.zero_()
    assert all(torch.equal(getattr(x, name), getattr(copy, name)) for name in (*FLOATS, "rows"))


@given(seed=st.integers(0, 10**6), num_rows=st.integers(3, 9))
def test_a_chosen_set_of_rows_equals_their_copy(seed, num_rows):
    x = make_scan_inputs(seed, reads=[4, 3], writes=[4, 2], num_rows=num_rows)
    large = torch.randn(20, 5, dtype=torch.float64)
    ids = torch.randperm(20)[:num_rows]
    large[ids] = x.table
    results = []
    for table, chosen in ((x.table, None), (large, ids)):
        y = x.leaves()
        out, after = memory_scan(table, y.rows, y.w, y.write_w, y.target, y.reads, y.writes, chosen)
        grads = torch.autograd.grad(out.sin().sum() + after.cos().sum(), (y.w, y.write_w, y.target))
        results.append((out, after, *grads))
    torch.testing.assert_close(*results)


@given(seed=st.integers(0, 10**6), chosen_rows=st.booleans(), asked=st.integers(0, 9))
def test_aims_and_answers_equal_choosing_before_and_after(seed, chosen_rows, asked):
    x = make_scan_inputs(seed, reads=[4, 0, 5], writes=[3, 0, 2], num_rows=6)
    ids = torch.randperm(6) if chosen_rows else None
    aims, answers = torch.randperm(8)[:5], torch.randperm(9)[:asked]
    values = torch.randn(8, 5, dtype=torch.float64)
    floats = [y.clone().requires_grad_() for y in (x.w, x.write_w, values)]
    results = []
    for inside in (True, False):
        w, write_w, target = floats
        if inside:
            how = {"aims": aims, "answers": answers}
            out, after = memory_scan(x.table, x.rows, w, write_w, target, x.reads, x.writes, ids, **how)
        else:
            out, after = memory_scan(x.table, x.rows, w, write_w, target[aims], x.reads, x.writes, ids)
            out = out[answers]
        grads = torch.autograd.grad(out.sin().sum() + after.cos().sum(), floats)
        results.append((out, after, *grads))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("team", [True, False])
def test_threads_change_nothing_but_roundings(team, monkeypatch):
    if not team:
        monkeypatch.setattr("fwpkm.ops.threads._has_team", lambda process: False)
    x = make_scan_inputs(0, reads=[400, 0, 350], writes=[300, 0, 350], num_rows=2000, pairs=8, width=64)
    expected, threads = with_gradients(memory_scan_naive, x), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        got = with_gradients(memory_scan, x)
    finally:
        torch.set_num_threads(threads)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("places", [{"aims": [0, 5]}, {"answers": [3]}, {"aims": [-1, 0]}])
def test_places_that_are_not_there_are_refused(places):
    x = make_scan_inputs(0, reads=[3], writes=[2])
    with pytest.raises((IndexError, RuntimeError), match=r"range|must be in"):
        memory_scan(**x.__dict__, **{name: torch.tensor(value) for name, value in places.items()})


def test_no_tokens_leave_the_table_as_it_was():
    x = make_scan_inputs(5, reads=[0], writes=[0])
    out, table = memory_scan(**x.__dict__)
    assert out.shape == (0, 5)
    assert torch.equal(table, x.table)


def test_strong_writes_can_be_undone_in_the_backward():
    """Each write replaces its rows, so that the old contents survive in the saved errors only."""
    x = make_scan_inputs(6, reads=[5] * 40, writes=[5] * 40, num_rows=4, pairs=1)
    count = torch.cat([torch.bincount(r.flatten(), minlength=4)[r] for r in x.rows.split(5)])
    x = type(x)(**{**x.__dict__, "write_w": 1.0 / count.double()})
    oracle, plain = (
        with_gradients(memory_scan_naive, x),
        with_gradients(memory_scan_naive, x.to(torch.float32)),
    )
    assert_all_accurate(with_gradients(memory_scan, x.to(torch.float32)), plain, oracle)


def test_the_operators_keep_the_rules_of_torch_library():
    x = make_scan_inputs(7, reads=[4, 3, 2], writes=[3, 3, 0])
    calls = record_op_calls(lambda: with_gradients(memory_scan, x))
    assert {"fwpkm::memory_scan", "fwpkm::memory_scan_backward"} <= check_op_calls(calls)


def test_second_derivatives_are_refused_instead_of_wrong():
    x = make_scan_inputs(8, reads=[3], writes=[3]).leaves()
    out, _ = memory_scan(**x.__dict__)
    (grad,) = torch.autograd.grad(out.square().sum(), x.w, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.sum(), x.w)


@pytest.mark.parametrize("scan", [memory_scan, memory_scan_])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reads": (3,)}, "reads must add up to the tokens of rows and w, got sum(reads)=3"),
        ({"writes": (1,)}, "writes must add up to the tokens of write_w and target, got sum(writes)=1"),
        (
            {"reads": (2, 2)},
            "each chunk writes for some of its reading tokens, got reads=(2, 2), writes=(3,)",
        ),
        ({"target": torch.zeros(3, 4).double()}, "table and target must be equally wide, got 5 and 4"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(scan, change, message):
    x = make_scan_inputs(9, reads=[4], writes=[3])
    with pytest.raises(ValueError, match=r"memory_scan: .*" + re.escape(message)):
        inspect.unwrap(scan)(**{**x.__dict__, **change})  # shape checks would speak first


def test_all_problems_are_reported_at_once():
    x = make_scan_inputs(10, reads=[4], writes=[3])
    with pytest.raises(ValueError, match=r"reads must add up.*; .*writes must add up.*; .*equally wide"):
        inspect.unwrap(memory_scan)(
            **{**x.__dict__, "reads": (5,), "writes": (4,), "target": torch.zeros(3, 4).double()}
        )


@pytest.mark.parametrize("row", [-7, 6])
def test_a_row_that_is_not_there_is_refused(row):
    x = make_scan_inputs(0, reads=[3], writes=[2], num_rows=6)
    x.rows[1, 0] = row
    with pytest.raises((IndexError, RuntimeError), match=r"rows must be in \[0, R\)|idx"):
        memory_scan(**x.__dict__)
