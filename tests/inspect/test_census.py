"""Occupancy, collisions and ages, counted by hand and against brute force."""

from collections import Counter
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.inspect.census import last_writes, take_census
from fwpkm.inspect.writers import Writers


def writers_of(pairs):
    pairs = sorted(pairs)
    slot, token = (torch.tensor([p[i] for p in pairs], dtype=torch.int64) for i in range(2))
    return Writers(slot=slot, token=token, step=torch.ones(len(pairs)), share=torch.ones(len(pairs)))


def test_a_table_counted_by_hand():
    # Slot 3 by tokens 0 and 1; slot 5 by token 2 in both readings of a document of 10.
    census = take_census(
        writers_of([(3, 0), (3, 1), (5, 2), (5, 12)]), num_slots=16, document_tokens=10, tokens_seen=20
    )
    assert (census.written, census.collided, census.occupancy) == (2, 1, 2 / 16)
    assert [(b.low, b.high, b.slots) for b in census.writers] == [(1, 1, 1), (2, 3, 1)]
    assert [(b.low, b.high, b.slots) for b in census.ages][-2:] == [(7, 14, 1), (15, 30, 1)]
    assert census.median_age == (18 + 7) / 2


def test_an_empty_table_is_no_error():
    census = take_census(writers_of([]), num_slots=4, document_tokens=3, tokens_seen=3)
    assert (census.written, census.collided, census.occupancy, census.median_age) == (0, 0, 0.0, None)
    assert census.writers == census.ages == ()


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 59)), min_size=1, max_size=50),
    st.integers(1, 60),
)
def test_counts_are_those_of_brute_force(pairs, length):
    census = take_census(writers_of(pairs), num_slots=9, document_tokens=length, tokens_seen=60)
    sets, last = {}, {}
    for slot, token in pairs:
        sets.setdefault(slot, set()).add(token % length)
        last[slot] = max(last.get(slot, 0), token)
    assert last_writes(writers_of(pairs)).tolist() == [last[slot] for slot in sorted(last)]
    sizes, ages = Counter(len(own) for own in sets.values()), Counter(59 - t for t in last.values())
    for bins, counts in ((census.writers, sizes), (census.ages, ages)):
        for b in bins:
            assert b.slots == sum(n for size, n in counts.items() if b.low <= size <= b.high)
        assert sum(b.slots for b in bins) == len(sets)
        assert all(a.high + 1 == b.low for a, b in pairwise(bins))
    assert census.collided == sum(n for size, n in sizes.items() if size > 1)
