"""The scan on rows of a storage: what is read, where rows are afterwards, and that all others stay what they were."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.backend import use_backend
from fwpkm.ops.memory_scan import can_move, memory_scan_moving_
from fwpkm.ops.memory_scan.naive import memory_scan_naive
from fwpkm.ops.memory_scan.numba import _streams
from fwpkm.testing.inputs import make_scan_inputs

chunk = st.tuples(st.integers(0, 4), st.integers(0, 4))


@pytest.fixture(autouse=True)
def compiled():
    with use_backend("numba"):
        yield


def draw_places(table, *, based=True, size=40):
    """Put the rows of a table into a storage or a base; return both, and where each row comes from and is to go."""
    num_rows, width = table.shape
    storage = torch.randn(size, width, dtype=table.dtype)
    base = torch.randn(15, width, dtype=table.dtype) if based else None
    own, slot = torch.randperm(size)[:num_rows], torch.randperm(15)[:num_rows]
    from_base, stays = torch.rand(2, num_rows) < 0.5
    free = torch.tensor([i for i in torch.randperm(size).tolist() if i not in own.tolist()])[:num_rows]
    for row, contents in enumerate(table):
        if not from_base[row]:
            storage[own[row]] = contents
        elif base is not None:
            base[slot[row]] = contents
        else:
            contents.zero_()
    source = torch.where(from_base, slot, -1 - own)
    place = torch.where(~from_base & stays, own, free)
    return storage, place, source, base


@given(
    seed=st.integers(0, 10**6),
    chunks=st.lists(chunk, min_size=1, max_size=5),
    num_rows=st.integers(1, 12),
    pairs=st.integers(1, 9),
    based=st.booleans(),
)
def test_it_reads_and_writes_as_on_a_table_and_touches_nothing_else(seed, chunks, num_rows, pairs, based):
    reads, writes = [a + b for a, b in chunks], [b for _, b in chunks]
    x = make_scan_inputs(seed, reads=reads, writes=writes, num_rows=num_rows, pairs=pairs)
    storage, place, source, base = draw_places(x.table, based=based)
    before, base_before = storage.clone(), None if base is None else base.clone()
    aims, answers = torch.randperm(sum(writes) + 3)[: sum(writes)], torch.randperm(sum(reads))
    target = torch.randn(sum(writes) + 3, x.table.shape[1], dtype=torch.float64)
    given_ = (x.rows, x.w, x.write_w)
    expected = memory_scan_naive(x.table, *given_, target[aims], reads, writes)
    got = memory_scan_moving_(storage, place, source, base, *given_, target, reads, writes, aims, answers)
    torch.testing.assert_close(got, expected[0][answers])
    torch.testing.assert_close(storage[place], expected[1])
    others = torch.ones(len(storage), dtype=torch.bool).index_fill(0, place, False)
    assert torch.equal(storage[others], before[others])
    assert base is None or torch.equal(base, base_before)


@pytest.mark.parametrize("team", [True, False])
def test_many_tokens_are_shared_out_among_threads(team, monkeypatch):
    if not team:
        monkeypatch.setattr("fwpkm.ops.threads._has_team", lambda process: False)
    x = make_scan_inputs(0, reads=[700, 650], writes=[600, 650], num_rows=3000, pairs=8, width=64)
    storage, base, source = torch.randn(9000, 64).double(), x.table.clone(), torch.arange(3000)
    source[::3] = -1 - torch.arange(1000)
    storage[:1000] = x.table[::3]
    place = 4000 + torch.randperm(3000)
    given_ = (x.rows, x.w, x.write_w, x.target, x.reads, x.writes)
    expected = memory_scan_naive(x.table, *given_)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        got = memory_scan_moving_(storage, place, source, base, *given_)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close((got, storage[place]), expected)


@pytest.mark.parametrize("change", [{"place": 40}, {"place": -1}, {"source": 15}, {"source": -41}], ids=str)
def test_rows_that_are_not_there_are_refused(change):
    x = make_scan_inputs(0, reads=[3], writes=[2], num_rows=6)
    storage, place, source, base = draw_places(x.table)
    ((name, value),) = change.items()
    {"place": place, "source": source}[name][2] = value
    with pytest.raises(IndexError, match=f"{name} must be in"):
        memory_scan_moving_(
            storage, place, source, base, **{k: v for k, v in x.__dict__.items() if k != "table"}
        )


def test_where_it_cannot_it_says_so():
    rows, base = torch.zeros(4, 3), torch.zeros(5, 3)
    assert can_move(rows, base)
    assert can_move(rows, None)
    assert not can_move(rows, base.bfloat16())
    assert not can_move(rows.bfloat16(), base.bfloat16())
    assert not can_move(rows, torch.zeros(3, 5).T)
    with use_backend("torch"):
        assert not can_move(rows, base)


@pytest.mark.parametrize("team", [True, False])
@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 32), (torch.float64, 8), (torch.float64, 7)])
def test_rows_written_past_the_cache_hold_the_same(dtype, width, team, monkeypatch):
    if not team:
        monkeypatch.setattr("fwpkm.ops.threads._has_team", lambda process: False)
    monkeypatch.setattr("fwpkm.ops.memory_scan.numba._FEWEST_NUMBERS", 64)
    x = make_scan_inputs(3, reads=[40, 33, 9], writes=[40, 30, 9], num_rows=300, pairs=6, width=width)
    table, w, write_w, target = (t.to(dtype) for t in (x.table, x.w, x.write_w, x.target))
    given_ = (x.rows, w, write_w, target, x.reads, x.writes)
    expected = memory_scan_naive(
        x.table, x.rows, *(t.double() for t in (w, write_w, target)), x.reads, x.writes
    )
    place, results = torch.randperm(320)[:300], []
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for least in (0, 1 << 62):
            monkeypatch.setattr("fwpkm.ops.memory_scan.numba._STREAMED_BYTES", least)
            storage = torch.randn(320, width, dtype=dtype)
            assert _streams(storage, x.rows.numel()) == (least == 0 and width != 7)
            got = memory_scan_moving_(storage, place, torch.arange(300), table, *given_)
            results.append((got, storage[place]))
    finally:
        torch.set_num_threads(before)
    for own, other, wanted in zip(*results, expected, strict=True):
        torch.testing.assert_close(own.double(), wanted.double(), atol=1e-4, rtol=1e-4)
        assert torch.equal(own, other)


def test_rows_that_do_not_begin_a_line_are_not_written_past_the_cache():
    storage = torch.zeros(33, 16)
    assert _streams(storage, 1 << 30)
    assert not _streams(storage.flatten()[8:-8].view(32, 16), 1 << 30)
    assert not _streams(storage, 8)
