"""Spans of items on several threads."""

import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import types

from fwpkm.ops.fork import works
from fwpkm.ops.jit import jit
from fwpkm.ops.spans import cut_range
from fwpkm.ops.threads import drive, run_range, run_spans, side_by_side, split_range


@given(num_items=st.integers(0, 50), threads=st.integers(1, 5), smallest=st.integers(1, 9))
def test_spans_cover_every_item_once_and_are_of_a_size(num_items, threads, smallest):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        spans = split_range(num_items, smallest=smallest)
    finally:
        torch.set_num_threads(before)
    assert [i for first, last in spans for i in range(first, last)] == list(range(num_items))
    assert 1 <= len(spans) <= threads
    sizes = [last - first for first, last in spans]
    assert max(sizes) - min(sizes) <= 1
    assert len(spans) == 1 or min(sizes) >= smallest
    assert cut_range(num_items, threads, smallest).tolist() == [list(span) for span in spans]


thread_number = types.ExternalFunction("fwpkm_thread", types.int32())
"""Of a team's thread, as compiled loops may ask."""


@jit
def number(first, last, part, scale, out, log):
    for i in range(first, last):
        out[i] += scale * (part + 1)
    room = np.empty(4, dtype=out.dtype)  # a loop may ask for memory
    room[:] = part
    log[part, 0] = room.sum()


@jit
def divide(first, last, part, out):
    if part == 1:
        raise ZeroDivisionError("second")
    out[first:last] = 1


def number_twice(out, log, threads):
    spans = cut_range(out.shape[0], threads, 1)
    failed = side_by_side(number, spans, (1.0, out, log))
    half = out[: out.shape[0] // 2]
    return failed | side_by_side(number, cut_range(half.shape[0], threads, 1), (10.0, half, log))


def divide_then_number(out, log, threads):
    failed = side_by_side(divide, cut_range(2, 2, 1), (out,))
    return failed | side_by_side(number, cut_range(2, 2, 1), (1.0, out, log))


@pytest.fixture
def team():
    if not works():
        pytest.skip("torch brings no OpenMP of GNU's here")


@pytest.fixture(params=["team", "pool"])
def threads(request, monkeypatch):
    if request.param == "pool":
        monkeypatch.setattr("fwpkm.ops.threads._has_team", lambda process: False)
    else:
        request.getfixturevalue("team")


@pytest.mark.parametrize("spans", [[(0, 6)], [(0, 2), (2, 4), (4, 6)], [(0, 0), (0, 6)], []])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_span_is_done_once_and_writes_into_the_tensors(threads, spans, dtype):
    out, log = torch.zeros(6, dtype=dtype), np.zeros((4, 3))[:, ::2]
    run_spans(number, spans, 0.5, out, log)
    wanted = torch.zeros(6, dtype=dtype)
    for part, (first, last) in enumerate(spans):
        wanted[first:last] += 0.5 * (part + 1)
    assert torch.equal(out, wanted)
    assert log[:, 0].tolist() == [4.0 * part if part < len(spans) else 0.0 for part in range(4)]


@jit
def add_up(first, last, part, rows, out):
    for i in range(first, last):
        for x in rows[i]:
            out[i] += x


def add_all_up(rows, out):
    return side_by_side(add_up, cut_range(rows.shape[0], 2, 1), (rows, out))


def test_a_loop_adds_up_in_one_order_whoever_calls_it(team):
    """Made part of what enters a team, it would be optimised once more, and may add up in another."""
    rows, seen = torch.randn(50, 999), []
    for spans in ([(0, 50)], [(0, 20), (20, 50)]):
        run_spans(add_up, spans, rows, out := torch.zeros(50))
        seen.append(out)
    drive(add_all_up, rows, out := torch.zeros(50))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], out)


def test_a_loop_that_no_name_leads_to_is_an_error(team, caplog):
    @jit
    def inner(first, last, part, out):
        out[first:last] = 1

    with pytest.raises(RuntimeError, match=r"^a compiled loop raised an error on one of its threads$"):
        run_spans(inner, [(0, 1), (1, 2)], torch.zeros(2))
    assert "test_a_loop_that_no_name_leads_to_is_an_error.<locals>.inner has no code" in caplog.text


