"""Numbers and counts of cells, against Python's own dict and Counter."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.slots import mark_rows, number_cells, read_counts, window_counts

pytestmark = pytest.mark.usefixtures("each_backend")
cells_of_tokens = st.integers(1, 4).flatmap(
    lambda J: st.lists(st.lists(st.integers(0, 2**40), min_size=J, max_size=J), min_size=1, max_size=30)
)


@given(cells=cells_of_tokens, few=st.booleans())
def test_every_cell_has_one_number_and_every_number_one_cell(cells, few):
    cells = torch.tensor(cells) % (7 if few else 2**41)
    ids, rows = number_cells(cells, 7 if few else 2**41)
    assert torch.equal(ids[rows], cells)
    assert sorted(ids.tolist()) == sorted(set(cells.flatten().tolist()))


@given(seed=st.integers(0, 10**6), num_rows=st.integers(1, 9), counted=st.integers(0, 6))
def test_counts_are_those_of_a_counter_and_at_least_one(seed, num_rows, counted):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(num_rows, (6, 3), generator=draw)
    found = read_counts(rows[:4], rows[6 - counted :], num_rows)
    seen = Counter(rows[6 - counted :].flatten().tolist())
    assert found.tolist() == [[max(1, seen[i]) for i in row] for row in rows[:4].tolist()]


@given(data=st.data(), num_rows=st.integers(1, 9))
def test_windows_are_counted_one_by_one(data, num_rows):
    reads = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    writes, counted = ([data.draw(st.integers(0, n)) for n in reads] for _ in range(2))
    rows = torch.randint(num_rows, (sum(reads), 2), generator=torch.Generator().manual_seed(num_rows))
    found = window_counts(rows, reads, writes, counted, num_rows)
    wanted = []
    for part, m, n in zip(rows.split(reads), writes, counted, strict=True):
        seen = Counter(part[:n].flatten().tolist())
        wanted += [[max(1, seen[i]) for i in row] for row in part[:m].tolist()]
    assert found.tolist() == wanted


def test_no_tokens_have_no_cells():
    ids, rows = number_cells(torch.empty(0, 3, dtype=torch.int64), 10)
    assert ids.shape == (0,)
    assert rows.shape == (0, 3)


@given(seed=st.integers(0, 10**6), num_rows=st.integers(1, 9), count=st.integers(0, 6))
def test_rows_that_the_tokens_read_are_marked_and_no_others(seed, num_rows, count):
    draw = torch.Generator().manual_seed(seed)
    rows, tokens = (
        torch.randint(num_rows, (6, 2), generator=draw),
        torch.randperm(6, generator=draw)[:count],
    )
    read = set(rows[tokens].flatten().tolist())
    assert mark_rows(rows, tokens, num_rows).tolist() == [row in read for row in range(num_rows)]
