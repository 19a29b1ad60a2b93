"""The page: whole by itself, whatever names hold, and with every number that it was given."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fwpkm.report.page import make_page, write_report
from fwpkm.testing.results import make_needles, make_perplexity, make_results

VOID = {"meta", "br"}
NASTY = "<script>alert('x')</script> & \"ç\""


class Reader(HTMLParser):
    """Collects what a page would fetch, run or leave open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_and_needs_nothing_else() -> None:
    page = Reader(make_page(make_results(), title="All"))
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert not [
        a for a in page.attributes if a[1] in ("src", "href", "xlink:href", "srcset", "style", "onload")
    ]
    assert "svg" in page.tags


def test_a_page_loads_nothing_through_its_styles() -> None:
    page = make_page(make_results(), title="All")
    assert not re.search(r"url\(|@import", page)
    assert set(re.findall(r"https?://[^\"<> ]+", page)) == {"http://www.w3.org/2000/svg"}


def test_nasty_names_stay_text() -> None:
    page = make_page(make_results(NASTY), title=NASTY, notes=[NASTY])
    assert "<script" not in page
    read = Reader(page)
    assert "script" not in read.tags
    assert read.text.count(NASTY) > 6


def test_every_drawing_is_an_svg_of_its_own() -> None:
    drawings = re.findall(r"<svg.*?</svg>", make_page(make_results(NASTY), title="All"), re.DOTALL)
    assert len(drawings) == 1 + 2 + 1 + 1 + 2 + 3
    for drawing in drawings:
        ElementTree.fromstring(drawing)


def test_the_numbers_are_there_for_every_result() -> None:
    page = Reader(
        make_page([make_needles("first"), make_needles("second"), make_perplexity("third")], title="T")
    )
    for name in ("first", "second", "third"):
        assert name in page.text
    assert "1/4" in page.text
    assert "3/4" in page.text
    assert "5/8 (62%)" in page.text  # two reads, both depths
    assert "some command" in page.text
    assert "samples4" in page.text


def test_ablations_are_named() -> None:
    result = make_needles(variants=("normal", "memory_off", "frozen_memory", "wrong_document"))
    text = Reader(make_page([result], title="T")).text
    for title in ("1 read, memory off", "2 reads, memory frozen", "another document's memory"):
        assert title in text


def test_a_page_without_results_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one result, got none"):
        make_page([], title="None")


def test_a_page_is_written_whole_and_in_a_new_folder(tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "page.html", make_results(), title="T")
    assert (tmp_path / "new" / "page.html").read_text() == make_page(make_results(), title="T")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
