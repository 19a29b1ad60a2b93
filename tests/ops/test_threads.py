"""Spans of items on several threads."""

import os
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.threads import run_spans, split_range


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


def test_all_spans_run_side_by_side_and_write_into_the_tensors():
    out, meeting = torch.zeros(6), threading.Barrier(3, timeout=30)

    def kernel(first, last, part, out):
        assert isinstance(out, np.ndarray)
        meeting.wait()
        out[first:last] = part + 1

    run_spans(kernel, [(0, 2), (2, 4), (4, 6)], out)
    assert out.tolist() == [1, 1, 2, 2, 3, 3]


def test_an_error_in_any_span_reaches_the_caller():
    def kernel(first, last, part):
        if part == 1:
            raise KeyError("second")

    with pytest.raises(KeyError, match="second"):
        run_spans(kernel, [(0, 1), (1, 2)])


def test_it_goes_on_after_a_fork():
    done = torch.zeros(2)
    run_spans(lambda first, last, part, out: None, [(0, 1), (1, 2)], done)  # the parent's threads now exist
    child = os.fork()
    if child == 0:
        run_spans(lambda first, last, part, out: None, [(0, 1), (1, 2)], done)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
