"""What docs/memory.md quotes is what the kept results say, and they say what was promised."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/memory.md").read_text()


def result(name):
    return json.loads((ROOT / f"results/memory/{name}.json").read_text())


def share(recall):
    return f"{recall['right'] / recall['questions']:.1%}"


def cells_of(start):
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_forgetting_is_quoted_as_it_was_measured():
    kept = result("forget")
    assert kept["problems"] == []
    assert kept["sessions"] == kept["exact_last"]
    assert sum(before["questions"] for before in kept["before"]) >= 400
    for found, before, name in zip(
        kept["places"], kept["before"], ("the first", "the second", "the last"), strict=True
    ):
        told = (
            found["forgotten"],
            found["never"],
            found["others_before"],
            found["others"],
            found["others_never"],
        )
        assert cells_of(name) == [share(before), *map(share, told)]
        assert found["forgotten"]["right"] / found["forgotten"]["questions"] <= (
            found["never"]["right"] / found["never"]["questions"] + 0.01
        )


def test_row_formats_are_quoted_as_they_were_measured():
    kept = result("rows")
    assert kept["problems"] == []
    names = {"exact": "exact (float32)", "bfloat16": "bfloat16", "int8": "int8, one scale a row"}
    for row in kept["formats"]:
        if row["rows"] in names:
            _, size, _, found = cells_of(names[row["rows"]])
            assert size == f"{row['file_bytes'] / kept['sessions'] / 1e6:.2f} MB"
            assert found == share(row["recall"])


def test_reuse_is_quoted_as_it_was_measured():
    for row in result("prefix_reuse")["rows"]:
        again, held, loaded = cells_of(f"{row['document_tokens']:,} tokens")
        assert again == f"{row['again']['median']:.2f} s"
        assert f"({row['speedup']:.0f} times sooner)" in held
        assert f"({row['speedup_loaded']:.0f} times)" in loaded


@pytest.mark.parametrize(("place", "most"), [(0, 7), (1, 25)])
def test_many_sessions_take_what_they_may(place, most):
    row = result("sessions")["rows"][place]
    assert row["ratio"] >= most
    assert f"1/{row['ratio']:.1f}" in PAGE
