"""Documents as one stream with borders, and the novel that ships."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.data.books import load_novel, novel_documents, novel_parts
from fwpkm.data.documents import TokenDocuments
from fwpkm.data.tokenizer import ByteTokenizer

EOS = 9
DOCUMENTS = st.lists(st.lists(st.integers(0, 8), max_size=7), min_size=1, max_size=8)


def in_shards(documents: list[list[int]], cuts: set[int]) -> TokenDocuments:
    """Put documents into several shards, cut before the numbers in `cuts`."""
    groups: list[list[list[int]]] = [[]]
    for number, document in enumerate(documents):
        if number in cuts and groups[-1]:
            groups.append([])
        groups[-1].append([*document, EOS])
    tokens = [np.array([token for d in group for token in d], np.uint16) for group in groups]
    offsets = [np.cumsum([0, *(len(d) for d in group)]) for group in groups]
    return TokenDocuments(tokens, offsets, eos_id=EOS)


@given(documents=DOCUMENTS, cuts=st.sets(st.integers(0, 8)), data=st.data())
def test_shards_read_as_one_stream(documents: list[list[int]], cuts: set[int], data: st.DataObject) -> None:
    stored = in_shards(documents, cuts)
    stream = [token for document in documents for token in (*document, EOS)]
    a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(stream))] * 2)))
    assert stored.slice(a, b).tolist() == stream[a:b]
    assert stored.slice(a, b).dtype == np.int64
    assert [d.tolist() for d in stored] == [[*d, EOS] for d in documents]
    assert stored.lengths.tolist() == [len(d) + 1 for d in documents]


def test_places_outside_and_empty_collections_are_refused() -> None:
    stored = in_shards([[1, 2]], set())
    with pytest.raises(IndexError, match="got 1"):
        stored[1]
    with pytest.raises(IndexError, match="got 0 and 4"):
        stored.slice(0, 4)
    with pytest.raises(ValueError, match="at least one document"):
        TokenDocuments.from_tokens([], eos_id=EOS)


def test_the_novel_is_whole_and_cut_where_a_chapter_begins() -> None:
    train, held_out = novel_parts()
    assert train + held_out == load_novel()
    assert held_out.startswith("CHAPTER ")
    assert load_novel().startswith("EMMA\n")
    assert load_novel().endswith("FINIS\n")
    assert 0.75 < len(train) / len(load_novel()) < 0.85


def test_the_held_out_part_of_the_novel_holds_a_haystack_of_131072_bytes() -> None:
    _, held_out = novel_documents(ByteTokenizer())
    assert held_out.num_tokens > 131_072
    assert held_out.name(0) == "Emma, last part"


def test_the_example_of_the_data_page_runs() -> None:
    page = (Path(__file__).parents[2] / "docs/data.md").read_text()
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example is not None
    names: dict[str, Any] = {}
    exec(compile(example[1], "docs/data.md", "exec"), names)
    assert names["batch"].input_ids.shape == (8, 512)
    assert len(names["sample"].needles) == 5
