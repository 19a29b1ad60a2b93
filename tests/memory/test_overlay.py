"""Tables as values: whatever is written to whichever version in whatever mode, no other version changes."""

import copy
import gc
import pickle
import random
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fwpkm.memory.overlay as overlay_module
from fwpkm.memory.overlay import Overlay
from fwpkm.memory.store import RowStore
from fwpkm.ops.memory_scan import can_move
from fwpkm.ops.memory_scan.naive import memory_scan_naive
from fwpkm.ops.slots import number_cells

pytestmark = pytest.mark.usefixtures("each_backend")

S, N, DV, J = 2, 12, 3, 2
MODES = {"grad": nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def fresh(base):
    return Overlay.fresh(base, S, N, torch.empty(0, DV, dtype=torch.float64))


def draw_chunk(num_tokens, most_cells=S * N):
    """Draw what one write takes: read weights, cells, write weights, targets."""
    cells = torch.randint(most_cells, (num_tokens, J))
    return (
        torch.rand(num_tokens, J).double(),
        cells,
        torch.rand(num_tokens, J).double(),
        torch.randn(num_tokens, DV).double(),
    )


def write_dense(dense, w, cells, write_w, target):
    """Write one chunk to spelled-out tables [S, N, Dv]."""
    count = [len(cells)]
    return memory_scan_naive(dense.flatten(0, 1), cells, w, write_w, target, count, count)[1].view(
        dense.shape
    )


def write_chunk(editor, w, cells, write_w, target):
    return editor.write(w, *number_cells(cells, S * N), write_w, target)


def write_at_once(editor, w, cells, write_w, target):
    """Do the same by `write_chunks`, which leaves cells alone that tokens only read."""
    others = torch.randint(S * N, (2, J))
    ids, number = number_cells(torch.cat((cells, others)), S * N)
    written = torch.zeros(len(ids), dtype=torch.bool).index_fill(0, number[: len(cells)].flatten(), True)
    w = torch.cat((w, torch.rand(2, J).double()))
    reads = [len(cells) + 2]
    return editor.write_chunks(w, ids, number, write_w, target, reads, [len(cells)], written)


def write_in_place(table, chunks, write=write_chunk):
    with table.editing(sum(chunk[1].numel() for chunk in chunks)) as editor:
        for chunk in chunks:
            write(editor, *chunk)
    return editor.result


def put_some(table, dense):
    """Exchange some cells for new rows, as training does; some of those given are not written."""
    cells = torch.randperm(S * N)[:5]
    written, rows = torch.rand(5) > 0.3, torch.randn(5, DV).double()
    if torch.is_grad_enabled() and random.random() < 0.5:
        rows.requires_grad_()
    new = table.put(cells, rows, written)
    expected = dense.flatten(0, 1).clone()
    expected[cells[written]] = rows[written].detach()
    return new, expected.view(dense.shape)


def grow(rng, table, dense):
    """Make one further version by a random means; return it with what it must hold."""
    how = rng.choice(
        ["write", "write", "write", "large", "put", "detach", "to", "select", "pickle", "deepcopy"]
    )
    if how in ("write", "large"):
        if torch.is_grad_enabled():
            return put_some(table, dense)
        chunks = [draw_chunk(rng.choice([1, 2]) if how == "write" else 15) for _ in range(rng.choice([1, 2]))]
        new = write_in_place(table, chunks, rng.choice([write_chunk, write_at_once]))
        for chunk in chunks:
            dense = write_dense(dense, *chunk)
        return new, dense
    if how == "put":
        return put_some(table, dense)
    if how == "select":
        streams = torch.tensor([rng.randrange(S) for _ in range(S)])
        return table.select(streams), dense[streams]
    if how == "to":
        return table.to("cpu", table.store.base), dense
    if how == "pickle" and not table.store.rows.requires_grad:
        return pickle.loads(pickle.dumps(table)), dense
    if how == "deepcopy" and not table.store.rows.requires_grad:
        return copy.deepcopy(table), dense
    return table.detach(), dense


@settings(max_examples=80)
@given(seed=st.integers(0, 10**9), based=st.booleans(), steps=st.integers(1, 40), recent=st.booleans())
def test_in_a_random_tree_of_versions_each_keeps_what_it_held(seed, based, steps, recent):
    """`recent` mostly goes on from the newest version, so that long chains of undo form; else anywhere."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    random.seed(seed)
    base = torch.randn(N, DV).double() if based else None
    dense = torch.zeros(S, N, DV).double() if base is None else base.expand(S, N, DV).clone()
    versions = [(fresh(base), dense)]
    for _ in range(steps):
        parent = versions[-1] if recent and rng.random() < 0.8 else rng.choice(versions)
        with MODES[rng.choice(sorted(MODES))]():
            versions.append(grow(rng, *parent))
        if rng.random() < 0.2 and len(versions) > 2:
            versions.pop(rng.randrange(len(versions)))
            gc.collect(0)
    rng.shuffle(versions)
    for table, expected in versions:
        with MODES[rng.choice(sorted(MODES))]():
            torch.testing.assert_close(table.dense().detach(), expected.detach(), rtol=1e-9, atol=1e-11)


@given(seed=st.integers(0, 10**9), steps=st.integers(1, 15))
def test_rows_kept_for_older_versions_never_outweigh_the_storage(seed, steps):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    versions = [fresh(None)]
    with torch.no_grad():
        for _ in range(steps):
            versions.append(write_in_place(versions[-1], [draw_chunk(rng.choice([1, 2, 5]))]))
            for store in {id(v._store): v._store for v in versions if v._store is not None}.values():
                kept = sum(older.dropped.shape[0] for older in store.older)
                assert store.used - store.free.shape[0] - kept == int((store.index >= 0).sum())
                assert 2 * kept <= store.used - store.free.shape[0]


@given(
    seed=st.integers(0, 10**9), steps=st.integers(1, 60), write=st.sampled_from([write_chunk, write_at_once])
)
def test_rows_of_versions_that_nobody_keeps_are_used_again(seed, steps, write):
    torch.manual_seed(seed)
    with torch.no_grad():
        table = write_in_place(fresh(None), [draw_chunk(20)])
        for _ in range(steps):
            chunk = draw_chunk(1)
            table = write_in_place(table, [chunk], write)
            only_read = 2 * J
            assert table.store.used <= table.num_rows + 2 * chunk[1].numel() + only_read


def test_small_writes_to_the_newest_version_extend_its_storage_instead_of_copying_it():
    with torch.no_grad():
        table = write_in_place(fresh(None), [draw_chunk(20)])
        rows = table.store.rows
        newer = write_in_place(table, [draw_chunk(1, most_cells=4)])
        assert newer.store.rows.data_ptr() == rows.data_ptr()


def test_reading_an_older_version_gives_it_storage_of_its_own_once():
    with torch.no_grad():
        old = write_in_place(fresh(None), [draw_chunk(20)])
        expected = old.dense()
        newer = write_in_place(old, [draw_chunk(1)])
        first = old.store
        assert old.store is first
        assert first is not newer.store
        assert torch.equal(old.dense(), expected)


@pytest.mark.parametrize("way", ["read", "gather"])
@given(seed=st.integers(0, 10**9), based=st.booleans(), steps=st.integers(0, 3))
def test_reads_see_written_rows_and_the_base_elsewhere(way, seed, based, steps):
    torch.manual_seed(seed)
    base = torch.randn(N, DV).double() if based else None
    with torch.no_grad():
        table = fresh(base)
        for _ in range(steps):
            table = write_in_place(table, [draw_chunk(2)])
        w, cells, _, _ = draw_chunk(6)
        dense = table.dense().flatten(0, 1)
        got = (
            table.read(w, cells)
            if way == "read"
            else (w[..., None] * table.gather(cells.flatten()).view(6, J, DV)).sum(1)
        )
    torch.testing.assert_close(got, torch.einsum("mj,mjd->md", w, dense[cells]))


def test_writing_returns_what_was_read_before_the_write():
    with torch.no_grad():
        table = write_in_place(fresh(None), [draw_chunk(9)])
        chunk = draw_chunk(3)
        expected = table.read(*chunk[:2])
        with table.editing(6) as editor:
            torch.testing.assert_close(write_chunk(editor, *chunk), expected)


def test_put_is_differentiable_in_rows_and_base():
    base = torch.randn(N, DV).double().requires_grad_()
    first, second = (torch.randn(4, DV).double().requires_grad_() for _ in range(2))
    table = fresh(base).put(torch.tensor([0, 3, 15, 7]), first, torch.tensor([True, True, True, False]))
    table = table.put(torch.tensor([3, 8, 1, 20]), second, torch.tensor([True, True, False, True]))
    weight = torch.randn(S, N, DV).double()
    grads = torch.autograd.grad((table.dense() * weight).sum(), (base, first, second))
    flat, own = weight.flatten(0, 1), torch.zeros(S * N, 1).double()
    own[[0, 3, 15, 8, 20]] = 1
    expected = (
        (weight * (1 - own).view(S, N, 1)).sum(0),
        flat[[0, 3, 15, 7]] * torch.tensor([1.0, 0.0, 1.0, 0.0]).double()[:, None],
        flat[[3, 8, 1, 20]] * torch.tensor([1.0, 1.0, 0.0, 1.0]).double()[:, None],
    )
    torch.testing.assert_close(grads, expected)


@pytest.mark.parametrize("look", [torch.no_grad, torch.inference_mode])
def test_a_put_keeps_its_graph_and_its_numbers_whoever_looks_first(look):
    rows = torch.randn(3, DV).double().requires_grad_()
    cells, written = torch.tensor([1, 14, 20]), torch.ones(3, dtype=torch.bool)
    start = fresh(None)
    table, cut = (start.put(cells, rows, written) for _ in range(2))
    cut = cut.detach()
    with look():
        assert table.num_rows == cut.num_rows == 3
        changed = write_in_place(cut, [draw_chunk(4)])
        start = write_in_place(start, [draw_chunk(4)])
    (grad,) = torch.autograd.grad(table.gather(cells).sum(), rows)
    assert torch.equal(grad, torch.ones_like(rows))
    assert torch.equal(table.gather(cells), rows)
    assert torch.equal(cut.gather(cells), rows)
    assert not cut.gather(cells).requires_grad
    assert not torch.equal(changed.dense(), cut.dense())


@given(seed=st.integers(0, 10**9), steps=st.integers(0, 6))
def test_written_cells_and_bytes_are_counted_exactly_after_inference(seed, steps):
    torch.manual_seed(seed)
    cells = set()
    with torch.no_grad():
        table = fresh(None)
        for _ in range(steps):
            chunk = draw_chunk(2)
            table = write_in_place(table, [chunk])
            cells |= set(chunk[1].flatten().tolist())
    assert table.written().tolist() == sorted(cells)
    assert table.num_rows == len(cells)
    assert table.num_bytes == len(cells) * DV * 8 + S * N * 4


def test_training_for_many_calls_does_not_hold_more_rows_than_there_are_cells():
    table = fresh(None)
    for _ in range(50):
        table, _ = put_some(table, torch.zeros(S, N, DV).double())
        assert table.store.used <= S * N


@pytest.mark.parametrize("streams", [[1], [0, 0, 1], [1, 0]], ids=str)
def test_selected_streams_carry_their_own_rows_only(streams):
    with torch.no_grad():
        table = write_in_place(fresh(None), [draw_chunk(20)])
        chosen = table.select(torch.tensor(streams, dtype=torch.int64))
        assert torch.equal(chosen.dense(), table.dense()[streams])
        assert chosen.store.used == chosen.num_rows


class Stop(BaseException):
    """Like KeyboardInterrupt: no Exception, and still nothing may break."""


def raising_at(fn, count):
    """Wrap `fn` to raise at its `count`-th call from now."""
    calls = iter(range(1, 1000))

    def wrapped(*args, **kwargs):
        if next(calls) == count:
            raise Stop
        return fn(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize("write", [write_chunk, write_at_once])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["scan", "claim", "locate", "allocate", "settle", "_reserve"])
def test_a_write_that_breaks_off_anywhere_leaves_all_versions_as_they_were(name, count, write, monkeypatch):
    base = torch.randn(N, DV).double()
    with torch.no_grad():
        older = write_in_place(fresh(base), [draw_chunk(8, most_cells=14)])
        table = write_in_place(older, [draw_chunk(1)])
        before = older.dense(), table.dense()  # rebuilds `older`
        where, name = (RowStore, name) if name != "scan" else (overlay_module, scan_of(write, base))
        chunks = [draw_chunk(1) for _ in range(4)]
        broke_off = False
        with monkeypatch.context() as patch:
            patch.setattr(where, name, raising_at(getattr(where, name), count))
            try:
                with table.editing(1) as editor:
                    for chunk in chunks:
                        write(editor, *chunk)
            except Stop:
                broke_off = True
        assert broke_off
        assert torch.equal(older.dense(), before[0])
        assert torch.equal(table.dense(), before[1])
        after, expected = write_in_place(table, chunks), before[1]
        for chunk in chunks:
            expected = write_dense(expected, *chunk)
        torch.testing.assert_close(after.dense(), expected)
        assert torch.equal(table.dense(), before[1])


def scan_of(write, base):
    return "memory_scan_moving_" if write is write_at_once and can_move(base, base) else "memory_scan_"


def test_an_edit_that_breaks_off_at_its_very_end_is_taken_back(monkeypatch):
    with torch.no_grad():
        table = write_in_place(fresh(None), [draw_chunk(20)])
        before = table.dense()
        with monkeypatch.context() as patch:
            patch.setattr(overlay_module, "Older", raising_at(overlay_module.Older, 1))
            with pytest.raises(Stop):
                write_in_place(table, [draw_chunk(1)])
        assert torch.equal(table.dense(), before)
        newer = write_in_place(table, [draw_chunk(1)])
        assert torch.equal(table.dense(), before)
        assert not torch.equal(newer.dense(), before)


def test_rows_that_a_long_call_moved_are_given_back_by_the_next():
    with torch.no_grad():
        table = write_in_place(fresh(None), [draw_chunk(200)])
        table = write_in_place(table, [draw_chunk(10) for _ in range(40)])
        table = write_in_place(table, [draw_chunk(1)])
        expected = table.dense()
        table = write_in_place(table, [chunk := draw_chunk(1)])
        torch.testing.assert_close(table.dense(), write_dense(expected, *chunk))
        assert table.store.rows.shape[0] <= 1.5 * S * N
        assert table.store.used <= 1.25 * S * N


def test_rows_of_older_versions_go_into_no_batch_and_no_training():
    with torch.no_grad():
        older = write_in_place(fresh(None), [draw_chunk(20)])
        table = write_in_place(older, [draw_chunk(3)])
        assert table.store.used > table.num_rows
        assert Overlay.join([table, table]).store.used == 2 * table.num_rows
        put, dense = put_some(table, table.dense())
        torch.testing.assert_close(put.dense(), dense)
        changed = write_in_place(put, [chunk := draw_chunk(1)])
        torch.testing.assert_close(changed.dense(), write_dense(dense, *chunk))
        assert set(changed.store.free.tolist()).isdisjoint(changed.store.index.flatten().tolist())


def test_nan_in_one_stream_reaches_no_other():
    """Cells without a row of their own must not look at anybody's row, were it with weight zero."""
    with torch.no_grad():
        table = fresh(torch.randn(N, DV).double())
        w, cells, write_w, target = draw_chunk(4, most_cells=N)
        table = write_in_place(table, [(w, cells, write_w, target * float("nan"))])
        other = N + torch.randint(N, (5, J))
        assert table.read(torch.rand(5, J).double(), other).isfinite().all()
        assert table.dense()[1].isfinite().all()


def test_a_pickled_version_takes_neither_newer_versions_nor_their_rows_along():
    with torch.no_grad():
        old = write_in_place(fresh(None), [draw_chunk(12)])
        expected, size = old.dense(), len(pickle.dumps(old))
        newest = old
        for _ in range(5):
            newest = write_in_place(newest, [draw_chunk(1)])
        assert torch.equal(pickle.loads(pickle.dumps(old)).dense(), expected)
        assert len(pickle.dumps(old)) <= size
        assert torch.equal(pickle.loads(pickle.dumps(newest)).dense(), newest.dense())