@pytest.mark.parametrize("num_items", [0, 1, 5, 6, 17])
@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_a_range_is_cut_only_where_that_is_worth_it(threads, num_items, num_threads):
    out, log, before = torch.zeros(num_items), np.zeros((4, 1)), torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        run_range(number, num_items, 1.0, out, log, smallest=3)
    finally:
        torch.set_num_threads(before)
    parts = out.unique_consecutive().tolist()
    assert parts == [float(part + 1) for part in range(min(num_threads, num_items // 3) or min(1, num_items))]


def test_more_spans_than_threads_are_all_done(threads):
    out, log = torch.zeros(100), np.zeros((50, 1))
    run_spans(number, [(2 * i, 2 * i + 2) for i in range(50)], 1.0, out, log)
    assert out.tolist() == [float(i // 2 + 1) for i in range(100)]


def test_spans_of_a_pool_run_side_by_side(monkeypatch):
    monkeypatch.setattr("fwpkm.ops.threads._has_team", lambda process: False)
    monkeypatch.setattr("fwpkm.ops.threads._pool", lambda process: ThreadPoolExecutor(max_workers=3))
    out, meeting = torch.zeros(6), threading.Barrier(3, timeout=30)

    def kernel(first, last, part, out):
        assert isinstance(out, np.ndarray)
        meeting.wait()
        out[first:last] = part + 1

    run_spans(kernel, [(0, 2), (2, 4), (4, 6)], out)
    assert out.tolist() == [1, 1, 2, 2, 3, 3]


@jit
def note_thread(first, last, part, out):
    out[first:last] = thread_number()


def test_spans_of_a_team_have_a_thread_each(team):
    out = torch.zeros(6)
    run_spans(note_thread, [(0, 2), (2, 4), (4, 6)], out)
    assert out.tolist() == [0, 0, 1, 1, 2, 2]


def test_an_error_in_any_span_of_a_pool_reaches_the_caller(monkeypatch):
    monkeypatch.setattr("fwpkm.ops.threads._has_team", lambda process: False)
    with pytest.raises(ZeroDivisionError, match="second"):
        run_spans(divide, [(0, 1), (1, 2)], torch.zeros(2))


def test_an_error_in_any_span_of_a_team_is_said(team):
    with pytest.raises(RuntimeError, match=r"^a compiled loop raised an error on one of its threads$"):
        run_spans(divide, [(0, 1), (1, 2)], torch.zeros(2))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_driver_runs_its_loops_one_after_the_other(threads, count):
    out, log = torch.zeros(6), np.zeros((3, 1))
    for _ in range(2):
        drive(number_twice, out, log, count)
    wanted = [0.0] * 6
    for size, scale in ((6, 2.0), (3, 20.0)):
        for part, (first, last) in enumerate(cut_range(size, count, 1)):
            wanted[first:last] = [x + scale * (part + 1) for x in wanted[first:last]]
    assert out.tolist() == wanted
    held = weakref.ref(log)
    del log
    assert held() is None


def test_an_error_in_a_drivers_loop_reaches_the_caller_from_a_pool(monkeypatch):
    monkeypatch.setattr("fwpkm.ops.threads._has_team", lambda process: False)
    with pytest.raises(ZeroDivisionError, match="second"):
        drive(divide_then_number, torch.zeros(2), np.zeros((2, 1)), 2)


def test_an_error_in_a_drivers_loop_is_said_by_a_team(team):
    with pytest.raises(RuntimeError, match=r"^a compiled loop raised an error on one of its threads$"):
        drive(divide_then_number, torch.zeros(2), np.zeros((2, 1)), 2)


def test_it_goes_on_after_a_fork():
    out, log = torch.zeros(2), np.zeros((2, 1))
    run_spans(number, [(0, 1), (1, 2)], 1.0, out, log)  # the parent's threads now exist
    child = os.fork()
    if child == 0:
        run_spans(number, [(0, 1), (1, 2)], 1.0, out, log)
        os._exit(0 if out.tolist() == [2.0, 4.0] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_arrays_that_a_team_worked_on_are_freed(threads):
    out, log = np.zeros(6), np.zeros((3, 1))
    held = weakref.ref(out)
    run_spans(number, [(0, 2), (2, 6)], 1.0, out, log)
    before = sys.getrefcount(log)
    run_spans(number, [(0, 2), (2, 6)], 1.0, out, log)
    assert sys.getrefcount(log) == before
    del out
    assert held() is None


def test_a_numba_that_works_otherwise_means_threads_of_our_own(monkeypatch, caplog):
    def fails(kernel):
        raise AttributeError("no such thing any more")

    monkeypatch.setattr("fwpkm.ops.fork.forked", fails)
    assert not works.__wrapped__()
    assert "no such thing any more" in caplog.text
